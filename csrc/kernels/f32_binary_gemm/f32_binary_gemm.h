/* f32 activations times one-bit weights: v = sum over k of w[n][k] * a[m][k], w = +-1.
 *
 * a is [m] rows of k floats (4-byte aligned, any stride that is a multiple of 4; nothing beyond a row's k is
 * read), weights are [n] rows of ceil(k/32) words with zero padding bits. F32 epilogue only: a plain sum is
 * scale 1 and bias -0.
 *
 * The definition sums in float64 and rounds once. Every variant sums in float32 in an order of its own, so
 * |v - exact| <= k * 2^-24 * (1 + k * 2^-23) * sum|a|; where all partial sums are representable (dyadic
 * inputs) every order gives the same float, and all variants agree with ==. */
#ifndef ONEBIT_KERNELS_F32_BINARY_GEMM_H
#define ONEBIT_KERNELS_F32_BINARY_GEMM_H

#include "kernels/gemm.h"

#endif
