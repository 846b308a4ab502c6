/* AVX-512: a compare makes the mask that is stored; unpacking blends by the word itself. */
#include "base/bits.h"
#include "kernels/pack/pack.h"
#include "kernels/pack/repack.h"

#include <immintrin.h>

#include "kernels/pack/planes.inc"

/* Lanes outside `live` are not read and give 0. */
static inline uint32_t sign16(__mmask16 live, const float *x) {
    return _mm512_mask_cmp_ps_mask(live, _mm512_maskz_loadu_ps(live, x), _mm512_setzero_ps(), _CMP_GE_OQ);
}

static void sign(size_t rows, size_t channels, const float *x, uint32_t *bits) {
    size_t tail = channels % ONEBIT_WORD_BITS;
    uint32_t live = onebit_tail_mask(channels);
    for (size_t row = 0; row < rows; ++row, x += tail) {
        for (size_t word = channels / ONEBIT_WORD_BITS; word--; x += ONEBIT_WORD_BITS)
            *bits++ = sign16(0xFFFF, x) | sign16(0xFFFF, x + 16) << 16;
        if (tail)
            *bits++ =
                sign16((__mmask16)live, x) | (tail > 16 ? sign16((__mmask16)(live >> 16), x + 16) << 16 : 0);
    }
}

static inline __m256i spread(uint32_t word) {
    return _mm256_mask_blend_epi8(word, _mm256_set1_epi8(-1), _mm256_set1_epi8(1));
}

static void unpack(size_t rows, size_t channels, const uint32_t *bits, int8_t *out) {
    size_t tail = channels % ONEBIT_WORD_BITS;
    for (size_t row = 0; row < rows; ++row, out += tail) {
        for (size_t word = channels / ONEBIT_WORD_BITS; word--; out += ONEBIT_WORD_BITS)
            _mm256_storeu_si256((__m256i *)(void *)out, spread(*bits++));
        if (tail)
            _mm256_mask_storeu_epi8(out, onebit_tail_mask(channels), spread(*bits++));
    }
}

const onebit_pack onebit_pack_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "pack/avx512",
    .sign = sign,
    .sign_planes = sign_planes,
    .unpack = unpack,
    .repack = onebit_pack_repack,
};
