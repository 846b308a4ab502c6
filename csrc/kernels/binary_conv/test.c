/* Every variant that this machine can run, against plain sums of products of +1 and -1. */
#include "base/testing.h"

#include "base/bits.h"
#include "kernels/binary_conv/geometry.h"
#include "kernels/families.h"

#include <math.h>
#include <stdbool.h>

typedef struct {
    onebit_conv_shape s;
    size_t images;
    uint32_t *input, *weights, *flip;
    int32_t *sum, *threshold; /* sum: [images][out_height][out_width][n] */
    float *scale, *bias;
} problem;

/* `rows` packed rows of `channels` bits as +1 and -1. */
static int8_t *unpack(const uint32_t *packed, size_t rows, size_t channels) {
    int8_t *values = test_alloc_input(rows * channels);
    for (size_t row = 0; row < rows; ++row)
        for (size_t c = 0; c < channels; ++c)
            values[row * channels + c] =
                packed[row * onebit_words(channels) + c / 32] >> (c % 32) & 1 ? 1 : -1;
    return values;
}

/* What a tap of channel n gives: a sum over the channels of n's group. */
static int32_t tap(const problem *p, const int8_t *image, const int8_t *weights, size_t n, long line,
                   long column) {
    const onebit_conv_shape *s = &p->s;
    const size_t channels = s->channels / s->groups, group = n / (s->n / s->groups);
    const bool inside = line >= 0 && line < (long)s->height && column >= 0 && column < (long)s->width;
    const int8_t *pixel =
        inside ? image + ((size_t)line * s->width + (size_t)column) * s->channels + group * channels : NULL;
    int32_t sum = 0;
    for (size_t c = 0; c < channels; ++c)
        sum += (inside ? pixel[c] : s->padding_value) * weights[c];
    return sum;
}

/* The oracle: the definition in kernels/conv.h, loop by loop. */
static void convolve(problem *p) {
    const onebit_conv_shape *s = &p->s;
    const size_t channels = s->channels / s->groups;
    int8_t *input = unpack(p->input, p->images * s->height * s->width, s->channels);
    int8_t *weights = unpack(p->weights, s->n * s->kernel_h * s->kernel_w, channels);
    int32_t *sum = p->sum;
    for (size_t image = 0; image < p->images; ++image)
        for (size_t y = 0; y < s->out_height; ++y)
            for (size_t x = 0; x < s->out_width; ++x)
                for (size_t n = 0; n < s->n; ++n, ++sum) {
                    *sum = 0;
                    for (size_t i = 0; i < s->kernel_h; ++i)
                        for (size_t j = 0; j < s->kernel_w; ++j)
                            *sum += tap(p, input + image * s->height * s->width * s->channels,
                                        weights + ((n * s->kernel_h + i) * s->kernel_w + j) * channels, n,
                                        (long)(y * s->stride_h + i * s->dilation_h) - (long)s->pad_top,
                                        (long)(x * s->stride_w + j * s->dilation_w) - (long)s->pad_left);
                }
    free(input);
    free(weights);
}

/* Thresholds at, beside and far from the sums that occur, and at the ends of int32. */
static int32_t draw_threshold(test_random *random, const problem *p, size_t n) {
    size_t pixels = p->images * p->s.out_height * p->s.out_width;
    int32_t sum = p->sum[test_below(random, pixels) * p->s.n + n];
    switch (test_below(random, 10)) {
    case 0:
        return INT32_MIN;
    case 1:
        return INT32_MAX;
    case 2:
        return INT32_MIN + 1;
    case 3:
        return sum + 1;
    case 4:
        return sum - 1;
    default:
        return sum;
    }
}

static problem make(test_random *random, onebit_conv_shape s, size_t images) {
    const size_t pixels = images * s.height * s.width, rows = s.n * s.kernel_h * s.kernel_w;
    problem p = {.s = s, .images = images};
    p.input = test_alloc_input(pixels * onebit_words(s.channels) * 4);
    p.weights = test_alloc_input(rows * onebit_words(s.channels / s.groups) * 4);
    p.flip = test_alloc_input(onebit_words(s.n) * 4);
    p.sum = test_alloc_input(images * s.out_height * s.out_width * s.n * 4);
    p.threshold = test_alloc_input(s.n * 4);
    p.scale = test_alloc_input(s.n * 4);
    p.bias = test_alloc_input(s.n * 4);
    test_fill_bits(random, p.input, pixels, s.channels);
    test_fill_bits(random, p.weights, rows, s.channels / s.groups);
    test_fill_bits(random, p.flip, 1, s.n);
    convolve(&p);
    for (size_t n = 0; n < s.n; ++n) {
        p.threshold[n] = draw_threshold(random, &p, n);
        p.scale[n] = test_float(random);
        p.bias[n] = test_below(random, 4) ? 8 * test_float(random) : -0.0f;
    }
    return p;
}

static void destroy(problem *p) {
    void *const all[] = {p->input, p->weights, p->flip, p->sum, p->threshold, p->scale, p->bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
}

/* Word `word` of output pixel `pixel`. */
static uint32_t expected(const problem *p, onebit_epilogue_kind kind, size_t pixel, size_t word) {
    const int32_t *sum = p->sum + pixel * p->s.n;
    if (kind == ONEBIT_EPILOGUE_I32)
        return (uint32_t)sum[word];
    uint32_t bits = 0;
    if (kind == ONEBIT_EPILOGUE_F32) {
        float y = fmaf((float)sum[word], p->scale[word], p->bias[word]);
        memcpy(&bits, &y, sizeof bits);
    } else {
        for (size_t bit = 0, n = word * 32; bit < 32 && n < p->s.n; ++bit, ++n)
            bits |= (uint32_t)((sum[n] >= p->threshold[n]) != (p->flip[word] >> bit & 1)) << bit;
    }
    return bits;
}

static const char *describe(const problem *p) {
    static char text[300];
    const onebit_conv_shape *s = &p->s;
    snprintf(text, sizeof text,
             "%zu images %zux%zux%zu to %zux%zux%zu, kernel %zux%zu, stride %zux%zu, dilation %zux%zu, pad "
             "%zu,%zu value %d, groups %zu",
             p->images, s->height, s->width, s->channels, s->out_height, s->out_width, s->n, s->kernel_h,
             s->kernel_w, s->stride_h, s->stride_w, s->dilation_h, s->dilation_w, s->pad_top, s->pad_left,
             (int)s->padding_value, s->groups);
    return text;
}

/* Rows and channels asked for are right, and nothing else in the buffer was written. */
static void compare(const onebit_conv_variant *v, const problem *p, onebit_epilogue_kind kind,
                    const onebit_conv_args *args) {
    const size_t unit = kind == ONEBIT_EPILOGUE_BITS ? 32 : 1, words = (p->s.n + unit - 1) / unit;
    const uint32_t *out = args->out;
    for (size_t row = 0; row < p->images * p->s.out_height; ++row)
        for (size_t x = 0; x < p->s.out_width; ++x)
            for (size_t word = 0; word < words; ++word) {
                size_t pixel = row * p->s.out_width + x, n = word * unit;
                bool written =
                    row >= args->row_begin && row < args->row_end && n >= args->n_begin && n < args->n_end;
                uint32_t want = written ? expected(p, kind, pixel, word) : UINT32_C(0xA5A5A5A5);
                CHECK(out[pixel * words + word] == want,
                      "%s, epilogue %d, row %zu of %zu..%zu, x=%zu, n=%zu of %zu..%zu: got %08x, want %08x; "
                      "%s",
                      v->name, (int)kind, row, args->row_begin, args->row_end, x, n, args->n_begin,
                      args->n_end, out[pixel * words + word], want, describe(p));
            }
    CHECK(test_guards(out), "%s, epilogue %d: wrote outside its output; %s", v->name, (int)kind, describe(p));
}

static void check_part(const onebit_conv_variant *v, const problem *p, const void *packed, size_t row_begin,
                       size_t row_end, size_t n_begin, size_t n_end) {
    void *scratch = test_alloc(v->scratch_size(&p->s));
    for (onebit_epilogue_kind kind = ONEBIT_EPILOGUE_I32; kind <= ONEBIT_EPILOGUE_BITS; ++kind) {
        size_t words = kind == ONEBIT_EPILOGUE_BITS ? onebit_words(p->s.n) : p->s.n;
        onebit_epilogue epilogue = {kind, p->scale, p->bias, p->threshold, p->flip};
        onebit_conv_args args = {.shape = &p->s,
                                 .row_begin = row_begin,
                                 .row_end = row_end,
                                 .n_begin = n_begin,
                                 .n_end = n_end,
                                 .input = p->input,
                                 .weights = packed,
                                 .out = test_alloc(p->images * p->s.out_height * p->s.out_width * words * 4),
                                 .epilogue = &epilogue,
                                 .scratch = scratch};
        v->run(&args);
        compare(v, p, kind, &args);
        CHECK(test_guards(scratch), "%s: used more than scratch_size; %s", v->name, describe(p));
        test_free(args.out);
    }
    test_free(scratch);
}

/* The whole of it, then a part of the rows, then a part of the channels. */
static void check(const onebit_conv_variant *v, const problem *p, test_random *random) {
    const size_t rows = p->images * p->s.out_height, n = p->s.n;
    void *packed = test_alloc(v->packed_size(&p->s));
    v->prepack(&p->s, p->weights, packed);
    CHECK(test_guards(packed), "%s: prepack wrote more than packed_size; %s", v->name, describe(p));
    check_part(v, p, packed, 0, rows, 0, n);
    if (rows > 1) {
        size_t begin = test_below(random, rows), end = begin + test_below(random, rows - begin + 1);
        check_part(v, p, packed, begin, end, 0, n);
    }
    if (p->s.groups == 1 && n > v->n_tile) {
        size_t tiles = (n + v->n_tile - 1) / v->n_tile, begin = test_below(random, tiles);
        size_t end = (begin + 1 + test_below(random, tiles - begin)) * v->n_tile;
        check_part(v, p, packed, 0, rows, begin * v->n_tile, end < n ? end : n);
    }
    test_free(packed);
}

static void check_shape(const onebit_conv_variant *v, test_random *random, onebit_conv_shape s,
                        size_t images) {
    problem p = make(random, s, images);
    check(v, &p, random);
    destroy(&p);
}

/* Square everything, out as PyTorch computes it. */
static onebit_conv_shape square(size_t size, size_t channels, size_t n, size_t kernel, size_t stride,
                                size_t pad) {
    size_t out = (size + 2 * pad - kernel) / stride + 1;
    return (onebit_conv_shape){.height = size,
                               .width = size,
                               .channels = channels,
                               .out_height = out,
                               .out_width = out,
                               .n = n,
                               .kernel_h = kernel,
                               .kernel_w = kernel,
                               .stride_h = stride,
                               .stride_w = stride,
                               .dilation_h = 1,
                               .dilation_w = 1,
                               .pad_top = pad,
                               .pad_left = pad,
                               .groups = 1};
}

static void test_sizes(const onebit_conv_variant *v, test_random *random) {
    static const size_t channels[] = {1, 31, 32, 33, 63, 64, 65, 511}, ns[] = {1, 31, 33, 63, 64, 65, 129};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; ++i)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; ++j)
            for (int32_t value = -1; value <= 1; ++value) {
                onebit_conv_shape s = square(3 + (i + j) % 4, channels[i], ns[j], 3, 1 + (i + j) % 2, 1);
                s.padding_value = value;
                check_shape(v, random, s, 1);
            }
    for (size_t kernel = 1; kernel <= 7; ++kernel) /* outputs where no tap, or every tap, is inside */
        for (size_t size = 1; size <= 9; size += 2)
            for (int32_t value = -1; value <= 1; ++value) {
                onebit_conv_shape s = square(size, 40, 35, kernel, 1, kernel);
                s.padding_value = value;
                check_shape(v, random, s, 2);
            }
    for (size_t width = 1; width <= 40; ++width) { /* every split of a line into tiles */
        onebit_conv_shape s = square(3, 64, 33, 3, 1, 1);
        s.width = s.out_width = width;
        check_shape(v, random, s, 1);
    }
}

/* 1x1: lines and images run together; larger blocks than one. */
static void test_pointwise(const onebit_conv_variant *v, test_random *random) {
    for (size_t size = 1; size <= 9; ++size)
        for (size_t images = 1; images <= 4; images += 3) {
            check_shape(v, random, square(size, 65, 70, 1, 1, 0), images);
            check_shape(v, random, square(size, 65, 70, 1, 2, 0), images);
        }
    check_shape(v, random, square(90, 511, 3, 1, 1, 0), 2);
    for (size_t out = 3; out <= 7; out += 4) { /* fewer lines than the image has, and more */
        onebit_conv_shape s = square(5, 33, 40, 1, 1, 0);
        s.out_height = out;
        check_shape(v, random, s, 3);
        s.out_height = 5;
        s.out_width = out;
        check_shape(v, random, s, 3);
    }
}

/* Strips of several blocks of lines and of columns. */
static void test_large(const onebit_conv_variant *v, test_random *random) {
    for (int32_t value = -1; value <= 1; ++value) {
        onebit_conv_shape s = square(100, 200, 5, 3, 1, 1);
        s.padding_value = value;
        check_shape(v, random, s, 1);
        s.height = s.out_height = 2;
        s.width = 3001;
        s.out_width = 1501;
        s.stride_w = 2;
        check_shape(v, random, s, 2);
    }
    onebit_conv_shape long_sum = square(3, 9000, 34, 3, 1, 1); /* more than 16 bits count */
    check_shape(v, random, long_sum, 1);
}

static void fill_equal(problem *p, bool same) {
    memset(p->weights, 0, p->s.n * p->s.kernel_h * p->s.kernel_w * onebit_words(p->s.channels) * 4);
    memset(p->input, same ? 0 : 0xFF, p->images * p->s.height * p->s.width * onebit_words(p->s.channels) * 4);
    convolve(p);
}

/* Every bit equal, every bit different: 81920 differing bits overflow 16-bit counts. */
static void test_extremes(const onebit_conv_variant *v, test_random *random) {
    for (int same = 0; same < 2; ++same)
        for (int32_t value = -1; value <= 1; ++value) {
            onebit_conv_shape s = square(4, 8192, 3, 5, 1, 2);
            s.padding_value = value;
            problem p = make(random, s, 1);
            fill_equal(&p, same);
            check(v, &p, random);
            destroy(&p);
        }
    onebit_conv_shape s = square(4, 5120, 2, 4, 1, 0);
    problem p = make(random, s, 1);
    fill_equal(&p, false);
    CHECK_EQ(p.sum[0], -81920, "the oracle");
    check(v, &p, random);
    destroy(&p);
}

/* More lines of padding than of the image, and a stride that makes each line a block: a walk from the first
 * line to each block would take minutes. */
static void test_tall(const onebit_conv_variant *v, test_random *random) {
    for (int32_t value = -1; value <= 1; ++value) {
        onebit_conv_shape s = square(8, 1, 1, 1, 1, 0);
        s.stride_h = 40000;
        s.kernel_h = 2;
        s.out_height = 300000;
        s.pad_top = s.stride_h * s.out_height / 2;
        s.out_width = s.width = 1;
        s.padding_value = value;
        check_shape(v, random, s, 1);
    }
}

/* Classes, found one after another, against a look at every output. */
static void test_classes(test_random *random) {
    for (int i = 0; i < 2000; ++i) {
        const axis a = {.size = 1 + test_below(random, 20),
                        .out_size = 1 + test_below(random, 60),
                        .kernel = 1 + test_below(random, 9),
                        .stride = 1 + test_below(random, 5),
                        .dilation = 1 + test_below(random, 5),
                        .pad = test_below(random, 30)};
        size_t classes = 0, next = 0;
        for (size_t out = 0; out < a.out_size; ++out) {
            const taps here = taps_inside(&a, out), before = taps_inside(&a, out ? out - 1 : 0);
            if (out == 0 || here.begin != before.begin || here.end != before.end) {
                CHECK_EQ(next, out, "a class begins");
                next = next_class(&a, out);
                ++classes;
            }
        }
        CHECK_EQ(next, a.out_size, "the last class ends");
        CHECK_EQ(count_classes(&a), classes, "classes");
    }
    const axis endless = {
        .size = 8, .out_size = (size_t)1 << 40, .kernel = 3, .stride = 1, .dilation = 1, .pad = 2};
    CHECK_EQ(count_classes(&endless), 6, "found without a walk over the outputs");
}

static size_t pick(test_random *random, const size_t *from, size_t count) {
    return from[test_below(random, count)];
}

/* Any geometry; the output may be smaller or larger than the usual formula gives. */
static onebit_conv_shape draw_shape(test_random *random) {
    static const size_t channels[] = {1, 2, 3, 16, 31, 32, 33, 63, 64, 65, 96}, groups[] = {1, 1, 1, 2, 3, 5};
    static const size_t small[] = {1, 1, 1, 2, 3}, sizes[] = {1, 1, 2, 3, 5, 7, 9, 14, 15, 20};
    onebit_conv_shape s = {.height = pick(random, sizes, 10), .width = pick(random, sizes, 10)};
    s.groups = pick(random, groups, 6);
    s.channels = s.groups * pick(random, channels, s.groups == 1 ? 11 : 7);
    s.n = s.groups * (1 + test_below(random, s.groups == 1 ? 140 : 40));
    if (test_below(random, 10) == 0) /* depthwise */
        s.groups = s.n = s.channels = 1 + test_below(random, 70);
    s.kernel_h = 1 + test_below(random, test_below(random, 4) ? 3 : 8);
    s.kernel_w = 1 + test_below(random, test_below(random, 4) ? 3 : 8);
    s.stride_h = pick(random, small, 5);
    s.stride_w = pick(random, small, 5);
    s.dilation_h = pick(random, small, 5);
    s.dilation_w = pick(random, small, 5);
    s.pad_top = test_below(random, test_below(random, 4) ? 3 : 9);
    s.pad_left = test_below(random, test_below(random, 4) ? 3 : 9);
    s.out_height = 1 + (s.height + s.pad_top) / s.stride_h / 2 + test_below(random, 4);
    s.out_width = 1 + (s.width + s.pad_left) / s.stride_w / 2 + test_below(random, 12);
    s.padding_value = (int32_t)test_below(random, 3) - 1;
    return s;
}

static void test_random_shapes(const onebit_conv_variant *v, test_random *random) {
    for (int i = 0; i < 300; ++i)
        check_shape(v, random, draw_shape(random), 1 + test_below(random, 3));
}

static void test_variant(const onebit_conv_variant *v, test_random random) {
    long before = test_checks;
    test_sizes(v, &random);
    test_pointwise(v, &random);
    test_large(v, &random);
    test_extremes(v, &random);
    test_tall(v, &random);
    test_random_shapes(v, &random);
    printf("%s: %ld checks\n", v->name, test_checks - before);
}

int main(void) {
    test_random random = test_seed(20160316);
    test_classes(&random);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_conv_variant *v = onebit_binary_conv_variant(onebit_isa_best(left));
        if (v)
            test_variant(v, random);
    }
    return test_finish();
}
