/* Packed bits on the device.
 *
 * Bit 1 is +1 and bit 0 is -1. Element c of a row is bit c % 32 of little-endian word c / 32, as in a
 * Program, and the bits beyond the last element are zero. A row takes a multiple of 16 bytes, so that TMA,
 * cp.async and 16-byte loads can begin at each: that is the only difference from a Program's tensor.
 *
 * The product of two such rows over K elements is
 *     dot = 4·popc(a and b) − 2·popc(a) − 2·popc(b) + K:
 * with ones counted as 1 and 0, Σ (2a − 1)(2b − 1) = 4 Σ ab − 2 Σ a − 2 Σ b + K. Padding bits add to none of
 * the sums. All kernels, also those without tensor cores, compute v = 4·popc(a and b) − 2·popc(a), and the
 * rest, which depends on the column only, is a constant of the epilogue; so one set of constants serves every
 * kernel.
 *
 * Range: 0 <= popc(a and b) <= popc(a) <= K, so −2K <= v <= 2K; 4·popc(a and b) <= 4K fits if K < 2^29. */
#pragma once

#include "cuda/base/ptx.cuh"

__device__ __forceinline__ int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

/* Words of a packed row of `count` elements, padding included: a multiple of 4. */
__device__ __forceinline__ int padded_words(int count) {
    return ceil_div(count, 128) * 4;
}

__device__ __forceinline__ int lane_id() {
    return static_cast<int>(threadIdx.x) % 32;
}

__device__ __forceinline__ int popcount(uint4 x) {
    return __popc(x.x) + __popc(x.y) + __popc(x.z) + __popc(x.w);
}

__device__ __forceinline__ int popcount_of_both(uint4 x, uint4 y) {
    return __popc(x.x & y.x) + __popc(x.y & y.y) + __popc(x.z & y.z) + __popc(x.w & y.w);
}

/* Sums COUNT values over the warp's 32 lanes, each value in about one shuffle instead of five. Two lanes that
 * differ in one bit of their number each hand over the half of the values that the other keeps; so the number
 * of values halves while the number of lanes that each is summed over doubles. Afterwards lane l holds, in
 * v[0 … HELD), the totals of values FIRST(l) … FIRST(l) + HELD - 1. COUNT is a power of two. */
template <int COUNT> struct WarpTotals {
    static constexpr int HELD = COUNT > 32 ? COUNT / 32 : 1;
    static constexpr int LANES_A_VALUE = COUNT > 32 ? 1 : 32 / COUNT;

    static __device__ __forceinline__ int first(int lane) {
        return lane / LANES_A_VALUE * HELD;
    }

    static __device__ __forceinline__ void sum(int (&v)[COUNT]) {
        int count = COUNT;
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) {
            if (count == 1) {
                v[0] += __shfl_xor_sync(0xFFFFFFFFu, v[0], mask);
                continue;
            }
            count /= 2;
            const bool upper = lane_id() & mask;
#pragma unroll
            for (int i = 0; i < COUNT / 2; i++) {
                if (i < count) {
                    const int kept = upper ? v[count + i] : v[i];
                    const int given = upper ? v[i] : v[count + i];
                    v[i] = kept + __shfl_xor_sync(0xFFFFFFFFu, given, mask);
                }
            }
        }
    }
};
