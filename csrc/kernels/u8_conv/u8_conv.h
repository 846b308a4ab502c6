/* u8 activations times one-bit weights, exact.
 *
 *   v = multiplier * dot + offset * (sum of the weights of the taps inside the image),
 *   dot = sum over taps inside and channels of w * x,  w = +-1
 *
 * so a byte x stands for multiplier * x + offset, and a tap outside the image adds nothing. All three
 * epilogues exist; any groups; input of any alignment, and not one byte beyond it is read.
 *
 * Range: |dot| <= 255 * k with k = kernel_h * kernel_w * channels / groups, and |v| <= k * max|multiplier * x
 * + offset| must fit an int32, which the verifier of programs sees to. From dot on, products are formed
 * modulo 2^32, so v is exact whenever v itself fits. */
#ifndef ONEBIT_KERNELS_U8_CONV_H
#define ONEBIT_KERNELS_U8_CONV_H

#include "kernels/conv.h"

#endif
