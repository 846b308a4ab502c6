/* Binary matrix product of few rows, for any GPU: a small batch, where reading the weights is the work.
 *
 * out = epilogue(A · Bᵀ), A bits [rows, K], B bits [columns, K] (bits.cuh, epilogue.cuh), row_bytes a row of
 * both; rows <= MAX_ROWS. popc(a) is counted on the way, so no row sums are needed.
 *
 * Macros
 *   EPILOGUE   0, 1, 2 (epilogue.cuh)
 *   MAX_ROWS  1, 2, 4, 8, 16
 *
 * Launch: a block for 32 columns of the output, for EPILOGUE 2 up to a multiple of 128 columns (the padding
 * of a row); 256 threads, shared memory 128·MAX_ROWS bytes.
 *
 * A warp computes 4 columns. Its lanes take neighbouring chunks of 16 bytes of K, so each row of weights is
 * read once, in loads of 512 bytes, four at a time; the rows of A come from L1. Then the lanes' 4·MAX_ROWS
 * partial sums are added up across the warp, and put down in shared memory, where a row's 32 columns find
 * together. */
#include "cuda/base/epilogue.cuh"

namespace {

constexpr int WARPS = 8;
constexpr int WARP_COLUMNS = 4;
constexpr int BLOCK_COLUMNS = WARPS * WARP_COLUMNS;

} // namespace

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    binary_gemm_few_rows(const uint4 *__restrict__ a, const uint4 *__restrict__ b,
                         const int *__restrict__ column, const void *__restrict__ more,
                         void *__restrict__ out, int *__restrict__ out_sums, int rows, int columns,
                         int row_bytes) {
    int *const table = reinterpret_cast<int *>(dynamic_shared()); /* [MAX_ROWS][BLOCK_COLUMNS] */
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int block_column = static_cast<int>(blockIdx.x) * BLOCK_COLUMNS;
    const int first_column = block_column + warp * WARP_COLUMNS;
    const int row_chunks = row_bytes / 16;
    int v[MAX_ROWS * WARP_COLUMNS] = {};
    for (int chunk = lane_id(); chunk < row_chunks; chunk += 32) {
        uint4 w[WARP_COLUMNS];
#pragma unroll
        for (int c = 0; c < WARP_COLUMNS; c++) {
            w[c] = make_uint4(0, 0, 0, 0);
            if (first_column + c < columns)
                w[c] = __ldg(b + static_cast<u64>(first_column + c) * row_chunks + chunk);
        }
#pragma unroll
        for (int r = 0; r < MAX_ROWS; r++) {
            if (r < rows) {
                const uint4 x = __ldg(a + static_cast<u64>(r) * row_chunks + chunk);
                const int row_term = 2 * popcount(x);
#pragma unroll
                for (int c = 0; c < WARP_COLUMNS; c++)
                    v[r * WARP_COLUMNS + c] += 4 * popcount_of_both(x, w[c]) - row_term;
            }
        }
    }
    using Totals = WarpTotals<MAX_ROWS * WARP_COLUMNS>;
    Totals::sum(v);
    if (lane_id() % Totals::LANES_A_VALUE == 0) {
#pragma unroll
        for (int i = 0; i < Totals::HELD; i++) {
            const int value = Totals::first(lane_id()) + i;
            table[value / WARP_COLUMNS * BLOCK_COLUMNS + warp * WARP_COLUMNS + value % WARP_COLUMNS] = v[i];
        }
    }
    __syncthreads();
    const Epilogue e{column, more, out, out_sums, rows, columns};
    for (int r = warp; r < rows; r += WARPS)
        store_row_of_warp(e, r, block_column, table[r * BLOCK_COLUMNS + lane_id()]);
}
