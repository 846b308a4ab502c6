#include <immintrin.h>

#include "base/bits.h"
#include "kernels/f32_binary_conv/f32_binary_conv.h"

#include "kernels/conv_f32_avx2.inc"

typedef uint16_t word;

/* Bit j of the word, inverted, becomes the sign of lane j. */
INLINE void spread_word(word bits, float *to) {
    const __m256i minus = _mm256_set1_epi32(~(int32_t)bits), sign = _mm256_set1_epi32(INT32_MIN);
    const __m256i low = _mm256_sllv_epi32(minus, _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24));
    const __m256i high = _mm256_sllv_epi32(minus, _mm256_setr_epi32(23, 22, 21, 20, 19, 18, 17, 16));
    const __m256 one = _mm256_set1_ps(1.0f);
    _mm256_store_ps(to, _mm256_or_ps(one, _mm256_castsi256_ps(_mm256_and_si256(low, sign))));
    _mm256_store_ps(to + LANES, _mm256_or_ps(one, _mm256_castsi256_ps(_mm256_and_si256(high, sign))));
}

#include "kernels/f32_binary_conv/signs.inc"

const onebit_conv_variant onebit_f32_binary_conv_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "f32_binary_conv/avx2",
    .n_tile = 32,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
