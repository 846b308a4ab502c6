/* Binary matrix product for any GPU: __popc on the ordinary cores.
 *
 * out = epilogue(A · Bᵀ), A bits [rows, K], B bits [columns, K] (bits.cuh, epilogue.cuh), row_bytes a row of
 * both.
 *
 * Macro: EPILOGUE 0, 1, 2 (epilogue.cuh).
 * Launch: a block a tile of 64 × 64, 256 threads, shared memory 2·64·144 bytes.
 *
 * A warp computes 8 rows × 64 columns: lane l holds columns l and l + 32, so that 32 neighbouring columns of
 * a row are one in each lane, a ballot makes a word of them, and rows of A are read by all lanes at once.
 * Four words of K are 64
 * __popc a lane, 128 cycles of an SM that counts 16 lanes a cycle, against 10 reads of shared memory: __popc
 * is the limit. A row of 128 bytes of K takes 144 in shared memory, so that eight lanes that read
 * neighbouring rows, 16 bytes each, meet all banks once. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/tiles.cuh"

namespace {

constexpr int TILE = 64;
constexpr int THREADS = 256;
constexpr int CHUNKS = 8; /* of 16 bytes: a step of K */
constexpr int PITCH = CHUNKS + 1;
constexpr int WARP_ROWS = TILE / (THREADS / 32);
constexpr int BAND = 8;

/* Copies a step of 64 rows to shared memory, zeros for what lies outside. */
__device__ __forceinline__ void copy(uint4 *to, const uint4 *from, int first_row, int rows, int first_chunk,
                                     int row_chunks) {
#pragma unroll
    for (int i = 0; i < TILE * CHUNKS / THREADS; i++) {
        const int row = (static_cast<int>(threadIdx.x) + i * THREADS) / CHUNKS;
        const int chunk = static_cast<int>(threadIdx.x) % CHUNKS;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (first_row + row < rows && first_chunk + chunk < row_chunks)
            x = __ldg(from + static_cast<u64>(first_row + row) * row_chunks + first_chunk + chunk);
        to[row * PITCH + chunk] = x;
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    binary_gemm_popc(const uint4 *__restrict__ a, const uint4 *__restrict__ b, const int *__restrict__ a_sums,
                     const int *__restrict__ column, const void *__restrict__ more, void *__restrict__ out,
                     int *__restrict__ out_sums, int rows, int columns, int row_bytes) {
    uint4 *const a_tile = reinterpret_cast<uint4 *>(dynamic_shared());
    uint4 *const b_tile = a_tile + TILE * PITCH;
    const int row_chunks = row_bytes / 16;
    const int warp_row = static_cast<int>(threadIdx.x) / 32 * WARP_ROWS;
    const int tile_columns = ceil_div(stored_columns(columns), TILE);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, TILE), tile_columns, BAND);
    int count[WARP_ROWS][2] = {};
    for (int first = 0; first < row_chunks; first += CHUNKS) {
        copy(a_tile, a, tile.row * TILE, rows, first, row_chunks);
        copy(b_tile, b, tile.column * TILE, columns, first, row_chunks);
        __syncthreads();
#pragma unroll 2
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const uint4 left = b_tile[lane_id() * PITCH + chunk];
            const uint4 right = b_tile[(lane_id() + 32) * PITCH + chunk];
#pragma unroll
            for (int r = 0; r < WARP_ROWS; r++) {
                const uint4 x = a_tile[(warp_row + r) * PITCH + chunk];
                count[r][0] += popcount_of_both(x, left);
                count[r][1] += popcount_of_both(x, right);
            }
        }
        __syncthreads();
    }
    const Epilogue e{column, more, out, out_sums, rows, columns};
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        const int m = tile.row * TILE + warp_row + r;
        const int row_term = m < rows ? 2 * __ldg(a_sums + m) : 0;
#pragma unroll
        for (int side = 0; side < 2; side++)
            store_row_of_warp(e, m, tile.column * TILE + 32 * side, 4 * count[r][side] - row_term);
    }
}
