/* Portable C: kernels/conv_direct.inc. packed: [group][block of up to 32 columns][tap][channel][column]. */
#include "kernels/f32_conv/f32_conv.h"
#include "kernels/taps.h"

typedef float input, weight, sum;

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
    (void)shape;
    for (size_t j = 0; j < width; ++j)
        sums[j] += x * w[j];
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
    return shape->n * products(shape) * sizeof(weight);
}

static void prepack(const onebit_conv_shape *shape, const void *weights, void *packed) {
    const float *from = weights;
    const size_t columns = shape->n / shape->groups, k = products(shape);
    weight *to = packed;
    for (size_t group = 0; group < shape->groups; ++group, from += columns * k)
        for (size_t n = 0; n < columns; n += BLOCK)
            for (size_t i = 0; i < k; ++i)
                for (size_t j = n; j < n + block_width(n, columns); ++j)
                    *to++ = from[j * k + i];
}

const onebit_conv_variant onebit_f32_conv_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "f32_conv/generic",
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
