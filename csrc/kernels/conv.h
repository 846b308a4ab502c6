/* The interface that every convolution family shares; kernels/gemm.h says what holds for families in general.
 *
 *   v[y][x][n] = sum over taps (i, j) and channels c of the group of n:
 *                input[y * stride_h + i * dilation_h - pad_top][x * stride_w + j * dilation_w - pad_left][c]
 *                * w[n][i][j][c]
 *
 * A tap outside the image adds nothing, except in the binary family with padding_value 1 or -1, where the
 * outside is that value. Everything is NHWC and contiguous; a pixel of bits is ceil(channels / 32) words. */
#ifndef ONEBIT_KERNELS_CONV_H
#define ONEBIT_KERNELS_CONV_H

#include <stddef.h>
#include <stdint.h>

#include "base/isa.h"
#include "kernels/epilogue.h"

typedef struct {
    size_t height, width, channels;  /* of the input; channels of all groups */
    size_t out_height, out_width, n; /* of the output; n channels of all groups */
    size_t kernel_h, kernel_w;
    size_t stride_h, stride_w, dilation_h, dilation_w;
    size_t pad_top, pad_left; /* bottom and right follow from the output size */
    size_t groups;         /* divides channels and n; group g has channels [g, g + 1) * channels / groups */
    int32_t padding_value; /* binary family: 0, 1 or -1; else 0 */
    int32_t multiplier,
        offset; /* u8 family: an input byte b stands for multiplier * b + offset; else ignored */
} onebit_conv_shape;

typedef struct {
    const onebit_conv_shape *shape;
    /* The output rows this call computes: row r is line r % out_height of image r / out_height, so that
     * threads can split a batch and an image alike. */
    size_t row_begin, row_end;
    /* The output channels: begin is a multiple of n_tile; end is one too, or n. 0 and n where groups > 1. */
    size_t n_begin, n_end;
    const void *input;   /* the whole batch */
    const void *weights; /* what prepack wrote */
    void *out; /* the whole batch: [images][out_height][out_width][n] i32 or f32, or [ceil(n/32)] words */
    const onebit_epilogue *epilogue;
    void *scratch; /* scratch_size(shape) bytes, one buffer a thread */
} onebit_conv_args;

typedef struct {
    onebit_isa isa;
    const char *name; /* "<family>/<isa>" */
    size_t n_tile;    /* a multiple of 32 */
    size_t (*packed_size)(const onebit_conv_shape *shape);
    /* weights: the Program's layout, [n][kernel_h][kernel_w][ceil(channels / groups / 32) words], or
     * [n][kernel_h][kernel_w][channels / groups] floats. */
    void (*prepack)(const onebit_conv_shape *shape, const void *weights, void *packed);
    size_t (*scratch_size)(const onebit_conv_shape *shape);
    void (*run)(const onebit_conv_args *args);
} onebit_conv_variant;

#endif
