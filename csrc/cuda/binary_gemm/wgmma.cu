/* Binary matrix product for sm_90a: wgmma fed by TMA, warp-specialised, persistent.
 *
 * out = epilogue(A · Bᵀ), A bits [rows, K], B bits [columns, K] (bits.cuh, epilogue.cuh), both in multiples
 * of 16 bytes a row. What lies outside a matrix TMA reads as zeros, which add nothing: any rows, columns and
 * K are exact.
 *
 * Macros
 *   EPILOGUE      0, 1, 2 (epilogue.cuh)
 *   CONSUMERS     warpgroups that multiply, 1 or 2, 64 rows of the tile each
 *   TILE_COLUMNS  64, 128, 256
 *   STAGES        K steps of 1024 bits (128 bytes, a row of the 128-byte swizzle) in flight
 *   CLUSTER       1 or 2: blocks that stand above each other and share the tile's rows of B
 *   LEAD          steps that the first consumer is sent ahead of the second, 0 … STAGES - 2
 *
 * Launch: 128·(CONSUMERS + 1) threads; a multiple of CLUSTER blocks, as many as run at once; shared memory
 * STAGES·128·(64·CONSUMERS + TILE_COLUMNS) + 16·STAGES bytes. Boxes of the tensor maps: 64·CONSUMERS rows of
 * A, TILE_COLUMNS/CLUSTER rows of B, 128 bytes, swizzle 128.
 *
 * Why 128 × 256 and clusters of two for large products. m64n256k256 takes about 128 cycles (15,600 TOPS at
 * 132 SMs) and reads (64 + 256)·32 bytes of shared memory, 80 a cycle of 128: a wider instruction reads less
 * a product, 256 is the widest, and its accumulators are 128 registers a thread. ptxas wants 154 registers at
 * launch for it, so two consumers and the producer (384 threads, 168 each) are the most; then the producer
 * gives up all but 24 and the consumers get 240. A step of 128 bytes takes 2·4·128 cycles and brings 128·(128
 * + 256) bytes from L2, 48 a cycle and SM, where L2 delivers 25 to 40 to all at once. Sharing B between two
 * blocks makes it 32. Four stages are 192 KiB of the 227.
 *
 * Storing a tile takes a consumer on the order of 1,000 cycles, in which it multiplies nothing. If the other
 * one is some steps behind, that one has the tensor cores to itself meanwhile (512 cycles a step), and then
 * the other way round: such a lead keeps itself up from tile to tile, but does not arise by itself, so the
 * first tile makes it. Two steps would hide a store whole, but what lies between leader and follower cannot
 * be refilled: of four stages a lead of two and the step and a half that each has in hand leave half a step
 * for TMA to arrive, a lead of one leaves one and a half, some 1,500 cycles. So one; STAGES and LEAD are to
 * be tried on a GPU.
 *
 * Each stage has two barriers. `full`: the block's producer arrives and names the bytes, TMA brings them, B
 * from both producers of the cluster. `empty`: each warp of every consumer of the cluster arrives, because
 * both blocks' halves of B are written into both. The k-th use of a stage waits for phase k of full, and k −
 * 1 of empty; parity k % 2. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/tiles.cuh"

namespace {

constexpr int STEP = 128; /* bytes along K in one stage */
constexpr int ROWS = 64 * CONSUMERS;
constexpr int A_BYTES = ROWS * STEP;
constexpr int B_BYTES = TILE_COLUMNS * STEP;
constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
constexpr int BAND = 8;
constexpr bool MOVE_REGISTERS = TILE_COLUMNS == 256;
constexpr int LEAD_BARRIER = 1;

/* A ring of stages: which comes next, and the parity of its phase. */
struct Ring {
    int stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct Shared {
    u32 base;

    __device__ __forceinline__ u32 a(int stage) const {
        return base + stage * STAGE_BYTES;
    }
    __device__ __forceinline__ u32 b(int stage) const {
        return base + stage * STAGE_BYTES + A_BYTES;
    }
    __device__ __forceinline__ u32 full(int stage) const {
        return base + STAGES * STAGE_BYTES + 8 * stage;
    }
    __device__ __forceinline__ u32 empty(int stage) const {
        return base + STAGES * STAGE_BYTES + 8 * (STAGES + stage);
    }
};

/* Where this block's part of a tile begins. */
struct Place {
    int row;
    int column;
};

/* The tiles of this block, one after another. A cluster walks tiles of CLUSTER·ROWS rows. */
struct Walk {
    int tile_rows;
    int tile_columns;
    int rank;

    __device__ __forceinline__ int first() const {
        return static_cast<int>(blockIdx.x) / CLUSTER;
    }
    __device__ __forceinline__ int step() const {
        return static_cast<int>(gridDim.x) / CLUSTER;
    }
    __device__ __forceinline__ int end() const {
        return tile_rows * tile_columns;
    }
    __device__ __forceinline__ Place at(int index) const {
        const Tile tile = tile_at(index, tile_rows, tile_columns, BAND);
        return {(tile.row * CLUSTER + rank) * ROWS, tile.column * TILE_COLUMNS};
    }
};

__device__ __forceinline__ void produce(const TensorMap &a_map, const TensorMap &b_map, const Shared &shared,
                                        const Walk &walk, int steps) {
    Ring ring;
    tma_prefetch(a_map);
    tma_prefetch(b_map);
    for (int index = walk.first(); index < walk.end(); index += walk.step()) {
        const Place place = walk.at(index);
        for (int k = 0; k < steps; k++, ring.advance()) {
            const u32 full = shared.full(ring.stage);
            mbarrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
            mbarrier_arrive_expect(full, STAGE_BYTES);
            tma_load(shared.a(ring.stage), a_map, k * STEP, place.row, full);
            if constexpr (CLUSTER == 1) {
                tma_load(shared.b(ring.stage), b_map, k * STEP, place.column, full);
            } else {
                const int part = walk.rank * (TILE_COLUMNS / CLUSTER);
                tma_load_multicast(shared.b(ring.stage) + part * STEP, b_map, k * STEP, place.column + part,
                                   full, (1 << CLUSTER) - 1);
            }
        }
    }
}

/* Tells every producer of the cluster that this warp has read the stage. */
__device__ __forceinline__ void release(const Shared &shared, int stage) {
    if constexpr (CLUSTER == 1) {
        if (lane_id() == 0)
            mbarrier_arrive(shared.empty(stage));
    } else {
        __syncwarp(); /* lane 1 speaks for lane 0 too */
        if (lane_id() < CLUSTER)
            mbarrier_arrive_at(shared.empty(stage), lane_id());
    }
}

__device__ __forceinline__ void consume(const Epilogue &e, const int *a_sums, const Shared &shared,
                                        const Walk &walk, int steps, int consumer) {
    const int warp_row = 64 * consumer + static_cast<int>(threadIdx.x) / 32 % 4 * 16;
    Ring ring;
    bool lead = CONSUMERS == 2 && LEAD > 0 && walk.first() < walk.end();
    if (lead && consumer == 1)
        named_barrier_sync(LEAD_BARRIER, 256);
    for (int index = walk.first(); index < walk.end(); index += walk.step()) {
        const Place place = walk.at(index);
        int count[TILE_COLUMNS / 2];
        int previous = 0;
        for (int k = 0; k < steps; k++) {
            mbarrier_wait(shared.full(ring.stage), ring.parity);
            const u64 a = wgmma_descriptor(shared.a(ring.stage) + 64 * consumer * STEP);
            const u64 b = wgmma_descriptor(shared.b(ring.stage));
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < STEP / 32; i++) /* 32 bytes on is 2 in the descriptor's address */
                wgmma_b1<TILE_COLUMNS>(count, a + 2 * i, b + 2 * i, k + i);
            wgmma_commit();
            wgmma_wait<1>(); /* the step before this one */
            if (k > 0)
                release(shared, previous);
            if (lead && consumer == 0 && (k == LEAD || k == steps - 1)) { /* step LEAD - 1 is done */
                named_barrier_sync(LEAD_BARRIER, 256);
                lead = false;
            }
            previous = ring.stage;
            ring.advance();
        }
        wgmma_wait<0>();
        wgmma_finish(count);
        release(shared, previous);
        ColumnPairs<TILE_COLUMNS> pairs;
        int row_term[2];
        pairs.load(e.column, place.column);
        load_row_terms(row_term, a_sums, place.row + warp_row, e.rows);
        store_fragment<TILE_COLUMNS>(e, place.row + warp_row, place.column, count, row_term, pairs);
    }
}

} // namespace

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
    __launch_bounds__(128 * (CONSUMERS + 1), 1)
        binary_gemm_wgmma(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
                          const int *__restrict__ a_sums, const int *__restrict__ column,
                          const void *__restrict__ more, void *__restrict__ out, int *__restrict__ out_sums,
                          int rows, int columns, int row_bytes) {
    const Shared shared{shared_address(dynamic_shared())};
    const int steps = ceil_div(row_bytes, STEP);
    const int rank = CLUSTER > 1 ? static_cast<int>(cluster_rank()) : 0;
    const Walk walk{ceil_div(rows, ROWS * CLUSTER), ceil_div(stored_columns(columns), TILE_COLUMNS), rank};
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            mbarrier_init(shared.full(stage), 1);
            mbarrier_init(shared.empty(stage), 4 * CONSUMERS * CLUSTER);
        }
        mbarrier_init_fence();
    }
    if constexpr (CLUSTER > 1)
        cluster_sync();
    else
        __syncthreads();

    const int warpgroup = static_cast<int>(threadIdx.x) / 128;
    if (warpgroup == CONSUMERS) {
        if constexpr (MOVE_REGISTERS)
            registers_decrease<24>();
        if (threadIdx.x / 32 == 4 * CONSUMERS && elect_one())
            produce(a_map, b_map, shared, walk, steps);
    } else {
        if constexpr (MOVE_REGISTERS)
            registers_increase<240>();
        const Epilogue e{column, more, out, out_sums, rows, columns};
        consume(e, a_sums, shared, walk, steps, warpgroup);
    }
    if constexpr (CLUSTER > 1) { /* a block must live until nobody writes to it or arrives at its barriers */
        __syncwarp();
        cluster_sync();
    }
}
