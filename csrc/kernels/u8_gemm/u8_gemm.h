/* u8 activations times one-bit weights, exact.
 *
 *   v = multiplier * dot + offset * rowsum(w[n]),   dot = sum over k of w[n][k] * a[m][k],  w = +-1
 *
 * a is [m] rows of k bytes (any alignment, any stride; not one byte beyond a row's k is read), weights are
 * [n] rows of ceil(k/32) words with zero padding bits, and all three epilogues exist.
 *
 * Range: |dot| <= 255 * k, and |v| <= k * max|multiplier * x + offset| must fit an int32, which the verifier
 * of programs sees to. Products are formed modulo 2^32, so v is exact whenever v itself fits.
 *
 * The results do not depend on it, but the time does: the SIMD variants step over 16 inputs that are 0 in all
 * rows of a tile. Of MNIST's test digits they look up 0.58 of the steps at m = 1, 0.68 in tiles of 2 rows
 * (AVX-512), 0.76 in tiles of 4 (AVX2). Tables are made anew in each call: split many rows between threads by
 * rows, few by columns. */
#ifndef ONEBIT_KERNELS_U8_GEMM_H
#define ONEBIT_KERNELS_U8_GEMM_H

#include "kernels/gemm.h"

#endif
