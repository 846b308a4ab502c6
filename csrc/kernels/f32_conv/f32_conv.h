/* The real convolution: v = sum over taps inside the image and channels of x * w, all float32.
 *
 * Input, weights and out need 4-byte alignment only, and nothing beyond them is read. F32 epilogue only: a
 * plain sum is scale 1 and bias -0. Any groups, depthwise too. out may not overlap the input: partial sums
 * wait in it.
 *
 * The definition sums in float64 and rounds once. Every variant sums in float32 in an order of its own, with
 * or without fma, so |v - exact| <= (k + 1) * 2^-24 * (1 + k * 2^-23) * sum|x * w| with k = kernel_h *
 * kernel_w * channels / groups; where all products and partial sums are representable (dyadic inputs) all
 * variants agree with ==. An infinite weight on a tap outside the image gives NaN or nothing: weights are
 * finite. */
#ifndef ONEBIT_KERNELS_F32_CONV_H
#define ONEBIT_KERNELS_F32_CONV_H

#include "kernels/conv.h"

#endif
