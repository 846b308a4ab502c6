/* Pooling. Everything is NHWC and contiguous; a pixel of bits is ceil(channels / 32) words with zero padding
 * bits, which stay zero.
 *
 * Tap (i, j) of output (y, x) is the pixel (y * stride_h + i * dilation_h - pad_top, x * stride_w + j *
 * dilation_w - pad_left); a tap outside the image is left out. Every window has at least one tap inside. */
#ifndef ONEBIT_KERNELS_POOL_H
#define ONEBIT_KERNELS_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/isa.h"

typedef struct {
    size_t height, width, channels; /* of the input */
    size_t out_height, out_width;
    size_t kernel_h, kernel_w;
    size_t stride_h, stride_w, dilation_h, dilation_w;
    size_t pad_top, pad_left; /* bottom and right follow from the output size */
} onebit_pool_shape;

typedef struct {
    const onebit_pool_shape *shape;
    /* The output rows this call computes: row r is line r % out_height of image r / out_height, so that
     * threads can split a batch and an image alike. */
    size_t row_begin, row_end;
    const void *input; /* the whole batch; element alignment */
    void *out;         /* the whole batch [images][out_height][out_width][channels]; does not overlap input */
} onebit_pool_args;

/* Pools need no scratch. */
typedef struct {
    onebit_isa isa;
    const char *name; /* "pool/<isa>" */

    /* The maximum of the taps inside; of bits: OR. In max_f32 a NaN in a window makes its maximum NaN, and of
     * 0.0 and -0.0 either may come out. */
    void (*max_bits)(const onebit_pool_args *args);
    void (*max_u8)(const onebit_pool_args *args);
    void (*max_i32)(const onebit_pool_args *args);
    void (*max_f32)(const onebit_pool_args *args);

    /* The mean: a float32 sum, in an order of the variant's own, over a float32 division. The divisor is the
     * number of taps inside, or kernel_h * kernel_w with count_include_pad 1. For k taps |y - exact| <= (k +
     * 1)
     * * 2^-24 * (1 + k * 2^-23) * sum|x| / divisor; == where the sum is exact. */
    void (*average_f32)(const onebit_pool_args *args, int count_include_pad);

    /* out[row] = mean of the row's channels; error as above with k = divisor = channels. */
    void (*channel_mean)(size_t rows, size_t channels, const float *x, float *out);
} onebit_pool;

#endif
