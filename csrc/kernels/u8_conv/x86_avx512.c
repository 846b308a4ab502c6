/* AVX-512 VNNI: one vpdpbusd multiplies 64 bytes by 64 weights of 1 or -1 and adds, without saturation,
 * groups of four to the int32 sums of 16 channels. A tile is 6 pixels by 64 channels. */
#include <immintrin.h>

#include "kernels/u8_conv/u8_conv.h"

#include "kernels/avx512_masks.inc"

#define INLINE static inline __attribute__((always_inline))

enum { PIXELS = 6, PANEL = 32, PANELS = 2, LANES = 16, WIDTHS = 3 };
#define EACH_WIDTH(x) x(1) x(2) x(4)

typedef __m512i vector;

INLINE vector load(const int32_t *x) {
    return _mm512_loadu_si512(x);
}

INLINE vector all(int32_t x) {
    return _mm512_set1_epi32(x);
}

INLINE vector add(vector a, vector b) {
    return _mm512_add_epi32(a, b);
}

INLINE vector subtract(vector a, vector b) {
    return _mm512_sub_epi32(a, b);
}

INLINE vector multiply(vector a, vector b) {
    return _mm512_mullo_epi32(a, b);
}

INLINE vector shift(vector x, int bits) {
    return _mm512_sll_epi32(x, _mm_cvtsi32_si128(bits));
}

INLINE uint32_t at_least(vector a, vector b) {
    return avx512_mask_bits(_mm512_cmpge_epi32_mask(a, b));
}

INLINE void store(int32_t *out, vector x) {
    _mm512_storeu_si512(out, x);
}

INLINE void store_floats(float *out, vector x, const float *scale, const float *bias) {
    _mm512_storeu_ps(out,
                     _mm512_fmadd_ps(_mm512_cvtepi32_ps(x), _mm512_loadu_ps(scale), _mm512_loadu_ps(bias)));
}

#include "kernels/u8_conv/tiles.inc"

INLINE void dot(int pixels, int vectors, const tile *t, vector (*sum)[MOST]) {
    const weight *w = t->weights;
    for (size_t segment = 0; segment < t->plan->segments; ++segment) {
        const size_t begin = t->offsets[segment], end = begin + t->plan->segment_steps * STEP;
        for (size_t i = begin; i < end; i += STEP, w += PANEL * STEP) {
            vector columns[MOST];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v)
                columns[v] =
                    _mm512_load_si512(w + (v < VECTORS ? 0 : t->stride) + v % VECTORS * LANES * STEP);
#pragma GCC unroll 6
            for (int p = 0; p < pixels; ++p) {
                int32_t four;
                memcpy(&four, t->x[p] + i, sizeof four);
                const vector x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v)
                    sum[p][v] = _mm512_dpbusd_epi32(sum[p][v], x, columns[v]);
            }
        }
    }
}

const onebit_conv_variant onebit_u8_conv_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "u8_conv/avx512",
    .n_tile = 32,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
