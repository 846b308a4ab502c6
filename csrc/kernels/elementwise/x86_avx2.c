#include <immintrin.h>

#include "kernels/elementwise/elementwise.h"

static uint32_t at_least_32(const int32_t *x, const int32_t *threshold) {
    uint32_t below = 0;
    for (int j = 0; j < 32; j += 8) {
        const __m256i value = _mm256_loadu_si256((const __m256i *)(x + j));
        const __m256i limit = _mm256_loadu_si256((const __m256i *)(threshold + j));
        const __m256i less = _mm256_cmpgt_epi32(limit, value);
        below |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(less)) << j;
    }
    return ~below;
}

#define ELEMENTWISE_ISA     ONEBIT_ISA_AVX2
#define ELEMENTWISE_NAME    "elementwise/avx2"
#define ELEMENTWISE_VARIANT onebit_elementwise_avx2
#include "kernels/elementwise/loops.inc"
