/* The test of a float32 convolution, for every variant of a family: against a naive float64 sum, == where
 * every order is exact, else within the stated bound. Not part of the library. */
#ifndef ONEBIT_KERNELS_TESTING_REAL_CONV_H
#define ONEBIT_KERNELS_TESTING_REAL_CONV_H

#include "kernels/testing_conv.h"
#include "kernels/testing_real.h"

typedef struct {
    const onebit_conv_variant *(*variant)(onebit_isas set);
    test_weights weights;
    int roundings; /* of a product besides those of the sum */
} test_conv_family;

typedef struct {
    const test_conv_family *family;
    test_filling how;
    size_t k;
    float *x, *scale, *bias;
    void *w;
    double *v, *magnitude;
} test_conv_data;

static inline test_conv_data test_conv_make(test_random *random, const test_conv_family *family,
                                            const onebit_conv_shape *s, size_t images, test_filling how) {
    const size_t inputs = test_conv_inputs(s, images), outputs = test_conv_outputs(s, images);
    const size_t channels = s->channels / s->groups, rows = s->n * s->kernel_h * s->kernel_w;
    double *x = test_doubles(inputs), *w = test_doubles(rows * channels);
    test_conv_data d = {.family = family,
                        .how = how,
                        .k = test_conv_k(s),
                        .x = test_floats(inputs),
                        .scale = test_floats(s->n),
                        .bias = test_floats(s->n),
                        .w = family->weights(random, how, rows, channels, w),
                        .v = test_doubles(outputs),
                        .magnitude = test_doubles(outputs)};
    for (size_t i = 0; i < inputs; ++i)
        x[i] = d.x[i] = test_real(random, how, i);
    test_scale_bias(random, how, s->n, d.scale, d.bias);
    test_conv_oracle(s, images, x, w, d.v, d.magnitude);
    free(x), free(w);
    return d;
}

static inline void test_conv_value(const onebit_conv_variant *variant, const onebit_conv_args *args,
                                   const void *context, size_t pixel, size_t n, uint32_t word) {
    const test_conv_data *d = context;
    const double exact = d->v[pixel * args->shape->n + n];
    float got;
    memcpy(&got, &word, sizeof got);
    if (d->how == DYADIC) {
        /* The sum is exact in any order, and fmaf rounds the epilogue once. */
        const float want = fmaf((float)exact, d->scale[n], d->bias[n]);
        CHECK(got == want, "%s pixel %zu channel %zu is %.9g, expected %.9g: %s", variant->name, pixel, n,
              got, want, test_conv_text(args));
    } else {
        const double bound = test_bound(d->k, d->family->roundings, d->magnitude[pixel * args->shape->n + n]);
        CHECK(fabs(got - exact) <= bound, "%s pixel %zu channel %zu is %.9g, exact %.17g, bound %g: %s",
              variant->name, pixel, n, got, exact, bound, test_conv_text(args));
    }
}

static inline void test_conv_problem(test_random *random, const test_conv_family *family, onebit_conv_shape s,
                                     size_t images, test_filling how) {
    test_conv_data d = test_conv_make(random, family, &s, images, how);
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_F32, d.scale, d.bias, NULL, NULL};
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_conv_variant *variant = family->variant(onebit_isa_best(left));
        if (variant)
            test_conv_calls(random, variant, &s, images, d.x, d.w, &epilogue, test_conv_value, &d);
    }
    free(d.x), free(d.w), free(d.scale), free(d.bias), free(d.v), free(d.magnitude);
}

static inline onebit_conv_shape test_conv_square(size_t size, size_t channels, size_t n, size_t kernel,
                                                 size_t stride, size_t pad, size_t groups) {
    const size_t out = test_conv_out(size, pad, pad, kernel, stride, 1);
    return (onebit_conv_shape){size,   size, channels, out, out, n,      kernel, kernel, stride,
                               stride, 1,    1,        pad, pad, groups, 0,      0,      0};
}

static inline void test_conv_family_all(test_random *random, const test_conv_family *family) {
    for (int i = 0; i < 160; ++i)
        test_conv_problem(random, family, test_conv_shape(random), 1 + test_below(random, 2),
                          i % 4 == 3 ? REAL : DYADIC);
    /* Layers of the networks, smaller; sums of more than one piece; strips of more than one row. */
    test_conv_problem(random, family, test_conv_square(37, 3, 64, 7, 2, 3, 1), 1, DYADIC);
    test_conv_problem(random, family, test_conv_square(47, 3, 96, 11, 4, 0, 1), 1, DYADIC);
    test_conv_problem(random, family, test_conv_square(7, 260, 66, 3, 1, 1, 1), 1, DYADIC);
    test_conv_problem(random, family, test_conv_square(5, 1300, 65, 1, 1, 0, 1), 2, REAL);
    test_conv_problem(random, family, test_conv_square(9, 64, 128, 1, 2, 0, 1), 2, DYADIC);
    test_conv_problem(random, family, test_conv_square(13, 80, 80, 3, 1, 1, 80), 2, DYADIC);
    test_conv_problem(random, family, test_conv_square(12, 130, 130, 3, 2, 1, 130), 1, REAL);
    test_conv_problem(random, family, test_conv_square(60, 130, 33, 3, 1, 1, 1), 1, DYADIC);
    test_conv_problem(random, family, test_conv_square(6, 300, 40, 3, 1, 1, 1), 1, CANCELLING);
}

#endif
