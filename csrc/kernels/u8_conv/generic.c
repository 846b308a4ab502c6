/* Portable C: kernels/conv_direct.inc. The sum is the definition's own, of w * (multiplier * x + offset),
 * modulo 2^32. packed: [group][block of up to 32 columns][tap][channel][column] bytes of 1 or -1. */
#include <string.h>

#include "kernels/taps.h"
#include "kernels/u8_conv/column_epilogues.h"
#include "kernels/u8_conv/u8_conv.h"

typedef uint8_t input;
typedef int8_t weight;
typedef uint32_t sum;

static size_t block_width(size_t n, size_t n_end);

static size_t products(const onebit_conv_shape *shape) {
    return shape->kernel_h * shape->kernel_w * (shape->channels / shape->groups);
}

static const weight *block_weights(const onebit_conv_shape *shape, const void *packed, size_t group, size_t n,
                                   size_t *stride) {
    const size_t columns = shape->n / shape->groups;
    *stride = block_width(n, columns);
    return (const weight *)packed + (group * columns + n) * products(shape);
}

static void add(const onebit_conv_shape *shape, input x, const weight *w, size_t width, sum *sums) {
    const uint32_t value = (uint32_t)shape->multiplier * x + (uint32_t)shape->offset;
    for (size_t j = 0; j < width; ++j)
        sums[j] += value * (uint32_t)w[j];
}

static void apply_epilogue(const onebit_conv_args *args, size_t pixel, size_t n, size_t width,
                           const sum *sums) {
    int32_t v[32];
    memcpy(v, sums, width * sizeof *v);
    onebit_u8_conv_epilogue(args, pixel, n, width, v);
}

#include "kernels/conv_direct.inc"

static size_t packed_size(const onebit_conv_shape *shape) {
    return shape->n * products(shape);
}

static void prepack(const onebit_conv_shape *shape, const void *weights, void *packed) {
    const uint32_t *from = weights;
    const size_t columns = shape->n / shape->groups, channels = shape->channels / shape->groups,
                 taps = shape->kernel_h * shape->kernel_w, words = onebit_words(channels),
                 k = taps * channels;
    for (size_t n = 0; n < shape->n; ++n) {
        const size_t column = n % columns, block = column / BLOCK * BLOCK,
                     width = block_width(block, columns);
        weight *to = (weight *)packed + (n - column + block) * k + column % BLOCK;
        for (size_t tap = 0; tap < taps; ++tap, from += words)
            for (size_t c = 0; c < channels; ++c)
                to[(tap * channels + c) * width] = from[c / 32] >> c % 32 & 1 ? 1 : -1;
    }
}

const onebit_conv_variant onebit_u8_conv_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "u8_conv/generic",
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
