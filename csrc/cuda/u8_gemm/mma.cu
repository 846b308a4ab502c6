/* Matrix product of bytes by one-bit weights for sm_80 and later: mma.sync m16n8k32, fed by cp.async.
 *
 * out = epilogue(multiplier · A · Wᵀ), A uint8 [rows, K], W int8 [columns, K] of ±1, row_bytes = K a row of
 * both, a multiple of 16 (zeros of W beyond a shorter K). The epilogue (epilogue.cuh) adds the constants
 * `column`, which hold offset·Σ w, so that w·(multiplier·x + offset) comes out.
 *
 * Exact in int32: the Program's rule is K·(255·|multiplier| + |offset|) < 2^31, and both terms and their sum
 * lie within that.
 *
 * Macros: EPILOGUE 0, 1, 2 (epilogue.cuh); WARPS_DOWN, WARPS_ACROSS, FRAGMENTS, STAGES (mma_tile.cuh).
 * Launch: a block a tile of 16·FRAGMENTS·WARPS_DOWN rows × 64·WARPS_ACROSS columns; the rest is in
 * mma_tile.cuh. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/mma_tile.cuh"
#include "cuda/base/tiles.cuh"

namespace {

constexpr int BAND = 16;

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    u8_gemm_mma(const u8 *__restrict__ a, const u8 *__restrict__ b, const int *__restrict__ column,
                const void *__restrict__ more, void *__restrict__ out, int *__restrict__ out_sums,
                int multiplier, int rows, int columns, int row_bytes) {
    const u32 shared = shared_address(dynamic_shared());
    const int tile_columns = ceil_div(stored_columns(columns), TILE_COLUMNS);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, ROWS), tile_columns, BAND);
    const int first_row = tile.row * ROWS, first_column = tile.column * TILE_COLUMNS;
    Copy<ROWS> copy_a(a, first_row, rows, row_bytes, shared);
    Copy<TILE_COLUMNS> copy_b(b, first_column, columns, row_bytes, shared + ROWS * STEP);
    Product<ByteMma> product;
    Sums sums = {};
    compute_tile<(FRAGMENTS < 4)>(sums, shared, ceil_div(row_bytes, STEP), copy_a, copy_b, product);

    const Epilogue e{column, more, out, out_sums, rows, columns};
    const WarpPlace warp = warp_place();
    ColumnPairs<WARP_COLUMNS> pairs;
    pairs.load(column, first_column + warp.column);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        scale_sums(sums[i], multiplier);
        store_sums<WARP_COLUMNS>(e, first_row + warp.row + 16 * i, first_column + warp.column, flat(sums[i]),
                                 pairs);
    }
}
