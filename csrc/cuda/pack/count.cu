/* Counts the ones of packed rows: popc(a) of a product, where no kernel before has counted them.
 *
 * bits [rows, row_bytes] → sums [rows]. No macros.
 * Launch: as pack_rows (pack.cu): 256 threads, 32 bytes of shared memory, rows·warps_a_row/8 blocks. */
#include "cuda/pack/row_sums.cuh"

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    count_rows(const uint4 *__restrict__ bits, int *__restrict__ sums, int rows, int row_bytes,
               int warps_a_row) {
    const int warp = static_cast<int>(blockIdx.x) * WARPS + static_cast<int>(threadIdx.x) / 32;
    const int row = warp / warps_a_row;
    const int chunks = row_bytes / 16;
    int ones = 0;
    for (int i = warp % warps_a_row * 32 + lane_id(); row < rows && i < chunks; i += 32 * warps_a_row)
        ones += popcount(__ldg(bits + static_cast<u64>(row) * chunks + i));
    store_sum(sums, row, rows, warps_a_row, ones);
}
