/* Every variant that this machine can run, bit by bit. */
#include "base/testing.h"

#include "base/bits.h"
#include "kernels/families.h"

#include <math.h>

static const size_t sizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 511, 1000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static int bit_of(const uint32_t *rows, size_t channels, size_t row, size_t c) {
    return rows[row * ((channels + 31) / 32) + c / 32] >> (c % 32) & 1;
}

/* Ordinary values and the ones that go wrong. */
static float draw(test_random *random) {
    static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-45f, -1e-45f, 3e38f, -3e38f};
    return test_below(random, 3) ? test_float(random) : special[test_below(random, 9)];
}

static void check_padding(const onebit_pack *v, const uint32_t *bits, size_t rows, size_t channels) {
    for (size_t row = 0; row < rows; ++row)
        for (size_t c = channels; c % 32; ++c)
            CHECK_EQ(bit_of(bits, channels, row, c), 0, "%s: padding bit %zu of %zu channels", v->name, c,
                     channels);
}

static void test_sign(const onebit_pack *v, test_random *random, size_t rows, size_t channels) {
    float *x = test_alloc_input(rows * channels * sizeof *x);
    uint32_t *bits = test_alloc(rows * onebit_words(channels) * sizeof *bits);
    for (size_t i = 0; i < rows * channels; ++i)
        x[i] = draw(random);
    v->sign(rows, channels, x, bits);
    for (size_t row = 0; row < rows; ++row)
        for (size_t c = 0; c < channels; ++c) {
            float value = x[row * channels + c];
            CHECK_EQ(bit_of(bits, channels, row, c), value > 0 || value == 0, "%s: sign of %g at %zu of %zu",
                     v->name, (double)value, c, channels);
        }
    check_padding(v, bits, rows, channels);
    CHECK(test_guards(bits), "%s: sign wrote outside, %zu channels", v->name, channels);
    test_free(bits);
    free(x);
}

static void test_sign_planes(const onebit_pack *v, test_random *random, size_t channels, size_t pixels) {
    enum { IMAGES = 2 };
    float *x = test_alloc_input(IMAGES * channels * pixels * sizeof *x);
    uint32_t *bits = test_alloc(IMAGES * pixels * onebit_words(channels) * sizeof *bits);
    for (size_t i = 0; i < IMAGES * channels * pixels; ++i)
        x[i] = draw(random);
    v->sign_planes(IMAGES, channels, pixels, x, bits);
    for (size_t image = 0; image < IMAGES; ++image)
        for (size_t c = 0; c < channels; ++c)
            for (size_t p = 0; p < pixels; ++p) {
                float value = x[(image * channels + c) * pixels + p];
                CHECK_EQ(bit_of(bits, channels, image * pixels + p, c), value > 0 || value == 0,
                         "%s: sign of %g, plane %zu of %zu, pixel %zu of %zu", v->name, (double)value, c,
                         channels, p, pixels);
            }
    check_padding(v, bits, IMAGES * pixels, channels);
    CHECK(test_guards(bits), "%s: sign_planes wrote outside, %zu channels", v->name, channels);
    test_free(bits);
    free(x);
}

static void test_unpack(const onebit_pack *v, test_random *random, size_t rows, size_t channels) {
    size_t words = rows * onebit_words(channels);
    uint32_t *bits = test_alloc_input(words * sizeof *bits);
    int8_t *out = test_alloc(rows * channels);
    test_fill(random, bits, words * sizeof *bits); /* padding is not read */
    v->unpack(rows, channels, bits, out);
    for (size_t row = 0; row < rows; ++row)
        for (size_t c = 0; c < channels; ++c)
            CHECK_EQ(out[row * channels + c], bit_of(bits, channels, row, c) ? 1 : -1, "%s: %zu of %zu",
                     v->name, c, channels);
    CHECK(test_guards(out), "%s: unpack wrote outside, %zu channels", v->name, channels);
    test_free(out);
    free(bits);
}

static void test_repack(const onebit_pack *v, test_random *random, size_t rows, size_t channels,
                        size_t out_rows) {
    enum { SAMPLES = 3 };
    size_t out_channels = rows * channels / out_rows;
    size_t words = rows * onebit_words(channels), out_words = out_rows * onebit_words(out_channels);
    uint32_t *bits = test_alloc_input(SAMPLES * words * sizeof *bits);
    uint32_t *out = test_alloc(SAMPLES * out_words * sizeof *out);
    test_fill_bits(random, bits, SAMPLES * rows, channels);
    v->repack(SAMPLES, rows, channels, bits, out_rows, out_channels, out);
    for (size_t sample = 0; sample < SAMPLES; ++sample)
        for (size_t i = 0; i < rows * channels; ++i)
            CHECK_EQ(bit_of(out + sample * out_words, out_channels, i / out_channels, i % out_channels),
                     bit_of(bits + sample * words, channels, i / channels, i % channels),
                     "%s: [%zu][%zu] to [%zu][%zu], bit %zu", v->name, rows, channels, out_rows, out_channels,
                     i);
    check_padding(v, out, SAMPLES * out_rows, out_channels);
    CHECK(test_guards(out), "%s: repack wrote outside", v->name);
    test_free(out);
    free(bits);
}

static void test_variant(const onebit_pack *v, test_random random) {
    long before = test_checks;
    for (size_t i = 0; i < SIZES; ++i)
        for (size_t rows = 1; rows <= 3; ++rows) {
            test_sign(v, &random, rows, sizes[i]);
            test_unpack(v, &random, rows, sizes[i]);
        }
    for (size_t i = 0; i < SIZES; ++i)
        for (size_t j = 0; j < SIZES; ++j)
            if (sizes[i] * sizes[j] < 20000)
                test_sign_planes(v, &random, sizes[i], sizes[j]);
    for (size_t rows = 1; rows <= 66; ++rows)
        for (size_t i = 0; i < SIZES; ++i)
            for (size_t out_rows = 1; out_rows <= rows * sizes[i]; out_rows = out_rows * 2 + out_rows % 2)
                if (rows * sizes[i] < 5000 && rows * sizes[i] % out_rows == 0)
                    test_repack(v, &random, rows, sizes[i], out_rows);
    printf("%s: %ld checks\n", v->name, test_checks - before);
}

int main(void) {
    test_random random = test_seed(1602);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_pack *v = onebit_pack_variant(onebit_isa_best(left));
        if (v)
            test_variant(v, random);
    }
    return test_finish();
}
