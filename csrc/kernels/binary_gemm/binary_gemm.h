/* bits x bits: out[m][n] = epilogue(K - 2 * popcount(a[m] xor w[n])).
 *
 * a: [m] rows of ceil(k/32) words, 4-byte aligned; weights for prepack: [n] rows of ceil(k/32) words.
 * Padding bits are zero in both. k <= INT32_MAX, so that |v| <= k fits the int32 that the epilogues see. */
#ifndef ONEBIT_KERNELS_BINARY_GEMM_H
#define ONEBIT_KERNELS_BINARY_GEMM_H

#include "kernels/gemm.h"

#endif
