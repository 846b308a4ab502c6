/* What the tests of the convolution families share: shapes that hurt, a naive oracle in float64, and calls
 * over parts of the output. Not part of the library. */
#ifndef ONEBIT_KERNELS_TESTING_CONV_H
#define ONEBIT_KERNELS_TESTING_CONV_H

#include <math.h>

#include "base/testing.h"
#include "kernels/conv.h"

/* The output size that a padding of `before` and `after` gives; 0 where there is none. */
static inline size_t test_conv_out(size_t in, size_t before, size_t after, size_t kernel, size_t stride,
                                   size_t dilation) {
    const size_t reach = dilation * (kernel - 1) + 1, padded = in + before + after;
    return padded < reach ? 0 : (padded - reach) / stride + 1;
}

static inline size_t test_conv_k(const onebit_conv_shape *s) {
    return s->kernel_h * s->kernel_w * (s->channels / s->groups);
}

static inline size_t test_conv_inputs(const onebit_conv_shape *s, size_t images) {
    return images * s->height * s->width * s->channels;
}

static inline size_t test_conv_outputs(const onebit_conv_shape *s, size_t images) {
    return images * s->out_height * s->out_width * s->n;
}

/* A shape of at most a few hundred thousand products, with any stride, dilation, groups and padding. */
static inline onebit_conv_shape test_conv_shape(test_random *random) {
    static const size_t channels[] = {1, 2, 3, 4, 5, 16, 31, 32, 33, 63, 64, 65},
                        groups[] = {1, 1, 1, 1, 2, 3, 4};
    static const size_t kernels[] = {1, 1, 2, 3, 3, 3, 4, 5, 6, 7, 11};
#define PICK(list) list[test_below(random, sizeof(list) / sizeof *(list))]
    for (;;) {
        onebit_conv_shape s = {.height = 1 + test_below(random, 17), .width = 1 + test_below(random, 29)};
        s.kernel_h = PICK(kernels), s.kernel_w = test_below(random, 3) ? s.kernel_h : PICK(kernels);
        s.stride_h = 1 + test_below(random, 4), s.stride_w = test_below(random, 3) ? s.stride_h : 1;
        s.dilation_h = test_below(random, 4) ? 1 : 1 + test_below(random, 3);
        s.dilation_w = test_below(random, 3) ? s.dilation_h : 1 + test_below(random, 3);
        s.groups = PICK(groups);
        s.channels = PICK(channels), s.n = PICK(channels);
        if (s.groups > 1) { /* several groups: of a few channels each */
            s.channels = s.groups * (1 + test_below(random, 20));
            s.n = s.groups * (1 + test_below(random, 40));
        } else if (test_below(random, 5) == 0) { /* depthwise */
            s.groups = s.channels;
            s.n = s.channels * (test_below(random, 4) ? 1 : 2);
        }
        const size_t reach_h = s.dilation_h * (s.kernel_h - 1), reach_w = s.dilation_w * (s.kernel_w - 1);
        s.pad_top = test_below(random, 3) ? test_below(random, reach_h + 1) : 0;
        s.pad_left = test_below(random, 3) ? test_below(random, reach_w + 1) : 0;
        s.out_height = test_conv_out(s.height, s.pad_top, test_below(random, reach_h + 1), s.kernel_h,
                                     s.stride_h, s.dilation_h);
        s.out_width = test_conv_out(s.width, s.pad_left, test_below(random, reach_w + 1), s.kernel_w,
                                    s.stride_w, s.dilation_w);
        const size_t outputs = test_conv_outputs(&s, 1);
        if (outputs && outputs * test_conv_k(&s) < 400000)
            return s;
    }
#undef PICK
}

/* v[image][y][x][n] and the sum of |x * w|, by the definition. x: [image][height][width][channels]; w:
 * [n][kernel_h][kernel_w][channels / groups]. */
static inline void test_conv_oracle(const onebit_conv_shape *s, size_t images, const double *x,
                                    const double *w, double *v, double *magnitude) {
    const size_t channels = s->channels / s->groups, pixels = s->out_height * s->out_width;
    for (size_t at = 0; at < images * pixels * s->n; ++at) {
        const size_t n = at % s->n, column = at / s->n % s->out_width;
        const size_t row = at / s->n / s->out_width % s->out_height, image = at / s->n / pixels;
        const size_t group = n / (s->n / s->groups);
        v[at] = magnitude[at] = 0;
        for (size_t i = 0; i < s->kernel_h; ++i)
            for (size_t j = 0; j < s->kernel_w; ++j) {
                const long from_y = (long)(row * s->stride_h + i * s->dilation_h) - (long)s->pad_top;
                const long from_x = (long)(column * s->stride_w + j * s->dilation_w) - (long)s->pad_left;
                if (from_y < 0 || from_x < 0 || from_y >= (long)s->height || from_x >= (long)s->width)
                    continue;
                const double *pixel =
                    x + ((image * s->height + (size_t)from_y) * s->width + (size_t)from_x) * s->channels;
                for (size_t c = 0; c < channels; ++c) {
                    const double product = pixel[group * channels + c] *
                                           w[((n * s->kernel_h + i) * s->kernel_w + j) * channels + c];
                    v[at] += product;
                    magnitude[at] += fabs(product);
                }
            }
    }
}

/* What a family checks of one output word: `pixel` counts over the batch. */
typedef void (*test_conv_check)(const onebit_conv_variant *variant, const onebit_conv_args *args,
                                const void *context, size_t pixel, size_t word, uint32_t got);

static inline const char *test_conv_text(const onebit_conv_args *args) {
    static char text[256];
    const onebit_conv_shape *s = args->shape;
    snprintf(
        text, sizeof text,
        "%zux%zux%zu -> %zux%zux%zu kernel %zux%zu stride %zu,%zu dilation %zu,%zu pad %zu,%zu groups %zu "
        "epilogue %d rows %zu..%zu columns %zu..%zu",
        s->height, s->width, s->channels, s->out_height, s->out_width, s->n, s->kernel_h, s->kernel_w,
        s->stride_h, s->stride_w, s->dilation_h, s->dilation_w, s->pad_top, s->pad_left, s->groups,
        (int)args->epilogue->kind, args->row_begin, args->row_end, args->n_begin, args->n_end);
    return text;
}

/* One call into a buffer of its own: words of the call are checked, all others must stay untouched. */
static inline void test_conv_part(const onebit_conv_variant *variant, onebit_conv_args args, size_t images,
                                  test_conv_check check, const void *context) {
    const onebit_conv_shape *s = args.shape;
    const size_t unit = args.epilogue->kind == ONEBIT_EPILOGUE_BITS ? 32 : 1,
                 words = (s->n + unit - 1) / unit;
    const size_t size = images * s->out_height * s->out_width * words;
    uint32_t *out = test_alloc(size * sizeof(uint32_t));
    args.out = out;
    memset(args.scratch, 0xFF, variant->scratch_size(s)); /* NaN where it is read before it is written */
    variant->run(&args);
    CHECK(test_guards(out), "%s wrote outside of out: %s", variant->name, test_conv_text(&args));
    for (size_t i = 0; i < size; ++i) {
        const size_t pixel = i / words, word = i % words, row = pixel / s->out_width;
        if (row >= args.row_begin && row < args.row_end && word * unit >= args.n_begin &&
            word * unit < args.n_end)
            check(variant, &args, context, pixel, word, out[i]);
        else
            CHECK_EQ(out[i], UINT32_C(0xA5A5A5A5), "%s wrote pixel %zu word %zu: %s", variant->name, pixel,
                     word, test_conv_text(&args));
    }
    test_free(out);
}

/* The whole output; then cut in two by rows and by columns, at places drawn at random. */
static inline void test_conv_calls(test_random *random, const onebit_conv_variant *variant,
                                   const onebit_conv_shape *s, size_t images, const void *input,
                                   const void *weights, const onebit_epilogue *epilogue,
                                   test_conv_check check, const void *context) {
    void *packed = test_alloc(variant->packed_size(s)), *scratch = test_alloc(variant->scratch_size(s));
    const size_t rows = images * s->out_height, row = test_below(random, rows + 1);
    const size_t tiles = (s->n + variant->n_tile - 1) / variant->n_tile;
    const size_t n = tiles > 1 && s->groups == 1 ? (1 + test_below(random, tiles - 1)) * variant->n_tile : 0;
    onebit_conv_args args = {.shape = s,
                             .row_end = rows,
                             .n_end = s->n,
                             .input = input,
                             .weights = packed,
                             .epilogue = epilogue,
                             .scratch = scratch};
    variant->prepack(s, weights, packed);
    CHECK(test_guards(packed), "%s prepack: %s", variant->name, test_conv_text(&args));
    test_conv_part(variant, args, images, check, context);
    args.row_end = row;
    test_conv_part(variant, args, images, check, context);
    args.row_begin = row, args.row_end = rows;
    test_conv_part(variant, args, images, check, context);
    if (n) {
        args.n_end = n;
        test_conv_part(variant, args, images, check, context);
        args.row_begin = 0, args.row_end = row, args.n_begin = n, args.n_end = s->n;
        test_conv_part(variant, args, images, check, context);
    }
    CHECK(test_guards(scratch), "%s wrote outside of scratch: %s", variant->name, test_conv_text(&args));
    test_free(scratch);
    test_free(packed);
}

#endif
