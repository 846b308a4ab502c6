/* What the tests of float32 products share, whether their weights are floats or bits: numbers, and how far a
 * sum may be from the exact one. Not part of the library. */
#ifndef ONEBIT_KERNELS_TESTING_REAL_H
#define ONEBIT_KERNELS_TESTING_REAL_H

#include <math.h>

#include "base/bits.h"
#include "base/testing.h"

typedef enum { DYADIC, REAL, CANCELLING } test_filling;

static inline float *test_floats(size_t count) {
    return test_alloc_input(count * sizeof(float));
}

static inline double *test_doubles(size_t count) {
    return test_alloc_input(count * sizeof(double));
}

/* The i-th of many. DYADIC: products of two are multiples of 2^-8 below 1, so that 65000 of them sum exactly
 * in any order. CANCELLING: large terms that nearly cancel. */
static inline float test_real(test_random *random, test_filling how, size_t i) {
    if (how == DYADIC)
        return (float)((int)test_below(random, 31) - 15) * 0x1p-4f;
    if (how == REAL)
        return test_float(random) * ldexpf(1.0f, (int)test_below(random, 24) - 12);
    return (i % 2 ? -1.0f : 1.0f) * (1e6f + test_float(random));
}

/* Scale and bias of `n` channels: any numbers where sums are exact, else 1 and -0, which change nothing. */
static inline void test_scale_bias(test_random *random, test_filling how, size_t n, float *scale,
                                   float *bias) {
    for (size_t i = 0; i < n; ++i) {
        scale[i] = how == DYADIC && i % 2 ? test_float(random) : 1.0f;
        bias[i] = how == DYADIC && i % 3 ? test_float(random) : -0.0f;
    }
}

/* Weights of a family: `rows` rows of `k`, as prepack takes them (free it), and their values in w[rows][k].
 */
typedef void *(*test_weights)(test_random *random, test_filling how, size_t rows, size_t k, double *w);

static inline void *test_float_weights(test_random *random, test_filling how, size_t rows, size_t k,
                                       double *w) {
    float *given = test_floats(rows * k);
    for (size_t i = 0; i < rows * k; ++i)
        w[i] = given[i] = test_real(random, how == DYADIC ? how : REAL, i);
    return given;
}

static inline void *test_bit_weights(test_random *random, test_filling how, size_t rows, size_t k,
                                     double *w) {
    (void)how;
    const size_t words = onebit_words(k);
    uint32_t *given = test_alloc_input(rows * words * sizeof *given);
    test_fill_bits(random, given, rows, k);
    for (size_t i = 0; i < rows * k; ++i)
        w[i] = given[i / k * words + i % k / 32] >> i % k % 32 & 1 ? 1 : -1;
    return given;
}

/* How far a float32 sum of k products may be from the exact one, |products| summing to `magnitude`: each
 * product is rounded `k + roundings` times at most, by 2^-24 of it. */
static inline double test_bound(size_t k, int roundings, double magnitude) {
    return ((double)k + roundings) * 0x1p-24 * (1 + (double)k * 0x1p-23) * magnitude;
}

#endif
