/* The ones of a row, counted by the warps that share it. */
#pragma once

#include "cuda/base/bits.cuh"

namespace {

constexpr int WARPS = 8;

/* Adds the counts of the warps of a row and stores the sum. All threads of the block call it. */
__device__ __forceinline__ void store_sum(int *sums, int row, int rows, int warps_a_row, int ones) {
    int *const table = reinterpret_cast<int *>(dynamic_shared());
    const int warp = static_cast<int>(threadIdx.x) / 32;
    for (int mask = 16; mask > 0; mask /= 2)
        ones += __shfl_xor_sync(0xFFFFFFFFu, ones, mask);
    if (lane_id() == 0)
        table[warp] = ones;
    __syncthreads();
    if (lane_id() == 0 && warp % warps_a_row == 0 && row < rows && sums != nullptr) {
        int sum = 0;
        for (int i = 0; i < warps_a_row; i++)
            sum += table[warp + i];
        sums[row] = sum;
    }
}

} // namespace
