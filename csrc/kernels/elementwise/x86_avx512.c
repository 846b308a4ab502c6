#include <immintrin.h>

#include "kernels/elementwise/elementwise.h"

#include "kernels/avx512_masks.inc"

static uint32_t at_least_32(const int32_t *x, const int32_t *threshold) {
    return avx512_mask_pair(
        _mm512_cmpge_epi32_mask(_mm512_loadu_si512(x), _mm512_loadu_si512(threshold)),
        _mm512_cmpge_epi32_mask(_mm512_loadu_si512(x + 16), _mm512_loadu_si512(threshold + 16)));
}

#define ELEMENTWISE_ISA     ONEBIT_ISA_AVX512
#define ELEMENTWISE_NAME    "elementwise/avx512"
#define ELEMENTWISE_VARIANT onebit_elementwise_avx512
#include "kernels/elementwise/loops.inc"
