/* Every op of every variant against one scalar at a time, in place and out of place. Floats are the same
 * where they are equal, of zeros the same one, or both NaN. */
#include <float.h>
#include <math.h>

#include "base/bits.h"
#include "base/testing.h"
#include "kernels/families.h"

static const onebit_elementwise *ops; /* the variant under test */
static test_random rng;

/* Correctly rounded x * y + z for normal results, without fma: the product is exact in double, the sum is
 * rounded to odd (so that the second rounding cannot meet a false tie), then to float. */
static float exact_fma(float x, float y, float z) {
    const double p = (double)x * (double)y, s = p + (double)z, back = s - p;
    const double error = (p - (s - back)) + ((double)z - back);
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    if (error != 0 && bits % 2 == 0)
        return (float)nextafter(s, error > 0 ? (double)INFINITY : -(double)INFINITY);
    return (float)s;
}

static const float special[] = {0.0f,       -0.0f,   1.0f,     -1.0f,          INFINITY, -INFINITY,
                                NAN,        FLT_MAX, -FLT_MAX, FLT_MIN,        -FLT_MIN, 0x1p-149f,
                                -0x1p-149f, 1e-40f,  -1e-40f,  0x1.fffffep-1f, 3e38f,    1e-38f};
enum { SPECIAL = sizeof special / sizeof *special };

/* Mostly ordinary values, some of them special. */
static float value(void) {
    if (test_below(&rng, 8) == 0)
        return special[test_below(&rng, SPECIAL)];
    return test_float(&rng) * ldexpf(1.0f, (int)test_below(&rng, 12) - 6);
}

/* Exactly `count` floats for reading. */
static float *values(size_t count) {
    float *x = test_alloc_input(count * sizeof(float));
    for (size_t i = 0; i < count; ++i)
        x[i] = value();
    return x;
}

/* The same number: of zeros the same one too, of NaNs any. */
static int same(float a, float b) {
    return (isnan(a) && isnan(b)) || (a == b && !signbit(a) == !signbit(b));
}

static void compare(const char *op, size_t count, const float *got, const float *want) {
    CHECK(test_guards(got), "%s %s wrote outside of out, count=%zu", ops->name, op, count);
    for (size_t i = 0; i < count; ++i)
        CHECK(same(got[i], want[i]), "%s %s: [%zu] of %zu is %.9g, expected %.9g", ops->name, op, i, count,
              got[i], want[i]);
}

static void check_affine(size_t rows, size_t channels) {
    const size_t count = rows * channels;
    float *x = values(count), *scale = values(channels), *shift = values(channels);
    float *out = test_alloc(count * sizeof(float)), *want = test_alloc_input(count * sizeof(float));
    for (size_t i = 0; i < count; ++i) /* finite and normal: the domain of exact_fma */
        x[i] = test_float(&rng);
    for (size_t c = 0; c < channels; ++c)
        scale[c] = test_float(&rng), shift[c] = c % 3 ? test_float(&rng) * 0x1p-6f : -x[c] * scale[c];
    for (size_t i = 0; i < count; ++i)
        want[i] = exact_fma(x[i], scale[i % channels], shift[i % channels]);
    ops->affine(rows, channels, x, scale, shift, out);
    compare("affine", count, out, want);
    memcpy(out, x, count * sizeof(float));
    ops->affine(rows, channels, out, scale, shift, out);
    compare("affine in place", count, out, want);
    free(x), free(scale), free(shift), free(want), test_free(out);
}

/* Where one rounding and two differ: (1 + e)^2 - (1 + 2e) is e^2, but 0 if the product is rounded first. */
static void check_fused(void) {
    enum { COUNT = 37 };
    float x[COUNT], scale[COUNT], shift[COUNT], *out = test_alloc(sizeof x);
    for (int i = 0; i < COUNT; ++i)
        x[i] = scale[i] = 1 + 0x1p-13f, shift[i] = -(1 + 0x1p-12f);
    ops->affine(1, COUNT, x, scale, shift, out);
    for (int i = 0; i < COUNT; ++i)
        CHECK(out[i] == 0x1p-26f, "%s: affine rounds twice at %d: %g", ops->name, i, out[i]);
    test_free(out);
}

static void check_conversions(size_t rows, size_t channels) {
    static const int32_t hard[] = {
        INT32_MIN,     INT32_MAX,    0, -1, 1 << 24, (1 << 24) + 1, (1 << 24) + 3, -(1 << 24) - 1,
        (1 << 25) + 2, (1 << 25) + 6};
    const size_t count = rows * channels, words = onebit_words(channels);
    int32_t *integers = test_alloc_input(count * sizeof(int32_t));
    uint8_t *bytes = test_alloc_input(count);
    uint32_t *bits = test_alloc_input(rows * words * sizeof(uint32_t));
    float *out = test_alloc(count * sizeof(float)), *want = test_alloc_input(count * sizeof(float));
    test_fill(&rng, integers, count * sizeof(int32_t));
    test_fill(&rng, bytes, count);
    test_fill_bits(&rng, bits, rows, channels);
    for (size_t i = 0; i < count; ++i) {
        if (i % 3 == 0)
            integers[i] = hard[test_below(&rng, sizeof hard / sizeof *hard)];
        want[i] = (float)(double)integers[i];
    }
    ops->i32_to_float(count, integers, out);
    compare("i32_to_float", count, out, want);
    memcpy(out, integers, count * sizeof(int32_t));
    ops->i32_to_float(count, (const int32_t *)(void *)out, out);
    compare("i32_to_float in place", count, out, want);
    for (size_t i = 0; i < count; ++i)
        want[i] = (float)bytes[i];
    ops->u8_to_float(count, bytes, out);
    compare("u8_to_float", count, out, want);
    for (size_t i = 0; i < count; ++i)
        want[i] = (float)((2.0 * bytes[i] - 255.0) / 256.0);
    ops->scale_pixels(count, bytes, out);
    compare("scale_pixels", count, out, want);
    for (size_t i = 0; i < count; ++i) {
        const size_t c = i % channels;
        want[i] = bits[i / channels * words + c / 32] >> c % 32 & 1 ? 1.0f : -1.0f;
    }
    ops->bits_to_float(rows, channels, bits, out);
    compare("bits_to_float", count, out, want);
    free(integers), free(bytes), free(bits), free(want), test_free(out);
}

static void check_threshold(size_t rows, size_t channels) {
    static const int32_t extreme[] = {INT32_MIN, INT32_MIN + 1, -1, 0, 1, INT32_MAX};
    const size_t words = onebit_words(channels);
    int32_t *x = test_alloc_input(rows * channels * sizeof(int32_t));
    int32_t *threshold = test_alloc_input(channels * sizeof(int32_t));
    uint32_t *flip = test_alloc_input(words * sizeof(uint32_t));
    uint32_t *out = test_alloc(rows * words * sizeof(uint32_t));
    test_fill(&rng, flip, words * sizeof(uint32_t)); /* with dirty padding */
    for (size_t i = 0; i < rows * channels; ++i)
        x[i] = i % 4 ? (int32_t)test_below(&rng, 7) - 3 : extreme[test_below(&rng, 6)];
    for (size_t c = 0; c < channels; ++c)
        threshold[c] = c % 3 ? (int32_t)test_below(&rng, 7) - 3 : extreme[test_below(&rng, 6)];
    ops->threshold(rows, channels, x, threshold, flip, out);
    CHECK(test_guards(out), "%s threshold wrote outside of out, channels=%zu", ops->name, channels);
    for (size_t row = 0; row < rows; ++row)
        for (size_t c = 0; c < 32 * words; ++c) {
            const uint32_t word = c / 32, bit = c % 32;
            const int want =
                c < channels && (x[row * channels + c] >= threshold[c]) != (flip[word] >> bit & 1);
            CHECK_EQ(out[row * words + word] >> bit & 1, want, "%s row %zu channel %zu of %zu", ops->name,
                     row, c, channels);
        }
    free(x), free(threshold), free(flip), test_free(out);
}

/* A NaN at every place, of either sign and quiet or signalling; nothing else is one. */
static void check_has_nan(size_t count) {
    static const uint32_t nans[] = {0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF};
    float *x = test_alloc_input(count * sizeof(float));
    for (size_t i = 0; i < count; ++i)
        do
            x[i] = value();
        while (isnan(x[i]));
    CHECK(!ops->has_nan(count, x), "%s count=%zu", ops->name, count);
    for (size_t i = 0; i < count; ++i) {
        float kept;
        memcpy(&kept, x + i, sizeof kept);
        memcpy(x + i, nans + i % 4, sizeof kept);
        CHECK(ops->has_nan(count, x), "%s misses a NaN at %zu of %zu", ops->name, i, count);
        memcpy(x + i, &kept, sizeof kept);
    }
    free(x);
}

#include "kernels/elementwise/test_functions.h"
#include "kernels/elementwise/test_layout_ops.h"

static void check_variant(void) {
    static const size_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 511};
    check_fused();
    CHECK(!ops->has_nan(0, NULL), "%s: no elements, no NaN", ops->name);
    check_has_nan(4096 + 33);
    check_layout_ops();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
        for (size_t rows = 1; rows <= 5; rows += 2) {
            check_affine(rows, sizes[i]);
            check_functions(rows, sizes[i]);
            check_conversions(rows, sizes[i]);
            check_threshold(rows, sizes[i]);
            check_has_nan(sizes[i] * rows);
        }
}

int main(void) {
    rng = test_seed(2003);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        ops = onebit_elementwise_variant(onebit_isa_best(left));
        if (ops)
            check_variant();
    }
    return test_finish();
}
