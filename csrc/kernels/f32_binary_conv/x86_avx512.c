#include <immintrin.h>

#include "base/bits.h"
#include "kernels/f32_binary_conv/f32_binary_conv.h"

#include "kernels/conv_f32_avx512.inc"

typedef uint32_t word;

INLINE void spread_word(word bits, float *to) {
    const __m512 one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-1.0f);
    _mm512_store_ps(to, _mm512_mask_blend_ps((__mmask16)bits, minus, one));
    _mm512_store_ps(to + LANES, _mm512_mask_blend_ps((__mmask16)(bits >> LANES), minus, one));
}

#include "kernels/f32_binary_conv/signs.inc"

const onebit_conv_variant onebit_f32_binary_conv_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "f32_binary_conv/avx512",
    .n_tile = 32,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
