#include <immintrin.h>

#include "base/bits.h"
#include "kernels/pool/pool.h"

#define INLINE static inline __attribute__((always_inline))

/* The instruction loses a NaN in its first operand, so NaNs are looked for beside it: two taps a compare. */
INLINE void max_f32_pass(int taps, int first, size_t count, const float *const *tap, float *out) {
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 lanes = count - i < 16 ? (__mmask16)((1 << (count - i)) - 1) : 0xFFFF;
        __m512 largest = _mm512_maskz_loadu_ps(lanes, first ? tap[0] + i : out + i), last = largest;
        __mmask16 nan = 0;
#pragma GCC unroll 9
        for (int t = first; t < taps; ++t) {
            const __m512 x = _mm512_maskz_loadu_ps(lanes, tap[t] + i);
            largest = _mm512_max_ps(largest, x);
            if (t % 2 == first || t == taps - 1)
                nan |= _mm512_cmp_ps_mask(last, x, _CMP_UNORD_Q);
            last = x;
        }
        _mm512_mask_storeu_ps(out + i, lanes,
                              _mm512_mask_blend_ps(nan, largest, _mm512_set1_ps(__builtin_nanf(""))));
    }
}

/* A pixel has few words: most often one vector is all. */
INLINE void max_bits_pass(int taps, int first, size_t count, const uint32_t *const *tap, uint32_t *out) {
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 lanes = count - i < 16 ? (__mmask16)((1 << (count - i)) - 1) : 0xFFFF;
        __m512i any = first ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(lanes, out + i);
#pragma GCC unroll 9
        for (int t = 0; t < taps; ++t)
            any = _mm512_or_si512(any, _mm512_maskz_loadu_epi32(lanes, tap[t] + i));
        _mm512_mask_storeu_epi32(out + i, lanes, any);
    }
}

#define POOL_OWN_MAX_F32
#define POOL_OWN_MAX_BITS
#define POOL_ISA     ONEBIT_ISA_AVX512
#define POOL_NAME    "pool/avx512"
#define POOL_VARIANT onebit_pool_avx512
#include "kernels/pool/loops.inc"
