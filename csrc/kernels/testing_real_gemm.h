/* The test of a float32 matrix product, for every variant of a family: against a naive float64 sum, == where
 * every order is exact, else within the stated bound. Not part of the library. */
#ifndef ONEBIT_KERNELS_TESTING_REAL_GEMM_H
#define ONEBIT_KERNELS_TESTING_REAL_GEMM_H

#include "kernels/gemm.h"
#include "kernels/testing_real.h"

typedef struct {
    const onebit_gemm_variant *(*variant)(onebit_isas set);
    test_weights weights;
    int roundings; /* of a product besides those of the sum */
} test_gemm_family;

typedef struct {
    size_t m, n, k, gap; /* gap: floats from the end of a row of a or out to the next */
    test_filling how;
} test_gemm_problem;

typedef struct {
    const test_gemm_family *family;
    test_gemm_problem p;
    float *a, *scale, *bias;
    void *w;
    double *v, *magnitude; /* [m][n] the float64 sum and the sum of |a * w| */
} test_gemm_data;

static inline test_gemm_data test_gemm_make(test_random *random, const test_gemm_family *family,
                                            test_gemm_problem p) {
    const size_t stride = p.k + p.gap, a_size = (p.m - 1) * stride + p.k;
    double *w = test_doubles(p.n * p.k);
    test_gemm_data d = {.family = family,
                        .p = p,
                        .a = test_floats(a_size),
                        .scale = test_floats(p.n),
                        .bias = test_floats(p.n),
                        .w = family->weights(random, p.how, p.n, p.k, w),
                        .v = test_doubles(p.m * p.n),
                        .magnitude = test_doubles(p.m * p.n)};
    for (size_t i = 0; i < a_size; ++i)
        d.a[i] = test_real(random, p.how, i);
    test_scale_bias(random, p.how, p.n, d.scale, d.bias);
    for (size_t i = 0; i < p.m * p.n; ++i) {
        d.v[i] = d.magnitude[i] = 0;
        for (size_t k = 0; k < p.k; ++k) {
            const double product = (double)d.a[i / p.n * stride + k] * w[i % p.n * p.k + k];
            d.v[i] += product;
            d.magnitude[i] += fabs(product);
        }
    }
    free(w);
    return d;
}

static inline void test_gemm_value(const onebit_gemm_variant *variant, const test_gemm_data *d, size_t m,
                                   size_t n, float got) {
    const test_gemm_problem *p = &d->p;
    const double exact = d->v[m * p->n + n];
    if (p->how == DYADIC) {
        /* The sum is exact in any order, and fmaf rounds the epilogue once. */
        const float want = fmaf((float)exact, d->scale[n], d->bias[n]);
        CHECK(got == want, "%s m=%zu n=%zu k=%zu: [%zu][%zu] is %.9g, expected %.9g", variant->name, p->m,
              p->n, p->k, m, n, got, want);
    } else {
        const double bound = test_bound(p->k, d->family->roundings, d->magnitude[m * p->n + n]);
        CHECK(fabs(got - exact) <= bound, "%s m=%zu n=%zu k=%zu: [%zu][%zu] is %.9g, exact %.17g, bound %g",
              variant->name, p->m, p->n, p->k, m, n, got, exact, bound);
    }
}

static inline void test_gemm_columns(const onebit_gemm_variant *variant, onebit_gemm_args args,
                                     const test_gemm_data *d) {
    const size_t stride = d->p.n + d->p.gap, size = (d->p.m - 1) * stride + d->p.n;
    float *out = test_alloc(size * sizeof(float));
    args.out = out;
    args.out_stride = stride * sizeof(float);
    variant->run(&args);
    CHECK(test_guards(out), "%s wrote outside of out", variant->name);
    for (size_t i = 0; i < size; ++i) {
        const size_t m = i / stride, n = i % stride;
        uint32_t bits;
        memcpy(&bits, out + i, sizeof bits);
        if (n >= args.n_begin && n < args.n_end)
            test_gemm_value(variant, d, m, n, out[i]);
        else
            CHECK_EQ(bits, UINT32_C(0xA5A5A5A5), "%s wrote [%zu][%zu], columns %zu..%zu", variant->name, m, n,
                     args.n_begin, args.n_end);
    }
    test_free(out);
}

/* All columns; then cut in two where a tile ends. */
static inline void test_gemm_variant(const onebit_gemm_variant *variant, const test_gemm_data *d) {
    const test_gemm_problem *p = &d->p;
    void *packed = test_alloc(variant->packed_size(p->n, p->k));
    void *scratch = test_alloc(variant->scratch_size(p->m, p->k));
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_F32, d->scale, d->bias, NULL, NULL};
    onebit_gemm_args args = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .n_begin = 0,
        .n_end = p->n,
        .a = d->a,
        .a_stride = (p->k + p->gap) * sizeof(float),
        .weights = packed,
        .epilogue = &epilogue,
        .scratch = scratch,
    };
    variant->prepack(p->n, p->k, d->w, packed);
    CHECK(test_guards(packed), "%s prepack n=%zu k=%zu", variant->name, p->n, p->k);
    test_gemm_columns(variant, args, d);
    const size_t middle = (p->n / 2 + variant->n_tile - 1) / variant->n_tile * variant->n_tile;
    if (middle < p->n) {
        args.n_end = middle;
        test_gemm_columns(variant, args, d);
        args.n_begin = middle;
        args.n_end = p->n;
        test_gemm_columns(variant, args, d);
    }
    CHECK(test_guards(scratch), "%s wrote outside of scratch: m=%zu k=%zu", variant->name, p->m, p->k);
    test_free(scratch);
    test_free(packed);
}

static inline void test_gemm_problem_all(test_random *random, const test_gemm_family *family,
                                         test_gemm_problem p) {
    test_gemm_data d = test_gemm_make(random, family, p);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_gemm_variant *variant = family->variant(onebit_isa_best(left));
        if (variant)
            test_gemm_variant(variant, &d);
    }
    free(d.a), free(d.scale), free(d.bias), free(d.w), free(d.v), free(d.magnitude);
}

/* Every size that hurts, few rows and many, sums that cancel, sums of many terms. */
static inline void test_gemm_family_all(test_random *random, const test_gemm_family *family) {
    static const size_t sizes[] = {1, 2, 4, 5, 6, 29, 30, 31, 32, 33, 59, 60, 63, 64, 65, 127, 129, 257, 511};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (size_t i = 0; i < SIZES; ++i)
        for (size_t j = 0; j < 3; ++j) {
            const size_t m = 1 + test_below(random, 7), n = sizes[(5 * i + 7 * j) % SIZES];
            test_gemm_problem_all(random, family, (test_gemm_problem){m, n, sizes[i], j, DYADIC});
            test_gemm_problem_all(random, family, (test_gemm_problem){m, n, sizes[i], j, REAL});
        }
    for (size_t m = 1; m <= 9; ++m)
        test_gemm_problem_all(random, family, (test_gemm_problem){m, 160, 97, 1, DYADIC});
    test_gemm_problem_all(random, family, (test_gemm_problem){3, 300, 784, 0, CANCELLING});
    test_gemm_problem_all(random, family, (test_gemm_problem){3, 130, 4097, 0, REAL});
    test_gemm_problem_all(random, family, (test_gemm_problem){2, 33, 65000, 0, DYADIC}); /* still exact */
}

#endif
