/* Binary convolution for any GPU: implicit matrix product by __popc on the ordinary cores.
 *
 * The operands, the constants and the sums are those of mma.cu.
 *
 * Macro: EPILOGUE 0, 1, 2, 3 (epilogue.cuh).
 * Launch: a block a tile of 64 pixels × 64 columns, 256 threads, shared memory 2·64·144 bytes; 64 must divide
 * the columns of a group if there are several.
 *
 * A warp computes 8 pixels × 64 columns, lane l columns l and l + 32, as in binary_gemm/popc.cu. Of the 64
 * chunks that its rows have in a step each lane counts two for popc(a): 8 __popc more, to 512. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/tiles.cuh"
#include "cuda/binary_conv/pixels.cuh"

namespace {

constexpr int TILE = 64;
constexpr int THREADS = 256;
constexpr int CHUNKS = 8; /* of 16 bytes: a step of K */
constexpr int PITCH = CHUNKS + 1;
constexpr int ROWS_A_PASS = THREADS / CHUNKS;
constexpr int PASSES = TILE / ROWS_A_PASS;
constexpr int WARP_ROWS = TILE / (THREADS / 32);
constexpr int BAND = 8;
static_assert(WARP_ROWS * CHUNKS == 2 * 32, "a lane counts two chunks a step");

/* Copies a step of 64 columns' weights to shared memory, zeros for what lies outside. */
__device__ __forceinline__ void copy_weights(uint4 *to, const uint4 *from, int first_column, int columns,
                                             int first_chunk, int row_chunks) {
    const int row = static_cast<int>(threadIdx.x) / CHUNKS, chunk = static_cast<int>(threadIdx.x) % CHUNKS;
#pragma unroll
    for (int i = 0; i < PASSES; i++) {
        const int column = first_column + row + i * ROWS_A_PASS;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (column < columns && first_chunk + chunk < row_chunks)
            x = __ldg(from + static_cast<u64>(column) * row_chunks + first_chunk + chunk);
        to[(row + i * ROWS_A_PASS) * PITCH + chunk] = x;
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    binary_conv_popc(const uint4 *__restrict__ a, const uint4 *__restrict__ b, const int *__restrict__ border,
                     const int *__restrict__ column, const void *__restrict__ more, void *__restrict__ out,
                     int *__restrict__ out_sums, const float *__restrict__ residual, u32 *__restrict__ signs,
                     int rows, int columns, int groups, int pixel_chunks, int height, int width, int kernel_h,
                     int kernel_w, int stride_h, int stride_w, int dilation_h, int dilation_w, int top,
                     int left, int out_h, int out_w) {
    const Windows windows{height,     width,      kernel_h, kernel_w, stride_h, stride_w,
                          dilation_h, dilation_w, top,      left,     out_h,    out_w};
    uint4 *const a_tile = reinterpret_cast<uint4 *>(dynamic_shared());
    uint4 *const b_tile = a_tile + TILE * PITCH;
    const int thread = static_cast<int>(threadIdx.x), lane = lane_id();
    const int warp_row = thread / 32 * WARP_ROWS;
    const int tile_columns = ceil_div(stored_columns(columns), TILE);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, TILE), tile_columns, BAND);
    const int first_row = tile.row * TILE, first_column = tile.column * TILE;
    const int group_chunks = pixel_chunks / groups;
    const int row_chunks = kernel_h * kernel_w * group_chunks;
    PixelWalk<PASSES, ROWS_A_PASS, CHUNKS> walk(windows, first_row + thread / CHUNKS, rows, thread % CHUNKS,
                                                pixel_chunks, group_chunks,
                                                group_of(first_column, columns, groups));
    int count[WARP_ROWS][2] = {};
    int ones = 0; /* of row lane / 4 of the warp, in two of the eight chunks */
    for (int first = 0; first < row_chunks; first += CHUNKS) {
        walk.step([&](int i, u32 chunk, bool inside) {
            uint4 x = make_uint4(0, 0, 0, 0);
            if (inside)
                x = __ldg(a + chunk);
            a_tile[(thread / CHUNKS + i * ROWS_A_PASS) * PITCH + thread % CHUNKS] = x;
        });
        copy_weights(b_tile, b, first_column, columns, first, row_chunks);
        __syncthreads();
        const uint4 *const counted = a_tile + (warp_row + lane / 4) * PITCH + lane % 4;
        ones += popcount(counted[0]) + popcount(counted[4]);
#pragma unroll 2
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const uint4 left_column = b_tile[lane * PITCH + chunk];
            const uint4 right_column = b_tile[(lane + 32) * PITCH + chunk];
#pragma unroll
            for (int r = 0; r < WARP_ROWS; r++) {
                const uint4 x = a_tile[(warp_row + r) * PITCH + chunk];
                count[r][0] += popcount_of_both(x, left_column);
                count[r][1] += popcount_of_both(x, right_column);
            }
        }
        __syncthreads();
    }
    ones += __shfl_xor_sync(0xFFFFFFFFu, ones, 1);
    ones += __shfl_xor_sync(0xFFFFFFFFu, ones, 2);
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        const int m = first_row + warp_row + r;
        const int row_term = 2 * __shfl_sync(0xFFFFFFFFu, ones, 4 * r);
        const int *const constants = column + border_of(windows, border, min(m, rows - 1));
        const Epilogue e{constants, more, out, out_sums, rows, columns, residual, signs};
#pragma unroll
        for (int side = 0; side < 2; side++)
            store_row_of_warp(e, m, first_column + 32 * side, 4 * count[r][side] - row_term);
    }
}
