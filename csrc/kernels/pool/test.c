/* Every pool of every variant against one tap at a time. Integers, bits and maxima are compared with ==,
 * means with
 * == where sums are exact and else within the stated bound. */
#include <math.h>

#include "base/bits.h"
#include "base/testing.h"
#include "kernels/families.h"

static const onebit_pool *ops; /* the variant under test */
static test_random rng;

typedef enum { BITS, U8, I32, F32, MEAN, MEAN_PADDED, KINDS } kind;

typedef struct {
    onebit_pool_shape s;
    size_t images, row_begin, row_end;
} problem;

/* The pixel under a tap, or -1 outside. */
static long tap_pixel(const problem *p, size_t row, size_t x, size_t i, size_t j) {
    const onebit_pool_shape *s = &p->s;
    const long y = (long)(row % s->out_height * s->stride_h + i * s->dilation_h) - (long)s->pad_top;
    const long c = (long)(x * s->stride_w + j * s->dilation_w) - (long)s->pad_left;
    if (y < 0 || c < 0 || y >= (long)s->height || c >= (long)s->width)
        return -1;
    return ((long)(row / s->out_height * s->height) + y) * (long)s->width + c;
}

static double element(kind what, const void *input, size_t channels, size_t pixel, size_t c) {
    switch (what) {
    case BITS:
        return ((const uint32_t *)input)[pixel * onebit_words(channels) + c / 32] >> c % 32 & 1;
    case U8:
        return ((const uint8_t *)input)[pixel * channels + c];
    case I32:
        return ((const int32_t *)input)[pixel * channels + c];
    default:
        return (double)((const float *)input)[pixel * channels + c];
    }
}

static void check_value(const problem *p, kind what, int exact, const void *input, size_t row, size_t x,
                        size_t c, double got) {
    const size_t taps = p->s.kernel_h * p->s.kernel_w;
    double most = -INFINITY, sum = 0, magnitude = 0, inside = 0;
    for (size_t tap = 0; tap < taps; ++tap) {
        const long pixel = tap_pixel(p, row, x, tap / p->s.kernel_w, tap % p->s.kernel_w);
        if (pixel < 0)
            continue;
        const double value = element(what, input, p->s.channels, (size_t)pixel, c);
        most = isnan(value) || value > most ? value : most;
        sum += value, magnitude += fabs(value), inside += 1;
    }
    const double divisor = what == MEAN_PADDED ? (double)taps : inside;
    const double bound = (inside + 1) * 0x1p-24 * (1 + inside * 0x1p-23) * magnitude / divisor;
    const int mean = what >= MEAN, right = !mean   ? got == most || (isnan(got) && isnan(most))
                                           : exact ? got == (double)(float)(sum / divisor)
                                                   : fabs(got - sum / divisor) <= bound;
    CHECK(right,
          "%s kind %d: row %zu pixel %zu channel %zu is %.9g: %zux%zux%zu kernel %zux%zu stride %zu,%zu",
          ops->name, (int)what, row, x, c, got, p->s.height, p->s.width, p->s.channels, p->s.kernel_h,
          p->s.kernel_w, p->s.stride_h, p->s.stride_w);
}

static void run(kind what, const onebit_pool_args *args) {
    void (*const maxima[])(const onebit_pool_args *) = {ops->max_bits, ops->max_u8, ops->max_i32,
                                                        ops->max_f32};
    if (what < MEAN)
        maxima[what](args);
    else
        ops->average_f32(args, what == MEAN_PADDED);
}

static void fill(kind what, int exact, void *input, size_t pixels, size_t channels) {
    static const float special[] = {INFINITY, -INFINITY, -0.0f, 3e38f, -3e38f};
    if (what == BITS)
        test_fill_bits(&rng, input, pixels, channels);
    else if (what == U8 || what == I32)
        test_fill(&rng, input, pixels * channels * (what == U8 ? 1 : 4));
    else
        for (size_t i = 0; i < pixels * channels; ++i)
            ((float *)input)[i] = exact ? (float)((int)test_below(&rng, 1999) - 999) * 0x1p-6f
                                  : what == F32 && test_below(&rng, 9) == 0 ? special[test_below(&rng, 5)]
                                                                            : test_float(&rng) * 100;
    if (what == F32 && !exact)
        ((float *)input)[test_below(&rng, pixels * channels)] = NAN;
}

static void check_kind(const problem *p, kind what, int exact) {
    const size_t element_size = what == U8 ? 1 : 4, channels = p->s.channels;
    const size_t pixel = what == BITS ? onebit_words(channels) : channels;
    const size_t pixels = p->images * p->s.height * p->s.width;
    const size_t size = p->images * p->s.out_height * p->s.out_width * pixel * element_size;
    unsigned char *input = test_alloc_input(pixels * pixel * element_size), *out = test_alloc(size);
    const onebit_pool_args args = {&p->s, p->row_begin, p->row_end, input, out};
    fill(what, exact, input, pixels, channels);
    run(what, &args);
    CHECK(test_guards(out), "%s kind %d wrote outside of out", ops->name, (int)what);
    const size_t line = p->s.out_width * pixel * element_size;
    for (size_t i = 0; i < size; ++i)
        if (i / line < p->row_begin || i / line >= p->row_end)
            CHECK_EQ(out[i], 0xA5, "%s kind %d wrote byte %zu", ops->name, (int)what, i);
    for (size_t row = p->row_begin; row < p->row_end; ++row)
        for (size_t x = 0; x < p->s.out_width; ++x) {
            for (size_t c = 0; c < channels; ++c)
                check_value(p, what, exact, input, row, x, c,
                            element(what, out, channels, row * p->s.out_width + x, c));
            for (size_t c = channels; what == BITS && c < 32 * pixel; ++c) /* padding bits */
                CHECK_EQ(element(BITS, out, 32 * pixel, row * p->s.out_width + x, c), 0, "%s bit %zu",
                         ops->name, c);
        }
    free(input), test_free(out);
}

static size_t out_size(size_t in, size_t before, size_t after, size_t kernel, size_t stride,
                       size_t dilation) {
    const size_t reach = dilation * (kernel - 1) + 1, padded = in + before + after;
    return padded < reach ? 0 : (padded - reach) / stride + 1;
}

/* Whether every window along an axis has a tap inside. */
static int all_meet(size_t outs, size_t in, size_t before, size_t kernel, size_t stride, size_t dilation) {
    for (size_t o = 0; o < outs; ++o) {
        size_t inside = 0;
        for (size_t i = 0; i < kernel; ++i)
            inside += o * stride + i * dilation >= before && o * stride + i * dilation < before + in;
        if (!inside)
            return 0;
    }
    return 1;
}

static problem draw(void) {
    static const size_t channels[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 130, 511};
    for (;;) {
        problem p = {.images = 1 + test_below(&rng, 2)};
        onebit_pool_shape *s = &p.s;
        s->height = 1 + test_below(&rng, 12), s->width = 1 + test_below(&rng, 12);
        s->channels = channels[test_below(&rng, sizeof channels / sizeof *channels)];
        s->kernel_h = 1 + test_below(&rng, 5), s->kernel_w = 1 + test_below(&rng, 7);
        s->stride_h = 1 + test_below(&rng, 3), s->stride_w = 1 + test_below(&rng, 3);
        s->dilation_h = test_below(&rng, 3) ? 1 : 2, s->dilation_w = test_below(&rng, 3) ? 1 : 3;
        s->pad_top = test_below(&rng, 3), s->pad_left = test_below(&rng, 3);
        s->out_height =
            out_size(s->height, s->pad_top, test_below(&rng, 3), s->kernel_h, s->stride_h, s->dilation_h);
        s->out_width =
            out_size(s->width, s->pad_left, test_below(&rng, 3), s->kernel_w, s->stride_w, s->dilation_w);
        if (!s->out_height || !s->out_width ||
            !all_meet(s->out_height, s->height, s->pad_top, s->kernel_h, s->stride_h, s->dilation_h) ||
            !all_meet(s->out_width, s->width, s->pad_left, s->kernel_w, s->stride_w, s->dilation_w))
            continue;
        p.row_begin = test_below(&rng, 2) ? 0 : test_below(&rng, p.images * s->out_height);
        p.row_end = p.images * s->out_height - test_below(&rng, p.images * s->out_height - p.row_begin + 1);
        return p;
    }
}

static void check_channel_mean(size_t rows, size_t channels) {
    float *x = test_alloc_input(rows * channels * sizeof(float)), *out = test_alloc(rows * sizeof(float));
    for (int exact = 0; exact < 2; ++exact) {
        fill(MEAN, exact, x, rows, channels);
        ops->channel_mean(rows, channels, x, out);
        CHECK(test_guards(out), "%s channel_mean wrote outside of out", ops->name);
        for (size_t row = 0; row < rows; ++row) {
            double sum = 0, magnitude = 0, n = (double)channels;
            for (size_t c = 0; c < channels; ++c)
                sum += (double)x[row * channels + c], magnitude += fabs((double)x[row * channels + c]);
            const double bound = (n + 1) * 0x1p-24 * (1 + n * 0x1p-23) * magnitude / n;
            CHECK(exact ? out[row] == (float)(sum / n) : fabs(out[row] - sum / n) <= bound,
                  "%s channel_mean of %zu channels is %.9g, exact %.17g", ops->name, channels, out[row],
                  sum / n);
        }
    }
    free(x), test_free(out);
}

static void check_variant(void) {
    for (int i = 0; i < 60; ++i) {
        const problem p = draw();
        for (kind what = BITS; what < KINDS; ++what)
            check_kind(&p, what, i % 2);
    }
    /* The pools of the networks: 2x2, 3x3 of stride 2, and a global mean. */
    for (kind what = BITS; what < KINDS; ++what) {
        check_kind(&(problem){{32, 32, 128, 16, 16, 2, 2, 2, 2, 1, 1, 0, 0}, 1, 0, 16}, what, 1);
        check_kind(&(problem){{27, 27, 96, 13, 13, 3, 3, 2, 2, 1, 1, 0, 0}, 1, 3, 13}, what, 1);
        check_kind(&(problem){{7, 7, 512, 1, 1, 7, 7, 1, 1, 1, 1, 0, 0}, 2, 0, 2}, what, 1);
    }
    for (size_t channels = 1; channels < 70; ++channels)
        check_channel_mean(1 + channels % 3, channels);
    check_channel_mean(5, 511);
}

int main(void) {
    rng = test_seed(3004);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        ops = onebit_pool_variant(onebit_isa_best(left));
        if (ops)
            check_variant();
    }
    return test_finish();
}
