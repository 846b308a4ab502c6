/* Every variant against a naive float64 sum: == where every order is exact, else within the stated bound. */
#include "base/bits.h"
#include "kernels/f32_binary_conv/f32_binary_conv.h"
#include "kernels/testing_conv.h"

typedef enum { DYADIC, REAL, CANCELLING } filling;

typedef struct {
    filling how;
    size_t k;
    float *x;
    uint32_t *w;
    float *scale, *bias;
    double *v, *magnitude;
} data;

static float *floats(size_t count) {
    return test_alloc_input(count * sizeof(float));
}

static double *doubles(size_t count) {
    return test_alloc_input(count * sizeof(double));
}

static float value(test_random *random, filling how, size_t i) {
    if (how == DYADIC) /* multiples of 2^-4 below 1: a million of them still sum exactly */
        return (float)((int)test_below(random, 31) - 15) * 0x1p-4f;
    if (how == REAL)
        return test_float(random) * ldexpf(1.0f, (int)test_below(random, 24) - 12);
    return (i % 2 ? -1.0f : 1.0f) * (1e6f + test_float(random)); /* large terms that nearly cancel */
}

static data make(test_random *random, const onebit_conv_shape *s, size_t images, filling how) {
    const size_t inputs = test_conv_inputs(s, images), outputs = test_conv_outputs(s, images);
    const size_t channels = s->channels / s->groups, rows = s->n * s->kernel_h * s->kernel_w;
    data d = {.how = how, .k = test_conv_k(s), .x = floats(inputs)};
    d.w = test_alloc_input(rows * onebit_words(channels) * sizeof *d.w);
    d.scale = floats(s->n), d.bias = floats(s->n);
    d.v = doubles(outputs), d.magnitude = doubles(outputs);
    double *x = doubles(inputs), *w = doubles(rows * channels);
    for (size_t i = 0; i < inputs; ++i)
        x[i] = d.x[i] = value(random, how, i);
    test_fill_bits(random, d.w, rows, channels);
    for (size_t i = 0; i < rows * channels; ++i) {
        const size_t row = i / channels, c = i % channels;
        w[i] = d.w[row * onebit_words(channels) + c / 32] >> c % 32 & 1 ? 1 : -1;
    }
    for (size_t n = 0; n < s->n; ++n) {
        d.scale[n] = how == DYADIC && n % 2 ? test_float(random) : 1.0f;
        d.bias[n] = how == DYADIC && n % 3 ? test_float(random) : -0.0f;
    }
    test_conv_oracle(s, images, x, w, d.v, d.magnitude);
    free(x), free(w);
    return d;
}

static void check(const onebit_conv_variant *variant, const onebit_conv_args *args, const void *context,
                  size_t pixel, size_t n, uint32_t word) {
    const data *d = context;
    const double exact = d->v[pixel * args->shape->n + n], k = (double)d->k;
    float got;
    memcpy(&got, &word, sizeof got);
    if (d->how == DYADIC) {
        /* The sum is exact in any order, and fmaf rounds the epilogue once. */
        const float want = fmaf((float)exact, d->scale[n], d->bias[n]);
        CHECK(got == want, "%s pixel %zu channel %zu is %.9g, expected %.9g: %s", variant->name, pixel, n,
              got, want, test_conv_text(args));
    } else {
        const double bound = k * 0x1p-24 * (1 + k * 0x1p-23) * d->magnitude[pixel * args->shape->n + n];
        CHECK(fabs(got - exact) <= bound, "%s pixel %zu channel %zu is %.9g, exact %.17g, bound %g: %s",
              variant->name, pixel, n, got, exact, bound, test_conv_text(args));
    }
}

static void check_all(test_random *random, onebit_conv_shape s, size_t images, filling how) {
    data d = make(random, &s, images, how);
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_F32, d.scale, d.bias, NULL, NULL};
    for (int isa = 0; isa <= (int)onebit_isa_detect(); ++isa) {
        const onebit_conv_variant *variant = onebit_f32_binary_conv_variant((onebit_isa)isa);
        if (variant)
            test_conv_calls(random, variant, &s, images, d.x, d.w, &epilogue, check, &d);
    }
    free(d.x), free(d.w), free(d.scale), free(d.bias), free(d.v), free(d.magnitude);
}

static onebit_conv_shape square(size_t size, size_t channels, size_t n, size_t kernel, size_t stride,
                                size_t pad, size_t groups) {
    const size_t out = test_conv_out(size, pad, pad, kernel, stride, 1);
    return (onebit_conv_shape){size,   size, channels, out, out, n,      kernel, kernel, stride,
                               stride, 1,    1,        pad, pad, groups, 0,      0,      0};
}

int main(void) {
    test_random random = test_seed(3002);
#define ONEBIT_KERNEL(tier, variant) TEST_CONV_DISPATCH(f32_binary_conv, tier, variant)
#include "kernels/f32_binary_conv/kernels.inc"
#undef ONEBIT_KERNEL
    CHECK(onebit_f32_binary_conv_variant(ONEBIT_ISA_COUNT) == NULL, "no such tier");
    for (int i = 0; i < 160; ++i)
        check_all(&random, test_conv_shape(&random), 1 + test_below(&random, 2), i % 4 == 3 ? REAL : DYADIC);
    /* Layers of the networks, smaller; sums of more than one piece; strips of more than one row. */
    check_all(&random, square(37, 3, 64, 7, 2, 3, 1), 1, DYADIC);
    check_all(&random, square(47, 3, 96, 11, 4, 0, 1), 1, DYADIC);
    check_all(&random, square(7, 260, 66, 3, 1, 1, 1), 1, DYADIC);
    check_all(&random, square(5, 1300, 65, 1, 1, 0, 1), 2, REAL);
    check_all(&random, square(9, 64, 128, 1, 2, 0, 1), 2, DYADIC);
    check_all(&random, square(13, 80, 80, 3, 1, 1, 80), 2, DYADIC);
    check_all(&random, square(12, 130, 130, 3, 2, 1, 130), 1, REAL);
    check_all(&random, square(60, 130, 33, 3, 1, 1, 1), 1, DYADIC);
    check_all(&random, square(6, 300, 40, 3, 1, 1, 1), 1, CANCELLING);
    return test_finish();
}
