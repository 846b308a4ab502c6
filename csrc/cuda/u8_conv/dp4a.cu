/* Convolution of bytes by one-bit weights for any GPU: implicit matrix product by dp4a.
 *
 * The operands, the constants and the sums are those of mma.cu.
 *
 * Macro: EPILOGUE 0, 1, 2 (epilogue.cuh).
 * Launch: a block a tile of 64 pixels × 64 columns, 256 threads, shared memory 2·64·80 bytes; 64 must divide
 * the columns of a group if there are several.
 *
 * A warp computes 8 pixels × 64 columns, lane l columns l and l + 32, as in binary_gemm/popc.cu: for four
 * bytes of K it does 16 dp4a a lane, and a row of 64 bytes of K takes 80 in shared memory, so that eight
 * lanes that read neighbouring rows, 16 bytes each, meet all banks once. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/tiles.cuh"
#include "cuda/u8_conv/bytes.cuh"

namespace {

constexpr int TILE = 64;
constexpr int THREADS = 256;
constexpr int CHUNKS = 4; /* of 16 bytes: a step of K */
constexpr int PITCH = CHUNKS + 1;
constexpr int ROWS_A_PASS = THREADS / CHUNKS;
constexpr int WARP_ROWS = TILE / (THREADS / 32);
constexpr int BAND = 8;
static_assert(ROWS_A_PASS == TILE, "a thread copies one chunk of each operand a step");

__device__ __forceinline__ int dot(uint4 x, uint4 w, int sum) {
    return dot_u8(x.w, w.w, dot_u8(x.z, w.z, dot_u8(x.y, w.y, dot_u8(x.x, w.x, sum))));
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    u8_conv_dp4a(const u8 *__restrict__ a, const uint4 *__restrict__ b, const int *__restrict__ border,
                 const int *__restrict__ column, const void *__restrict__ more, void *__restrict__ out,
                 int *__restrict__ out_sums, int multiplier, int rows, int columns, int groups, int channels,
                 int row_bytes, int height, int width, int kernel_h, int kernel_w, int stride_h, int stride_w,
                 int dilation_h, int dilation_w, int top, int left, int out_h, int out_w) {
    const Windows windows{height,     width,      kernel_h, kernel_w, stride_h, stride_w,
                          dilation_h, dilation_w, top,      left,     out_h,    out_w};
    uint4 *const a_tile = reinterpret_cast<uint4 *>(dynamic_shared());
    uint4 *const b_tile = a_tile + TILE * PITCH;
    const int lane = lane_id(), warp_row = static_cast<int>(threadIdx.x) / 32 * WARP_ROWS;
    const int row = static_cast<int>(threadIdx.x) / CHUNKS, chunk = static_cast<int>(threadIdx.x) % CHUNKS;
    const int tile_columns = ceil_div(stored_columns(columns), TILE);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, TILE), tile_columns, BAND);
    const int first_row = tile.row * TILE, first_column = tile.column * TILE;
    const int row_chunks = row_bytes / 16;
    const ByteGather<1, ROWS_A_PASS> bytes(windows, a, first_row + row, rows, channels, channels / groups,
                                           group_of(first_column, columns, groups));
    int sums[WARP_ROWS][2] = {};
    for (int first = 0; first < row_chunks; first += CHUNKS) {
        bytes.gather((first + chunk) * 16, [&](int, uint4 x) { a_tile[row * PITCH + chunk] = x; });
        uint4 w = make_uint4(0, 0, 0, 0);
        if (first_column + row < columns && first + chunk < row_chunks)
            w = __ldg(b + static_cast<u64>(first_column + row) * row_chunks + first + chunk);
        b_tile[row * PITCH + chunk] = w;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const uint4 left_column = b_tile[lane * PITCH + i];
            const uint4 right_column = b_tile[(lane + 32) * PITCH + i];
#pragma unroll
            for (int r = 0; r < WARP_ROWS; r++) {
                const uint4 x = a_tile[(warp_row + r) * PITCH + i];
                sums[r][0] = dot(x, left_column, sums[r][0]);
                sums[r][1] = dot(x, right_column, sums[r][1]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        const int m = first_row + warp_row + r;
        const int *const constants = column + border_of(windows, border, min(m, rows - 1));
        const Epilogue e{constants, more, out, out_sums, rows, columns};
#pragma unroll
        for (int side = 0; side < 2; side++)
            store_row_of_warp(e, m, first_column + 32 * side, multiplier * sums[r][side]);
    }
}
