/* Convolution of bits with bits; the sum, the layouts and what padding_value means stand in kernels/conv.h.
 *
 * Fewer than 2^29 values in a sum (kernel_h * kernel_w * channels / groups), so that three times as many fit
 * an int32. Dense convolutions of many channels are fast; groups > 1 is correct, not tuned. */
#ifndef ONEBIT_KERNELS_BINARY_CONV_H
#define ONEBIT_KERNELS_BINARY_CONV_H

#include "kernels/conv.h"

#endif
