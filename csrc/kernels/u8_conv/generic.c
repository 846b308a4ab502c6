/* Portable C: kernels/conv_direct.inc. The sum is the definition's own, of w * (multiplier * x + offset),
 * modulo 2^32. packed: [group][block of up to 32 columns][tap][channel][column] bytes of 1 or -1. */
#include "base/bits.h"
#include "kernels/taps.h"
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

static void store(const onebit_conv_args *args, size_t pixel, size_t n, size_t width, const sum *sums) {
    const onebit_epilogue *epilogue = args->epilogue;
    uint32_t *const out = args->out;
    uint32_t bits[2] = {0};
    for (size_t j = 0; j < width; ++j) {
        const int32_t v = (int32_t)sums[j];
        if (epilogue->kind == ONEBIT_EPILOGUE_I32)
            ((int32_t *)out)[pixel * args->shape->n + n + j] = v;
        else if (epilogue->kind == ONEBIT_EPILOGUE_F32)
            ((float *)out)[pixel * args->shape->n + n + j] =
                __builtin_fmaf((float)v, epilogue->scale[n + j], epilogue->bias[n + j]);
        else
            bits[(n % 32 + j) / 32] |= (uint32_t)(v >= epilogue->threshold[n + j]) << (n + j) % 32;
    }
    if (epilogue->kind != ONEBIT_EPILOGUE_BITS)
        return;
    /* A group may begin and end within a word; groups come in order, so the first to reach a word sets it. */
    uint32_t *row = out + pixel * onebit_words(args->shape->n);
    for (size_t word = n / 32; word <= (n + width - 1) / 32; ++word) {
        const size_t begin = n > 32 * word ? n - 32 * word : 0, left = n + width - 32 * word;
        const uint32_t mask = (left < 32 ? (UINT32_C(1) << left) - 1 : UINT32_MAX) & UINT32_MAX << begin;
        const uint32_t value = (bits[word - n / 32] ^ epilogue->flip[word]) & mask;
        row[word] = begin ? row[word] | value : value;
    }
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
