/* Binary convolution for sm_80 and later: implicit matrix product by mma.sync m16n8k256 and.popc.
 *
 * out [pixels, columns] = epilogue(windows of A · Wᵀ). A is bits [batch, height, width, channels], a pixel in
 * `pixel_chunks` chunks of 16 bytes; W is bits [columns, kernel_h·kernel_w, channels of a group], each tap in
 * whole chunks; `rows` output pixels.
 *
 * The sums. With a tap outside filled with zeros, popc(a and b) and popc(a) count the taps inside only, and
 *     Σ over them of (±1)(±1) = 4·popc(a and b) − 2·popc(a) − 2·Σ_inside popc(b) + K_inside.
 * The last two depend on the column and on which taps are inside, as does what a padding of ±1 adds: they are
 * the constants `column` of a class of output pixels (windows.cuh), few classes a layer.
 *
 * popc(a) is the sum of a window and is counted here, by one more mma a fragment against eight columns of all
 * ones: it leaves each row's count in the lanes that need it. The warps beside each other share the fragments
 * out among them, so it adds 1/32 to a warp of 64 × 64, and 1/8 where one warp is across. (Counted with
 * __popc, 16 lanes a cycle, it would take as long as two thirds of the products; sums a pixel, made by
 * whoever packs, would have to be gathered tap by tap, and do not exist a group.)
 *
 * Macros: EPILOGUE 0, 1, 2, 3 (epilogue.cuh); WARPS_DOWN, WARPS_ACROSS, FRAGMENTS, STAGES (mma_tile.cuh).
 * Launch: a block a tile of 16·FRAGMENTS·WARPS_DOWN pixels × 64·WARPS_ACROSS columns, which must divide the
 * columns of a group if there are several; 8 bytes of shared memory more for each row of the tile than
 * mma_tile.cuh says. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/mma_tile.cuh"
#include "cuda/base/tiles.cuh"
#include "cuda/binary_conv/pixels.cuh"

namespace {

constexpr int BAND = 16;

/* Copies windows to the rows of a stage. */
struct CopyPixels {
    PixelWalk<ROWS / ROWS_A_PASS, ROWS_A_PASS, CHUNKS> walk;
    const u8 *images;
    u32 target;

    __device__ __forceinline__ void start(int stage, int) {
        walk.step([&](int i, u32 chunk, bool inside) {
            cp_async_16(target + stage * STAGE_BYTES + i * ROWS_A_PASS * STEP,
                        images + static_cast<u64>(chunk) * 16, inside);
        });
    }
};

/* The products, and popc(a) of the fragments that are this warp's to count. */
struct CountingProduct {
    static constexpr int OWN = (FRAGMENTS + WARPS_ACROSS - 1) / WARPS_ACROSS;
    Product<BitMma> product;
    int across;
    int ones[OWN][4] = {};

    __device__ __forceinline__ void add(Sums &sums, const Operands &x) {
        product.add(sums, x);
        const u32 all[2] = {0xFFFFFFFFu, 0xFFFFFFFFu};
#pragma unroll
        for (int i = 0; i < FRAGMENTS; i++)
            if (i % WARPS_ACROSS == across)
                mma_b1(ones[i / WARPS_ACROSS], x.a[i], all);
    }

    /* To table[row of the tile]; all columns hold the same. */
    __device__ __forceinline__ void store(int *table, int warp_row) const {
#pragma unroll
        for (int i = 0; i < FRAGMENTS; i++) {
            if (i % WARPS_ACROSS == across && lane_id() % 4 == 0) {
                const int row = warp_row + 16 * i + lane_id() / 4;
                table[row] = ones[i / WARPS_ACROSS][0];
                table[row + 8] = ones[i / WARPS_ACROSS][2];
            }
        }
    }
};

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    binary_conv_mma(const u8 *__restrict__ a, const u8 *__restrict__ b, const int *__restrict__ border,
                    const int *__restrict__ column, const void *__restrict__ more, void *__restrict__ out,
                    int *__restrict__ out_sums, const float *__restrict__ residual, u32 *__restrict__ signs,
                    int rows, int columns, int groups, int pixel_chunks, int height, int width, int kernel_h,
                    int kernel_w, int stride_h, int stride_w, int dilation_h, int dilation_w, int top,
                    int left, int out_h, int out_w) {
    const Windows windows{height,     width,      kernel_h, kernel_w, stride_h, stride_w,
                          dilation_h, dilation_w, top,      left,     out_h,    out_w};
    const u32 shared = shared_address(dynamic_shared());
    int *const row_ones = reinterpret_cast<int *>(dynamic_shared() + STAGES * STAGE_BYTES);
    int *const row_border = row_ones + ROWS;
    const WarpPlace warp = warp_place();
    const int tile_columns = ceil_div(stored_columns(columns), TILE_COLUMNS);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, ROWS), tile_columns, BAND);
    const int first_row = tile.row * ROWS, first_column = tile.column * TILE_COLUMNS;
    const int thread = static_cast<int>(threadIdx.x);
    const int group_chunks = pixel_chunks / groups;
    const int row_bytes = kernel_h * kernel_w * group_chunks * 16;
    CopyPixels copy_a{{windows, first_row + thread / CHUNKS, rows, thread % CHUNKS, pixel_chunks,
                       group_chunks, group_of(first_column, columns, groups)},
                      a,
                      shared + place(thread / CHUNKS, thread % CHUNKS)};
    Copy<TILE_COLUMNS> copy_b(b, first_column, columns, row_bytes, shared + ROWS * STEP);
    for (int i = thread; i < ROWS; i += THREADS)
        row_border[i] = border_of(windows, border, min(first_row + i, rows - 1));
    CountingProduct product{{}, warp.column / WARP_COLUMNS};
    Sums count = {};
    compute_tile<(FRAGMENTS < 4)>(count, shared, ceil_div(row_bytes, STEP), copy_a, copy_b, product);
    product.store(row_ones, warp.row);
    __syncthreads();

    const Epilogue e{column, more, out, out_sums, rows, columns, residual, signs};
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        const int row = warp.row + 16 * i, mine = row + lane_id() / 4;
        const int row_term[2] = {2 * row_ones[mine], 2 * row_ones[mine + 8]};
        const int *const first = column + first_column + warp.column;
        const ColumnsOfRows constants{{first + row_border[mine], first + row_border[mine + 8]}};
        store_fragment<WARP_COLUMNS>(e, first_row + row, first_column + warp.column, flat(count[i]), row_term,
                                     constants);
    }
}
