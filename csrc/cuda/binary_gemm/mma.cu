/* Binary matrix product for sm_80 and later: mma.sync m16n8k256 and.popc, fed by cp.async.
 *
 * out = epilogue(A · Bᵀ), A bits [rows, K], B bits [columns, K] (bits.cuh, epilogue.cuh), row_bytes a row of
 * both. Chunks of 16 bytes outside a matrix are filled with zeros, which add nothing: any rows, columns and K
 * are exact.
 *
 * Macros
 *   EPILOGUE      0, 1, 2 (epilogue.cuh)
 *   WARPS_DOWN    warps below each other, and
 *   WARPS_ACROSS  beside each other in a tile; a warp computes 16·FRAGMENTS rows × 64 columns
 *   FRAGMENTS     1, 2 or 4
 *   STAGES        K steps of 512 bits (64 bytes) in shared memory
 *
 * Launch: a block a tile of 16·FRAGMENTS·WARPS_DOWN rows × 64·WARPS_ACROSS columns,
 * 32·WARPS_DOWN·WARPS_ACROSS threads, shared memory STAGES·64·(tile rows + tile columns) bytes.
 *
 * Why a warp takes 64 × 64 in large products. An mma takes about 1.5 cycles of an SM (10,250 TOPS on an
 * H200). For 256 bits of K a warp reads (64 + 64)·32 bytes of shared memory for 32 of them: 83 bytes a cycle
 * of 128, where 32 × 64 would need 125. Its 128 sums and two sets of operands, 32 registers each, fit 255
 * registers; so eight warps, 2 × 4, an SM, and a tile of 128 × 256 that takes 128 + 256 bytes from L2 a byte
 * of K. Four stages of 24 KiB are 96 KiB, which every GPU since sm_80 gives a block.
 *
 * Shared memory: a row of a stage is four chunks of 16 bytes, chunk c of row r stands at place c ^ (r / 2 %
 * 4). The eight rows that an ldmatrix reads at once are 512 bytes apart in sum, four lines of 128; rows 2i
 * and 2i + 1 take the two halves of line i, and the xor sends lines to different banks: no conflicts.
 *
 * Pipeline: while the products of half a step are computed, the operands of the next half are read; in the
 * second half of step k that is the first half of step k + 1, so the wait for it and the only barrier stand
 * before. The barrier also says that all warps have read step k, whose place step k + STAGES takes in the
 * next round. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/tiles.cuh"

namespace {

constexpr int STEP = 64; /* bytes along K in one stage */
constexpr int CHUNKS = STEP / 16;
constexpr int THREADS = 32 * WARPS_DOWN * WARPS_ACROSS;
constexpr int WARP_ROWS = 16 * FRAGMENTS;
constexpr int WARP_COLUMNS = 64;
constexpr int ROWS = WARPS_DOWN * WARP_ROWS;
constexpr int COLUMNS_OF_TILE = WARPS_ACROSS * WARP_COLUMNS;
constexpr int STAGE_BYTES = (ROWS + COLUMNS_OF_TILE) * STEP;
constexpr int BAND = 16;

/* The place of a chunk within the rows of a stage. */
__device__ __forceinline__ u32 place(int row, int chunk) {
    return row * STEP + ((chunk ^ (row / 2 % CHUNKS)) << 4);
}

/* One thread's part in copying ROWS_HERE rows of an operand: chunk threadIdx.x % 4 of every (THREADS / 4)-th
 * row. */
template <int ROWS_HERE> struct Copy {
    static constexpr int ROWS_A_TURN = THREADS / CHUNKS;
    static constexpr int TURNS = ROWS_HERE / ROWS_A_TURN;
    static_assert(ROWS_HERE % ROWS_A_TURN == 0 && ROWS_A_TURN % 8 == 0, "the swizzle must repeat every turn");

    const u8 *source;
    u64 turn_bytes;
    u32 target;
    int turns; /* turns whose row lies inside the matrix */
    int byte;
    int row_bytes;

    __device__ __forceinline__ Copy(const u8 *matrix, int first_row, int rows, int row_bytes, u32 shared)
        : row_bytes(row_bytes) {
        const int row = static_cast<int>(threadIdx.x) / CHUNKS,
                  chunk = static_cast<int>(threadIdx.x) % CHUNKS;
        byte = chunk * 16;
        source = matrix + static_cast<u64>(first_row + row) * row_bytes + byte;
        turn_bytes = static_cast<u64>(ROWS_A_TURN) * row_bytes;
        target = shared + place(row, chunk);
        turns = max(0, ceil_div(rows - first_row - row, ROWS_A_TURN));
    }

    __device__ __forceinline__ void start(int stage, int step) const {
        const bool inside = byte + step * STEP < row_bytes;
#pragma unroll
        for (int i = 0; i < TURNS; i++) {
            const bool valid = inside && i < turns;
            const u8 *from = valid ? source + i * turn_bytes + step * STEP : source;
            cp_async_16(target + stage * STAGE_BYTES + i * ROWS_A_TURN * STEP, from, valid);
        }
    }
};

/* A warp's operands for 32 bytes of K: FRAGMENTS × 16 rows of A, 8 × 8 columns of B. */
struct Operands {
    u32 a[FRAGMENTS][4];
    u32 b[WARP_COLUMNS / 16][4]; /* two neighbouring groups of 8 columns, two registers each */

    /* From half a step of the stage at this shared address; a_row and b_row are the warp's first rows in it.
     */
    __device__ __forceinline__ void load(u32 stage, int half, int a_row, int b_row) {
        const int lane = lane_id();
#pragma unroll
        for (int i = 0; i < FRAGMENTS;
             i++) /* matrices: rows 0–7 and 8–15 of the low 16 bytes, then of the high */
            ldmatrix_x4(a[i], stage + place(a_row + 16 * i + lane % 16, 2 * half + lane / 16));
#pragma unroll
        for (int j = 0; j < WARP_COLUMNS / 16; j++) /* low and high 16 bytes of columns 0–7, then of 8–15 */
            ldmatrix_x4(b[j], stage + ROWS * STEP +
                                  place(b_row + 16 * j + lane / 16 * 8 + lane % 8, 2 * half + lane / 8 % 2));
    }
};

__device__ __forceinline__ void multiply(int (&count)[FRAGMENTS][WARP_COLUMNS / 8][4], const Operands &x) {
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++)
#pragma unroll
        for (int j = 0; j < WARP_COLUMNS / 8; j++) {
            const u32 b[2] = {x.b[j / 2][2 * (j % 2)], x.b[j / 2][2 * (j % 2) + 1]};
            mma_b1(count[i][j], x.a[i], b);
        }
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    binary_gemm_mma(const u8 *__restrict__ a, const u8 *__restrict__ b, const int *__restrict__ a_sums,
                    const int *__restrict__ column, const void *__restrict__ more, void *__restrict__ out,
                    int *__restrict__ out_sums, int rows, int columns, int row_bytes) {
    const u32 shared = shared_address(dynamic_shared());
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int warp_row = warp / WARPS_ACROSS * WARP_ROWS, warp_column = warp % WARPS_ACROSS * WARP_COLUMNS;
    const int steps = ceil_div(row_bytes, STEP);
    const int tile_columns = ceil_div(stored_columns(columns), COLUMNS_OF_TILE);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, ROWS), tile_columns, BAND);
    const int first_row = tile.row * ROWS, first_column = tile.column * COLUMNS_OF_TILE;
    const Copy<ROWS> copy_a(a, first_row, rows, row_bytes, shared);
    const Copy<COLUMNS_OF_TILE> copy_b(b, first_column, columns, row_bytes, shared + ROWS * STEP);

    /* A group is committed for every step, also past the last, so that a count of groups is a count of steps.
     */
    for (int step = 0; step < STAGES - 1; step++) {
        copy_a.start(step, step);
        copy_b.start(step, step);
        cp_async_commit();
    }
    int count[FRAGMENTS][WARP_COLUMNS / 8][4] = {};
    Operands now, next;
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    now.load(shared, 0, warp_row, warp_column);
    int stage = 0;
    for (int k = 0; k < steps; k++) {
        const int filled =
            stage == 0 ? STAGES - 1 : stage - 1; /* the place of step k - 1 and of k + STAGES - 1 */
        const int following = stage + 1 == STAGES ? 0 : stage + 1;
        next.load(shared + stage * STAGE_BYTES, 1, warp_row, warp_column);
        copy_a.start(filled, k + STAGES - 1);
        copy_b.start(filled, k + STAGES - 1);
        cp_async_commit();
        multiply(count, now);
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        now.load(shared + following * STAGE_BYTES, 0, warp_row, warp_column);
        multiply(count, next);
        stage = following;
    }
    cp_async_wait<0>();

    const Epilogue e{column, more, out, out_sums, rows, columns};
    ColumnPairs<WARP_COLUMNS> pairs;
    pairs.load(column, first_column + warp_column);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        const int row = first_row + warp_row + 16 * i;
        int row_term[2];
        load_row_terms(row_term, a_sums, row, rows);
        store_fragment<WARP_COLUMNS>(e, row, first_column + warp_column,
                                     reinterpret_cast<const int (&)[WARP_COLUMNS / 2]>(count[i]), row_term,
                                     pairs);
    }
}
