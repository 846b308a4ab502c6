/* Every variant against a naive float64 sum: == where every order is exact, else within the stated bound. */
#include <math.h>

#include "base/testing.h"
#include "kernels/f32_gemm/f32_gemm.h"

typedef enum { DYADIC, REAL, CANCELLING } filling;

typedef struct {
    size_t m, n, k, gap; /* gap: floats from the end of a row of a or out to the next */
    filling how;
} problem;

typedef struct {
    float *a, *w, *scale, *bias;
    double *v, *magnitude; /* [m][n] the float64 sum and the sum of |a * w| */
} data;

static float input(test_random *random, filling how, size_t k) {
    if (how == DYADIC) /* products are multiples of 2^-8 below 1: 65000 of them still sum exactly */
        return (float)((int)test_below(random, 31) - 15) * 0x1p-4f;
    if (how == REAL)
        return test_float(random) * ldexpf(1.0f, (int)test_below(random, 24) - 12);
    return (k % 2 ? -1.0f : 1.0f) * (1e6f + test_float(random)); /* large terms that nearly cancel */
}

static data make(test_random *random, const problem *p) {
    const size_t stride = p->k + p->gap, a_size = (p->m - 1) * stride + p->k;
    data d = {
        .a = test_alloc_input(a_size * sizeof(float)),
        .scale = test_alloc_input(p->n * sizeof(float)),
        .bias = test_alloc_input(p->n * sizeof(float)),
        .w = test_alloc_input(p->n * p->k * sizeof(float)),
        .v = test_alloc_input(p->m * p->n * sizeof(double)),
        .magnitude = test_alloc_input(p->m * p->n * sizeof(double)),
    };
    for (size_t i = 0; i < a_size; ++i)
        d.a[i] = input(random, p->how, i);
    for (size_t i = 0; i < p->n * p->k; ++i)
        d.w[i] = p->how == DYADIC ? (float)((int)test_below(random, 31) - 15) * 0x1p-4f : test_float(random);
    for (size_t n = 0; n < p->n; ++n) {
        d.scale[n] = p->how == DYADIC && n % 2 ? test_float(random) : 1.0f;
        d.bias[n] = p->how == DYADIC && n % 3 ? test_float(random) : -0.0f;
    }
    for (size_t m = 0; m < p->m; ++m)
        for (size_t n = 0; n < p->n; ++n) {
            double sum = 0, magnitude = 0;
            for (size_t k = 0; k < p->k; ++k) {
                const double product = (double)d.a[m * stride + k] * (double)d.w[n * p->k + k];
                sum += product;
                magnitude += fabs(product);
            }
            d.v[m * p->n + n] = sum;
            d.magnitude[m * p->n + n] = magnitude;
        }
    return d;
}

static void release(data *d) {
    free(d->a), free(d->scale), free(d->bias), free(d->w), free(d->v), free(d->magnitude);
}

static void check_value(const onebit_gemm_variant *variant, const problem *p, const data *d, size_t m,
                        size_t n, float got) {
    const double exact = d->v[m * p->n + n];
    if (p->how == DYADIC) {
        /* The sum is exact in any order, and fmaf rounds the epilogue once. */
        const float want = fmaf((float)exact, d->scale[n], d->bias[n]);
        CHECK(got == want, "%s m=%zu n=%zu k=%zu: [%zu][%zu] is %.9g, expected %.9g", variant->name, p->m,
              p->n, p->k, m, n, got, want);
    } else {
        const double k = (double)p->k,
                     bound = (k + 1) * 0x1p-24 * (1 + k * 0x1p-23) * d->magnitude[m * p->n + n];
        CHECK(fabs(got - exact) <= bound, "%s m=%zu n=%zu k=%zu: [%zu][%zu] is %.9g, exact %.17g, bound %g",
              variant->name, p->m, p->n, p->k, m, n, got, exact, bound);
    }
}

static void check_columns(const onebit_gemm_variant *variant, onebit_gemm_args args, const problem *p,
                          const data *d) {
    const size_t stride = p->n + p->gap, size = (p->m - 1) * stride + p->n;
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
            check_value(variant, p, d, m, n, out[i]);
        else
            CHECK_EQ(bits, UINT32_C(0xA5A5A5A5), "%s wrote [%zu][%zu], columns %zu..%zu", variant->name, m, n,
                     args.n_begin, args.n_end);
    }
    test_free(out);
}

static void check_variant(const onebit_gemm_variant *variant, const problem *p, const data *d) {
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
    check_columns(variant, args, p, d);
    const size_t middle = (p->n / 2 + variant->n_tile - 1) / variant->n_tile * variant->n_tile;
    if (middle < p->n) {
        args.n_end = middle;
        check_columns(variant, args, p, d);
        args.n_begin = middle;
        args.n_end = p->n;
        check_columns(variant, args, p, d);
    }
    CHECK(test_guards(scratch), "%s wrote outside of scratch: m=%zu k=%zu", variant->name, p->m, p->k);
    test_free(scratch);
    test_free(packed);
}

static void check_all(test_random *random, problem p) {
    data d = make(random, &p);
    for (int isa = 0; isa <= (int)onebit_isa_detect(); ++isa) {
        const onebit_gemm_variant *variant = onebit_f32_gemm_variant((onebit_isa)isa);
        if (variant)
            check_variant(variant, &p, &d);
    }
    release(&d);
}

/* The list names exactly what dispatch returns, and what cannot run here is said. */
static void check_dispatch(void) {
#define ONEBIT_KERNEL(tier, variant_)                                                                        \
    {                                                                                                        \
        extern const onebit_gemm_variant variant_;                                                           \
        char name[64];                                                                                       \
        snprintf(name, sizeof name, "f32_gemm/%s", onebit_isa_name(tier));                                   \
        CHECK(onebit_f32_gemm_variant(tier) == &variant_, "%s", #variant_);                                  \
        CHECK(variant_.isa == tier && strcmp(variant_.name, name) == 0, "%s is named %s", #variant_,         \
              variant_.name);                                                                                \
        CHECK(variant_.n_tile % 32 == 0, "%s", #variant_);                                                   \
        if (tier > onebit_isa_detect())                                                                      \
            test_skip(name, "this machine lacks the instructions");                                          \
    }
#include "kernels/f32_gemm/kernels.inc"
#undef ONEBIT_KERNEL
    CHECK(onebit_f32_gemm_variant(ONEBIT_ISA_COUNT) == NULL, "no such tier");
}

int main(void) {
    static const size_t sizes[] = {1, 2, 4, 5, 6, 29, 30, 31, 32, 33, 59, 60, 63, 64, 65, 127, 129, 257, 511};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    test_random random = test_seed(2002);
    check_dispatch();
    for (size_t i = 0; i < SIZES; ++i)
        for (size_t j = 0; j < 3; ++j) {
            const size_t m = 1 + test_below(&random, 7), n = sizes[(5 * i + 7 * j) % SIZES];
            check_all(&random, (problem){m, n, sizes[i], j, DYADIC});
            check_all(&random, (problem){m, n, sizes[i], j, REAL});
        }
    for (size_t m = 1; m <= 9; ++m)
        check_all(&random, (problem){m, 160, 97, 1, DYADIC});
    check_all(&random, (problem){3, 300, 784, 0, CANCELLING});
    check_all(&random, (problem){3, 130, 4097, 0, REAL});
    check_all(&random, (problem){2, 33, 65000, 0, DYADIC}); /* |v| < 2^24 * 2^-8: still exact */
    return test_finish();
}
