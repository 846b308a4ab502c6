/* Every variant that this machine can run, against plain sums of products of +1 and -1. */
#include "base/testing.h"

#include "base/bits.h"
#include "kernels/families.h"

#include <math.h>
#include <stdbool.h>

typedef enum { RANDOM, ALL_EQUAL, ALL_DIFFERENT } fill;

typedef struct {
    size_t m, n, k, a_stride;
    uint32_t *a, *w, *flip;
    int32_t *dot, *threshold;
    float *scale, *bias;
} problem;

/* ±1 of channel k of a packed row. */
static int value(const uint32_t *row, size_t k) {
    return row[k / 32] >> (k % 32) & 1 ? 1 : -1;
}

/* The oracle: integers multiplied and summed one by one; each row is unpacked once. */
static void multiply(problem *p) {
    size_t words = onebit_words(p->k);
    int8_t *weights = test_alloc_input(p->n * p->k), *row = test_alloc_input(p->k);
    for (size_t n = 0; n < p->n; ++n)
        for (size_t k = 0; k < p->k; ++k)
            weights[n * p->k + k] = (int8_t)value(p->w + n * words, k);
    for (size_t m = 0; m < p->m; ++m) {
        for (size_t k = 0; k < p->k; ++k)
            row[k] = (int8_t)value(p->a + m * p->a_stride / sizeof(uint32_t), k);
        for (size_t n = 0; n < p->n; ++n) {
            int32_t sum = 0;
            for (size_t k = 0; k < p->k; ++k)
                sum += row[k] * weights[n * p->k + k];
            p->dot[m * p->n + n] = sum;
        }
    }
    free(weights);
    free(row);
}

/* Thresholds at, beside and far from the sums that occur, and at the ends of int32. */
static int32_t draw_threshold(test_random *random, const problem *p, size_t n) {
    int32_t sum = p->dot[test_below(random, p->m) * p->n + n];
    switch (test_below(random, 8)) {
    case 0:
        return INT32_MIN;
    case 1:
        return INT32_MAX;
    case 2:
        return 0;
    case 3:
        return INT32_MIN + 1;
    case 4:
        return -(int32_t)p->k - (int32_t)test_below(random, 2);
    case 5:
        return sum + 1;
    default:
        return sum;
    }
}

/* padding: words between the rows of a, filled with noise that must not matter. */
static problem make(test_random *random, size_t m, size_t n, size_t k, size_t padding, fill how) {
    size_t words = onebit_words(k);
    problem p = {.m = m, .n = n, .k = k, .a_stride = (words + padding) * sizeof(uint32_t)};
    p.a = test_alloc_input(m * p.a_stride - padding * sizeof(uint32_t));
    p.w = test_alloc_input(n * words * sizeof(uint32_t));
    p.flip = test_alloc_input(onebit_words(n) * sizeof(uint32_t));
    p.dot = test_alloc_input(m * n * sizeof(int32_t));
    p.threshold = test_alloc_input(n * sizeof(int32_t));
    p.scale = test_alloc_input(n * sizeof(float));
    p.bias = test_alloc_input(n * sizeof(float));
    test_fill(random, p.a, m * p.a_stride - padding * sizeof(uint32_t));
    test_fill_bits(random, p.w, n, k);
    test_fill_bits(random, p.flip, 1, n);
    for (size_t row = 0; row < m; ++row)
        test_fill_bits(random, p.a + row * (words + padding), 1, k);
    if (how != RANDOM) {
        memset(p.w, 0, n * words * sizeof(uint32_t));
        for (size_t row = 0; row < m; ++row)
            for (size_t word = 0; word < words; ++word)
                p.a[row * (words + padding) + word] = how == ALL_EQUAL    ? 0
                                                      : word + 1 == words ? onebit_tail_mask(k)
                                                                          : UINT32_MAX;
    }
    multiply(&p);
    for (size_t i = 0; i < n; ++i) {
        p.threshold[i] = draw_threshold(random, &p, i);
        p.scale[i] = test_float(random);
        p.bias[i] = test_below(random, 4) ? 8 * test_float(random) : -0.0f;
    }
    return p;
}

static void destroy(problem *p) {
    void *const all[] = {p->a, p->w, p->flip, p->dot, p->threshold, p->scale, p->bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
}

static uint32_t expected(const problem *p, onebit_epilogue_kind kind, size_t m, size_t n) {
    int32_t dot = p->dot[m * p->n + n];
    uint32_t word = (uint32_t)dot;
    if (kind == ONEBIT_EPILOGUE_F32) {
        float y = fmaf((float)dot, p->scale[n], p->bias[n]);
        memcpy(&word, &y, sizeof word);
    } else if (kind == ONEBIT_EPILOGUE_BITS) {
        word = 0;
        for (size_t bit = 0; bit < 32 && n + bit < p->n; ++bit) {
            bool one = p->dot[m * p->n + n + bit] >= p->threshold[n + bit];
            word |= (uint32_t)(one != (p->flip[n / 32] >> bit & 1)) << bit;
        }
    }
    return word;
}

/* Columns begin .. end of every row are right, and nothing else in the buffer was written. */
static void compare(const onebit_gemm_variant *v, const problem *p, onebit_epilogue_kind kind, size_t begin,
                    size_t end, size_t row_words, const uint32_t *out) {
    size_t unit = kind == ONEBIT_EPILOGUE_BITS ? 32 : 1;
    for (size_t m = 0; m < p->m; ++m)
        for (size_t word = 0; word < row_words; ++word) {
            size_t n = word * unit;
            bool written = n >= begin && n < end;
            uint32_t want = written ? expected(p, kind, m, n) : UINT32_C(0xA5A5A5A5);
            CHECK(out[m * row_words + word] == want,
                  "%s, epilogue %d, m=%zu of %zu, n=%zu of %zu, columns %zu..%zu, k=%zu: got %08x, want %08x",
                  v->name, (int)kind, m, p->m, n, p->n, begin, end, p->k, out[m * row_words + word], want);
        }
    CHECK(test_guards(out), "%s, epilogue %d: wrote outside its output, m=%zu n=%zu k=%zu", v->name,
          (int)kind, p->m, p->n, p->k);
}

/* slack: words after each output row. */
static void check(const onebit_gemm_variant *v, const problem *p, size_t begin, size_t end, size_t slack) {
    void *packed = test_alloc(v->packed_size(p->n, p->k));
    void *scratch = test_alloc(v->scratch_size(p->m, p->k));
    v->prepack(p->n, p->k, p->w, packed);
    CHECK(test_guards(packed), "%s: prepack wrote more than packed_size", v->name);
    for (onebit_epilogue_kind kind = ONEBIT_EPILOGUE_I32; kind <= ONEBIT_EPILOGUE_BITS; ++kind) {
        size_t row_words = (kind == ONEBIT_EPILOGUE_BITS ? onebit_words(p->n) : p->n) + slack;
        uint32_t *out = test_alloc(p->m * row_words * sizeof(uint32_t));
        onebit_epilogue epilogue = {kind, p->scale, p->bias, p->threshold, p->flip};
        onebit_gemm_args args = {.m = p->m,
                                 .n = p->n,
                                 .k = p->k,
                                 .n_begin = begin,
                                 .n_end = end,
                                 .a = p->a,
                                 .a_stride = p->a_stride,
                                 .weights = packed,
                                 .out = out,
                                 .out_stride = row_words * sizeof(uint32_t),
                                 .epilogue = &epilogue,
                                 .scratch = scratch};
        v->run(&args);
        compare(v, p, kind, begin, end, row_words, out);
        CHECK(test_guards(scratch), "%s: used more than scratch_size", v->name);
        test_free(out);
    }
    test_free(scratch);
    test_free(packed);
}

static void test_sizes(const onebit_gemm_variant *v, test_random *random) {
    static const size_t ms[] = {1, 2, 5, 6, 7, 13}, ns[] = {1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511},
                        ks[] = {1, 31, 32, 33, 63, 64, 65, 511};
    for (size_t i = 0; i < sizeof ms / sizeof *ms; ++i)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; ++j)
            for (size_t l = 0; l < sizeof ks / sizeof *ks; ++l) {
                problem p = make(random, ms[i], ns[j], ks[l], (i + j + l) % 3, RANDOM);
                check(v, &p, 0, p.n, (j + l) % 2);
                destroy(&p);
            }
    for (size_t m = 1; m <= 40; ++m) { /* every split of rows into tiles */
        problem p = make(random, m, 33, 100, 0, RANDOM);
        check(v, &p, 0, p.n, 0);
        destroy(&p);
    }
}

/* Long sums: 70000 differing bits overflow 16-bit counters, 4096 overflow bytes. */
static void test_long(const onebit_gemm_variant *v, test_random *random) {
    static const size_t ks[] = {2040, 4096, 70000}, ms[] = {1, 2, 13, 49};
    for (size_t i = 0; i < 3; ++i)
        for (size_t j = 0; j < 4; ++j)
            for (fill how = RANDOM; how <= ALL_DIFFERENT; ++how) {
                problem p = make(random, ms[j], 34, ks[i], j, how);
                if (how != RANDOM)
                    CHECK_EQ(p.dot[0], how == ALL_EQUAL ? (int64_t)p.k : -(int64_t)p.k, "the oracle");
                check(v, &p, 0, p.n, 0);
                destroy(&p);
            }
}

static void test_columns(const onebit_gemm_variant *v, test_random *random) {
    CHECK(v->n_tile % 32 == 0, "%s: n_tile %zu", v->name, v->n_tile);
    for (size_t m = 1; m <= 14; m += 13) {
        problem p = make(random, m, 3 * v->n_tile + 5, 77, 1, RANDOM);
        for (size_t begin = 0; begin < p.n; begin += v->n_tile) {
            for (size_t end = begin + v->n_tile; end < p.n; end += v->n_tile)
                check(v, &p, begin, end, 1);
            check(v, &p, begin, p.n, 0);
        }
        destroy(&p);
    }
}

/* Large enough for blocks of rows and for stores that bypass the caches. */
static void test_large(const onebit_gemm_variant *v, test_random *random) {
    problem p = make(random, 1100, 2080, 65, 0, RANDOM);
    check(v, &p, 0, p.n, 0);
    destroy(&p);
    p = make(random, 130, 65, 20000, 0, RANDOM);
    check(v, &p, 0, p.n, 3);
    destroy(&p);
}

static void test_variant(const onebit_gemm_variant *v, test_random random) {
    long before = test_checks;
    test_sizes(v, &random);
    test_long(v, &random);
    test_columns(v, &random);
    test_large(v, &random);
    printf("%s: %ld checks\n", v->name, test_checks - before);
}

int main(void) {
    test_random random = test_seed(20160209);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_gemm_variant *v = onebit_binary_gemm_variant(onebit_isa_best(left));
        if (v)
            test_variant(v, random);
    }
    return test_finish();
}
