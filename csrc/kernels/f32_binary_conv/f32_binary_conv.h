/* f32 activations times one-bit weights (BWN): v = sum over taps inside the image and channels of w * x, w =
 * +-1. The weights stay packed, one bit each; every variant spreads a piece of them at a time.
 *
 * Input and out need 4-byte alignment only, and nothing beyond the input is read. F32 epilogue only: a plain
 * sum is scale 1 and bias -0. Any groups. out may not overlap the input: partial sums wait in it.
 *
 * The definition sums in float64 and rounds once. Every variant sums in float32 in an order of its own, so
 * |v - exact| <= k * 2^-24 * (1 + k * 2^-23) * sum|x| with k = kernel_h * kernel_w * channels / groups; where
 * all partial sums are representable (dyadic inputs) all variants agree with ==. */
#ifndef ONEBIT_KERNELS_F32_BINARY_CONV_H
#define ONEBIT_KERNELS_F32_BINARY_CONV_H

#include "kernels/conv.h"

#endif
