/* AVX2: vpmaddubsw multiplies 32 bytes by 32 weights of 1 or -1 and adds pairs into 16-bit lanes, two of
 * which belong to a channel. A tile is 6 pixels by 16 channels.
 *
 * Range: a step adds at most 2 * 255 = 510 to a 16-bit lane, so WIDEN = 64 steps make at most 32640 < 2^15;
 * then the lanes of a channel are added to its int32 sum. */
#include <immintrin.h>

#include "kernels/u8_conv/u8_conv.h"

#define INLINE static inline __attribute__((always_inline))

enum { PIXELS = 6, PANEL = 16, PANELS = 1, LANES = 8, WIDTHS = 2, WIDEN = 64 };
#define EACH_WIDTH(x) x(1) x(2)

typedef __m256i vector;

INLINE vector load(const int32_t *x) {
    return _mm256_loadu_si256((const __m256i *)x);
}

INLINE vector all(int32_t x) {
    return _mm256_set1_epi32(x);
}

INLINE vector add(vector a, vector b) {
    return _mm256_add_epi32(a, b);
}

INLINE vector subtract(vector a, vector b) {
    return _mm256_sub_epi32(a, b);
}

INLINE vector multiply(vector a, vector b) {
    return _mm256_mullo_epi32(a, b);
}

INLINE vector shift(vector x, int bits) {
    return _mm256_sll_epi32(x, _mm_cvtsi32_si128(bits));
}

INLINE uint32_t at_least(vector a, vector b) {
    return ~(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a))) & 0xFF;
}

INLINE void store(int32_t *out, vector x) {
    _mm256_storeu_si256((__m256i *)out, x);
}

INLINE void store_floats(float *out, vector x, const float *scale, const float *bias) {
    _mm256_storeu_ps(out,
                     _mm256_fmadd_ps(_mm256_cvtepi32_ps(x), _mm256_loadu_ps(scale), _mm256_loadu_ps(bias)));
}

#include "kernels/u8_conv/tiles.inc"

/* Steps of 16-bit sums, then the pairs of a channel into its sum. */
INLINE void dot(int pixels, int vectors, const tile *t, vector (*sum)[MOST]) {
    const weight *w = t->weights;
    for (size_t segment = 0; segment < t->plan->segments; ++segment)
        for (size_t step = 0; step < t->plan->segment_steps; step += WIDEN) {
            const size_t steps = smaller(t->plan->segment_steps - step, WIDEN);
            const size_t begin = t->offsets[segment] + step * STEP, end = begin + steps * STEP;
            vector narrow[PIXELS][MOST];
            for (int p = 0; p < pixels; ++p)
                for (int v = 0; v < vectors; ++v)
                    narrow[p][v] = all(0);
            for (size_t i = begin; i < end; i += STEP, w += PANEL * STEP) {
                vector columns[MOST];
#pragma GCC unroll 2
                for (int v = 0; v < vectors; ++v)
                    columns[v] = _mm256_load_si256((const __m256i *)(w + v * LANES * STEP));
#pragma GCC unroll 6
                for (int p = 0; p < pixels; ++p) {
                    int32_t four;
                    memcpy(&four, t->x[p] + i, sizeof four);
#pragma GCC unroll 2
                    for (int v = 0; v < vectors; ++v)
                        narrow[p][v] = _mm256_add_epi16(
                            narrow[p][v], _mm256_maddubs_epi16(_mm256_set1_epi32(four), columns[v]));
                }
            }
            for (int p = 0; p < pixels; ++p)
                for (int v = 0; v < vectors; ++v)
                    sum[p][v] = add(sum[p][v], _mm256_madd_epi16(narrow[p][v], _mm256_set1_epi16(1)));
        }
}

const onebit_conv_variant onebit_u8_conv_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "u8_conv/avx2",
    .n_tile = 32,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
