/* Binary matrix product for sm_80 and later: mma.sync m16n8k256 and.popc, fed by cp.async.
 *
 * out = epilogue(A · Bᵀ), A bits [rows, K], B bits [columns, K] (bits.cuh, epilogue.cuh), row_bytes a row of
 * both. Chunks of 16 bytes outside a matrix are filled with zeros, which add nothing: any rows, columns and K
 * are exact.
 *
 * Macros: EPILOGUE 0, 1, 2 (epilogue.cuh); WARPS_DOWN, WARPS_ACROSS, FRAGMENTS, STAGES (mma_tile.cuh).
 * Launch: a block a tile of 16·FRAGMENTS·WARPS_DOWN rows × 64·WARPS_ACROSS columns; the rest is in
 * mma_tile.cuh.
 *
 * Why a warp takes 64 × 64 in large products. An mma takes about 1.5 cycles of an SM (10,250 TOPS on an
 * H200). For 256 bits of K a warp reads (64 + 64)·32 bytes of shared memory for 32 of them: 83 bytes a cycle
 * of 128, where 32 × 64 would need 125. Its 128 sums and two sets of operands, 32 registers each, fit 255
 * registers; so eight warps, 2 × 4, an SM, and a tile of 128 × 256 that takes 128 + 256 bytes from L2 a byte
 * of K. Four stages of 24 KiB are 96 KiB, which every GPU since sm_80 gives a block. */
#include "cuda/base/epilogue.cuh"
#include "cuda/base/mma_tile.cuh"
#include "cuda/base/tiles.cuh"

namespace {

constexpr int BAND = 16;

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    binary_gemm_mma(const u8 *__restrict__ a, const u8 *__restrict__ b, const int *__restrict__ a_sums,
                    const int *__restrict__ column, const void *__restrict__ more, void *__restrict__ out,
                    int *__restrict__ out_sums, int rows, int columns, int row_bytes) {
    const u32 shared = shared_address(dynamic_shared());
    const int tile_columns = ceil_div(stored_columns(columns), TILE_COLUMNS);
    const Tile tile = tile_at(blockIdx.x, ceil_div(rows, ROWS), tile_columns, BAND);
    const int first_row = tile.row * ROWS, first_column = tile.column * TILE_COLUMNS;
    Copy<ROWS> copy_a(a, first_row, rows, row_bytes, shared);
    Copy<TILE_COLUMNS> copy_b(b, first_column, columns, row_bytes, shared + ROWS * STEP);
    Product<BitMma> product;
    Sums count = {};
    compute_tile<true>(count, shared, ceil_div(row_bytes, STEP), copy_a, copy_b, product);

    const Epilogue e{column, more, out, out_sums, rows, columns};
    const WarpPlace warp = warp_place();
    ColumnPairs<WARP_COLUMNS> pairs;
    pairs.load(column, first_column + warp.column);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        const int row = first_row + warp.row + 16 * i;
        int row_term[2];
        load_row_terms(row_term, a_sums, row, rows);
        store_fragment<WARP_COLUMNS>(e, row, first_column + warp.column, flat(count[i]), row_term, pairs);
    }
}
