/* Every variant against a naive sum, with ==. */
#include <math.h>

#include "base/bits.h"
#include "base/testing.h"
#include "kernels/families.h"

typedef struct {
    size_t m, n, k;
    int32_t multiplier, offset;
    size_t a_gap, out_gap; /* bytes (a) and words (out) from the end of a row to the next */
} problem;

/* v of every output, by its definition; int64 so that the oracle itself cannot overflow. */
static void oracle(const problem *p, const uint8_t *a, const uint32_t *w, int32_t *v) {
    for (size_t m = 0; m < p->m; ++m)
        for (size_t n = 0; n < p->n; ++n) {
            int64_t sum = 0;
            for (size_t k = 0; k < p->k; ++k) {
                const int64_t x = (int64_t)p->multiplier * a[m * (p->k + p->a_gap) + k] + p->offset;
                sum += w[n * onebit_words(p->k) + k / 32] >> k % 32 & 1 ? x : -x;
            }
            CHECK(sum >= INT32_MIN && sum <= INT32_MAX, "the test asks for v=%" PRId64, sum);
            v[m * p->n + n] = (int32_t)sum;
        }
}

static size_t out_words(onebit_epilogue_kind kind, size_t n) {
    return kind == ONEBIT_EPILOGUE_BITS ? onebit_words(n) : n;
}

/* What output word i of a row must be, computed from v alone. */
static uint32_t expected(const onebit_epilogue *e, const int32_t *v, size_t n, size_t i) {
    uint32_t word = 0;
    if (e->kind == ONEBIT_EPILOGUE_I32)
        return (uint32_t)v[i];
    if (e->kind == ONEBIT_EPILOGUE_F32) {
        const float y = fmaf((float)v[i], e->scale[i], e->bias[i]);
        memcpy(&word, &y, sizeof word);
        return word;
    }
    for (size_t j = 32 * i; j < n && j < 32 * i + 32; ++j) {
        const int flip = e->flip[j / 32] >> j % 32 & 1;
        word |= (uint32_t)((v[j] >= e->threshold[j]) ^ flip) << j % 32;
    }
    return word;
}

typedef struct {
    uint8_t *a;
    uint32_t *w;
    int32_t *v;
    float *scale, *bias;
    int32_t *threshold;
    uint32_t *flip;
} data;

/* Inputs of exactly the promised sizes, so that AddressSanitizer sees any read beyond. */
typedef enum { DENSE, SPARSE, SATURATED } filling;

static data make(test_random *random, const problem *p, filling how) {
    data d = {
        .a = test_alloc_input((p->m - 1) * (p->k + p->a_gap) + p->k),
        .w = test_alloc_input(p->n * onebit_words(p->k) * sizeof(uint32_t)),
        .v = test_alloc_input(p->m * p->n * sizeof(int32_t)),
        .scale = test_alloc_input(p->n * sizeof(float)),
        .bias = test_alloc_input(p->n * sizeof(float)),
        .threshold = test_alloc_input(p->n * sizeof(int32_t)),
        .flip = test_alloc_input(onebit_words(p->n) * sizeof(uint32_t)),
    };
    const size_t a_size = (p->m - 1) * (p->k + p->a_gap) + p->k;
    test_fill(random, d.a, a_size);
    test_fill_bits(random, d.w, p->n, p->k);
    if (how == SPARSE) /* runs of zeros, as around a digit: kernels may step over them */
        for (size_t i = 0; i < a_size; ++i)
            d.a[i] = (i / 24 * 2654435761u >> 7) % 3 ? 0 : d.a[i];
    if (how == SATURATED) {
        memset(d.a, 255, a_size);
        for (size_t n = 0; n < p->n; n += 2) /* even columns: all weights +1 */
            for (size_t i = 0; i < onebit_words(p->k); ++i)
                d.w[n * onebit_words(p->k) + i] =
                    i + 1 == onebit_words(p->k) ? onebit_tail_mask(p->k) : UINT32_MAX;
    }
    oracle(p, d.a, d.w, d.v);
    test_fill(random, d.flip, onebit_words(p->n) * sizeof(uint32_t)); /* with dirty padding */
    for (size_t n = 0; n < p->n; ++n) {
        static const int32_t extreme[] = {INT32_MIN, INT32_MAX, INT32_MIN + 1, 0};
        const int32_t v = d.v[test_below(random, p->m) * p->n + n];
        const uint64_t choice = test_below(random, 6);
        d.threshold[n] = choice < 4 ? (int32_t)((uint32_t)v + (uint32_t)choice - 1) /* v - 1 .. v + 2 */
                                    : extreme[test_below(random, 4)];
        d.scale[n] = test_float(random) * 0x1p-8f;
        d.bias[n] = choice == 0 ? -0.0f : test_float(random);
    }
    return d;
}

static void release(data *d) {
    free(d->a), free(d->w), free(d->v), free(d->scale), free(d->bias), free(d->threshold), free(d->flip);
}

/* One call over columns [begin, end) into a buffer of its own; every word outside must stay untouched. */
static void check_columns(const onebit_gemm_variant *variant, onebit_gemm_args args, const data *d,
                          size_t out_gap) {
    const onebit_epilogue *e = args.epilogue;
    const size_t words = out_words(e->kind, args.n), stride = words + out_gap;
    const size_t size = ((args.m - 1) * stride + words) * sizeof(uint32_t);
    uint32_t *out = test_alloc(size);
    const size_t unit = e->kind == ONEBIT_EPILOGUE_BITS ? 32 : 1;
    args.out = out;
    args.out_stride = stride * sizeof(uint32_t);
    variant->run(&args);
    CHECK(test_guards(out), "%s wrote outside of out", variant->name);
    for (size_t i = 0; i < size / sizeof(uint32_t); ++i) {
        const size_t m = i / stride, word = i % stride;
        const int inside = word * unit >= args.n_begin && word * unit < args.n_end;
        const uint32_t want =
            inside && word < words ? expected(e, d->v + m * args.n, args.n, word) : UINT32_C(0xA5A5A5A5);
        CHECK_EQ(out[i], want, "%s m=%zu n=%zu k=%zu epilogue=%d columns %zu..%zu: row %zu word %zu",
                 variant->name, args.m, args.n, args.k, (int)e->kind, args.n_begin, args.n_end, m, word);
    }
    test_free(out);
}

static void check_variant(const onebit_gemm_variant *variant, const problem *p, const data *d) {
    void *packed = test_alloc(variant->packed_size(p->n, p->k));
    void *scratch = test_alloc(variant->scratch_size(p->m, p->k));
    variant->prepack(p->n, p->k, d->w, packed);
    CHECK(test_guards(packed), "%s prepack n=%zu k=%zu", variant->name, p->n, p->k);
    for (int kind = ONEBIT_EPILOGUE_I32; kind <= ONEBIT_EPILOGUE_BITS; ++kind) {
        const onebit_epilogue epilogue = {kind, d->scale, d->bias, d->threshold, d->flip};
        onebit_gemm_args args = {
            .m = p->m,
            .n = p->n,
            .k = p->k,
            .n_begin = 0,
            .n_end = p->n,
            .a = d->a,
            .a_stride = p->k + p->a_gap,
            .weights = packed,
            .epilogue = &epilogue,
            .multiplier = p->multiplier,
            .offset = p->offset,
            .scratch = scratch,
        };
        check_columns(variant, args, d, p->out_gap);
        if (p->n > variant->n_tile) {
            const size_t middle = (p->n / 2 + variant->n_tile - 1) / variant->n_tile * variant->n_tile;
            args.n_end = middle;
            check_columns(variant, args, d, p->out_gap);
            args.n_begin = middle;
            args.n_end = p->n;
            if (middle < p->n)
                check_columns(variant, args, d, p->out_gap);
        }
    }
    CHECK(test_guards(scratch), "%s wrote outside of scratch: m=%zu k=%zu", variant->name, p->m, p->k);
    test_free(scratch);
    test_free(packed);
}

static void check_all(test_random *random, problem p, filling how) {
    data d = make(random, &p, how);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_gemm_variant *variant = onebit_u8_gemm_variant(onebit_isa_best(left));
        if (variant)
            check_variant(variant, &p, &d);
    }
    release(&d);
}

int main(void) {
    static const size_t sizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 255, 256, 257, 511};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    test_random random = test_seed(2001);
    for (size_t i = 0; i < SIZES; ++i)
        for (size_t j = 0; j < 3; ++j) {
            const problem p = {.m = 1 + test_below(&random, 9),
                               .n = sizes[(5 * i + 7 * j) % SIZES],
                               .k = sizes[i],
                               .multiplier = 2,
                               .offset = -255,
                               .a_gap = j * 3,
                               .out_gap = j};
            check_all(&random, p, DENSE);
            check_all(&random, p, SPARSE);
        }
    for (size_t m = 1; m <= 9; ++m)
        check_all(&random, (problem){m, 160, 97, -77, 1234, 1, 1}, m % 2 ? DENSE : SPARSE);
    check_all(&random, (problem){3, 4096 + 5, 784, 2, -255, 0, 0}, SPARSE);
    check_all(&random, (problem){1, 300, 784, 2, -255, 0, 0}, SPARSE);
    /* All inputs 255: dot is up to 255 * 70000 = 17,850,000, far beyond 16 bits. */
    check_all(&random, (problem){3, 35, 70000, 2, -255, 0, 0}, SATURATED);
    check_all(&random, (problem){2, 33, 70000, 1, 0, 0, 0}, SATURATED);
    check_all(&random, (problem){2, 33, 70000, -100, -5000, 0, 0}, SATURATED);
    /* v itself at the ends of int32: 255 * 8421504 = 2147483520, times +-1. */
    check_all(&random, (problem){2, 34, 1, 8421504, 0, 0, 0}, SATURATED);
    check_all(&random, (problem){2, 34, 1, 0, INT32_MIN + 1, 0, 0}, SATURATED);
    return test_finish();
}
