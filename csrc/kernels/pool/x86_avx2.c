#include <immintrin.h>

#include "base/bits.h"
#include "kernels/pool/pool.h"

#define INLINE static inline __attribute__((always_inline))

/* Eight channels. The instruction loses a NaN in its first operand, so NaNs are looked for beside it: two
 * taps a compare. */
INLINE __m256 largest_of(int taps, const float *const *tap, size_t i) {
    __m256 largest = _mm256_loadu_ps(tap[0] + i), last = largest, nan = _mm256_setzero_ps();
#pragma GCC unroll 9
    for (int t = 1; t < taps; ++t) {
        const __m256 x = _mm256_loadu_ps(tap[t] + i);
        largest = _mm256_max_ps(largest, x);
        if (t % 2 || t == taps - 1)
            nan = _mm256_or_ps(nan, _mm256_cmp_ps(last, x, _CMP_UNORD_Q));
        last = x;
    }
    return _mm256_or_ps(largest, nan); /* all ones are a NaN */
}

static float larger(float a, float b) {
    return a != a || a > b ? a : b;
}

INLINE void max_f32_pass(int taps, int first, size_t count, const float *const *tap, float *out) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 largest = largest_of(taps, tap, i);
        if (!first) {
            const __m256 before = _mm256_loadu_ps(out + i),
                         nan = _mm256_cmp_ps(before, largest, _CMP_UNORD_Q);
            largest = _mm256_or_ps(_mm256_max_ps(before, largest), nan);
        }
        _mm256_storeu_ps(out + i, largest);
    }
    for (; i < count; ++i) {
        float largest = first ? tap[0][i] : out[i];
        for (int t = first; t < taps; ++t)
            largest = larger(largest, tap[t][i]);
        out[i] = largest;
    }
}

#define POOL_OWN_MAX_F32
#define POOL_ISA     ONEBIT_ISA_AVX2
#define POOL_NAME    "pool/avx2"
#define POOL_VARIANT onebit_pool_avx2
#include "kernels/pool/loops.inc"
