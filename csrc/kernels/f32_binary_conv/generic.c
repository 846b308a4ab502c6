/* Portable C: kernels/conv_direct.inc. packed: [group][block of 32 columns][tap][channel] words; bit j is the
 * weight of column j. */
#include <string.h>

#include "base/bits.h"
#include "kernels/f32_binary_conv/f32_binary_conv.h"
#include "kernels/taps.h"

typedef float input, sum;
typedef uint32_t weight;

static size_t products(const onebit_conv_shape *shape) {
    return shape->kernel_h * shape->kernel_w * (shape->channels / shape->groups);
}

static const weight *block_weights(const onebit_conv_shape *shape, const void *packed, size_t group, size_t n,
                                   size_t *stride) {
    const size_t blocks = onebit_words(shape->n / shape->groups);
    *stride = 1;
    return (const weight *)packed + (group * blocks + n / ONEBIT_WORD_BITS) * products(shape);
}

static void add(const onebit_conv_shape *shape, input x, const weight *w, size_t width, sum *sums) {
    const float choice[2] = {-x, x};
    (void)shape;
    for (size_t j = 0; j < width; ++j)
        sums[j] += choice[*w >> j & 1];
}

static void apply_epilogue(const onebit_conv_args *args, size_t pixel, size_t n, size_t width,
                           const sum *sums) {
    const float *scale = args->epilogue->scale + n, *bias = args->epilogue->bias + n;
    float *out = (float *)args->out + pixel * args->shape->n + n;
    for (size_t j = 0; j < width; ++j)
        out[j] = __builtin_fmaf(sums[j], scale[j], bias[j]);
}

#include "kernels/conv_direct.inc"

static size_t packed_size(const onebit_conv_shape *shape) {
    return shape->groups * onebit_words(shape->n / shape->groups) * products(shape) * sizeof(weight);
}

static void prepack(const onebit_conv_shape *shape, const void *weights, void *packed) {
    const size_t columns = shape->n / shape->groups, channels = shape->channels / shape->groups,
                 taps = shape->kernel_h * shape->kernel_w, words = onebit_words(channels),
                 k = taps * channels;
    const uint32_t *from = weights;
    memset(packed, 0, packed_size(shape));
    for (size_t n = 0; n < shape->n; ++n) {
        const size_t column = n % columns;
        weight *to = (weight *)packed + (n / columns * onebit_words(columns) + column / BLOCK) * k;
        for (size_t tap = 0; tap < taps; ++tap, from += words)
            for (size_t c = 0; c < channels; ++c)
                to[tap * channels + c] |= (from[c / 32] >> c % 32 & 1) << column % BLOCK;
    }
}

const onebit_conv_variant onebit_f32_binary_conv_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "f32_binary_conv/generic",
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
