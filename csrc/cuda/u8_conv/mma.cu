/* Convolution of bytes by one-bit weights for sm_80 and later: implicit matrix product by mma.sync m16n8k32.
 *
 * out [pixels, columns] = epilogue(multiplier · windows of A · Wᵀ). A is uint8 [batch, height, width,
 * channels]; W is int8 [columns, kernel_h·kernel_w·channels of a group] of ±1, row_bytes a row, a multiple of
 * 16, zeros at its end; `rows` output pixels. Taps outside the image are zeros, and the constants `column`
 * hold offset·Σ w over the taps inside, for each class of output pixels (windows.cuh): w·(multiplier·x +
 * offset) over the taps inside comes out. Exact as in u8_gemm/mma.cu.
 *
 * Macros: EPILOGUE 0, 1, 2 (epilogue.cuh); WARPS_DOWN, WARPS_ACROSS, FRAGMENTS, STAGES (mma_tile.cuh).
 * Launch: a block a tile of 16·FRAGMENTS·WARPS_DOWN pixels × 64·WARPS_ACROSS columns, which must divide the
 * columns of a group if there are several; 4 bytes of shared memory more for each row of the tile than
 * mma_tile.cuh says. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/mma_tile.cuh"
#include "cuda/base/tiles.cuh"
#include "cuda/u8_conv/bytes.cuh"

namespace {

constexpr int BAND = 16;

/* Gathers windows into the rows of a stage. Steps beyond the last are never multiplied, so nothing is done.
 */
struct CopyBytes {
    ByteGather<ROWS / ROWS_A_PASS, ROWS_A_PASS> bytes;
    u8 *target;
    int first;
    int row_bytes;

    __device__ __forceinline__ void start(int stage, int step) const {
        if (step * STEP >= row_bytes)
            return;
        bytes.gather(first + step * STEP, [&](int i, uint4 x) {
            *reinterpret_cast<uint4 *>(target + stage * STAGE_BYTES + i * ROWS_A_PASS * STEP) = x;
        });
    }
};

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    u8_conv_mma(const u8 *__restrict__ a, const u8 *__restrict__ b, const int *__restrict__ border,
                const int *__restrict__ column, const void *__restrict__ more, void *__restrict__ out,
                int *__restrict__ out_sums, int multiplier, int rows, int columns, int groups, int channels,
                int row_bytes, int height, int width, int kernel_h, int kernel_w, int stride_h, int stride_w,
                int dilation_h, int dilation_w, int top, int left, int out_h, int out_w) {
    const Windows windows{height,     width,      kernel_h, kernel_w, stride_h, stride_w,
                          dilation_h, dilation_w, top,      left,     out_h,    out_w};
    const u32 shared = shared_address(dynamic_shared());
    int *const row_border = reinterpret_cast<int *>(dynamic_shared() + STAGES * STAGE_BYTES);
    const int thread = static_cast<int>(threadIdx.x);
    const int tile_columns = ceil_div(stored_columns(columns), TILE_COLUMNS);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, ROWS), tile_columns, BAND);
    const int first_row = tile.row * ROWS, first_column = tile.column * TILE_COLUMNS;
    const CopyBytes copy_a{{windows, a, first_row + thread / CHUNKS, rows, channels, channels / groups,
                            group_of(first_column, columns, groups)},
                           dynamic_shared() + place(thread / CHUNKS, thread % CHUNKS),
                           thread % CHUNKS * 16,
                           row_bytes};
    Copy<TILE_COLUMNS> copy_b(b, first_column, columns, row_bytes, shared + ROWS * STEP);
    for (int i = thread; i < ROWS; i += THREADS)
        row_border[i] = border_of(windows, border, min(first_row + i, rows - 1));
    Product<ByteMma> product;
    Sums sums = {};
    compute_tile<false>(sums, shared, ceil_div(row_bytes, STEP), copy_a, copy_b, product);

    const Epilogue e{column, more, out, out_sums, rows, columns};
    const WarpPlace warp = warp_place();
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        const int row = warp.row + 16 * i, mine = row + lane_id() / 4;
        const int *const first = column + first_column + warp.column;
        const ColumnsOfRows constants{{first + row_border[mine], first + row_border[mine + 8]}};
        scale_sums(sums[i], multiplier);
        store_sums<WARP_COLUMNS>(e, first_row + row, first_column + warp.column, flat(sums[i]), constants);
    }
}
