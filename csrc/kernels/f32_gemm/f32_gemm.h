/* The real linear layer: v = sum over k of w[n][k] * a[m][k], all float32.
 *
 * a is [m] rows of k floats (4-byte aligned, any stride that is a multiple of 4; nothing beyond a row's k is
 * read), weights are [n] contiguous rows of k floats. F32 epilogue only: a plain sum is scale 1 and bias -0.
 * out may not overlap a: partial sums wait in it.
 *
 * The definition sums in float64 and rounds once. Every variant sums in float32 in an order of its own, with
 * or without fma, so |v - exact| <= (k + 1) * 2^-24 * (1 + k * 2^-23) * sum|a * w|; where all products and
 * partial sums are representable (dyadic inputs) all variants agree with ==. */
#ifndef ONEBIT_KERNELS_F32_GEMM_H
#define ONEBIT_KERNELS_F32_GEMM_H

#include "kernels/gemm.h"

#endif
