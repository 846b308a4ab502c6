/* AVX2: eight compares a movemask; unpacking by a byte shuffle and a compare with each byte's own bit. */
#include "base/bits.h"
#include "kernels/pack/pack.h"
#include "kernels/pack/repack.h"

#include <immintrin.h>

#include "kernels/pack/planes.inc"

static inline uint32_t sign8(const float *x) {
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_setzero_ps(), _CMP_GE_OQ));
}

static inline uint32_t sign_tail(size_t count, const float *x) {
    uint32_t word = 0;
    for (size_t bit = 0; bit < count; ++bit)
        word |= (uint32_t)(x[bit] >= 0.0f) << bit;
    return word;
}

static void sign(size_t rows, size_t channels, const float *x, uint32_t *bits) {
    size_t tail = channels % ONEBIT_WORD_BITS;
    for (size_t row = 0; row < rows; ++row, x += tail) {
        for (size_t word = channels / ONEBIT_WORD_BITS; word--; x += ONEBIT_WORD_BITS)
            *bits++ = sign8(x) | sign8(x + 8) << 8 | sign8(x + 16) << 16 | sign8(x + 24) << 24;
        if (tail)
            *bits++ = sign_tail(tail, x);
    }
}

/* 32 bytes, +1 where the bit of the word is 1 and -1 elsewhere. */
static inline __m256i spread(uint32_t word) {
    const __m256i byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2,
                                             2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)word), byte_of);
    __m256i clear = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit_of), _mm256_setzero_si256());
    return _mm256_or_si256(clear, _mm256_set1_epi8(1));
}

static void unpack(size_t rows, size_t channels, const uint32_t *bits, int8_t *out) {
    size_t tail = channels % ONEBIT_WORD_BITS;
    for (size_t row = 0; row < rows; ++row) {
        for (size_t word = channels / ONEBIT_WORD_BITS; word--; out += ONEBIT_WORD_BITS)
            _mm256_storeu_si256((__m256i *)(void *)out, spread(*bits++));
        if (tail) {
            uint32_t last = *bits++;
            for (size_t bit = 0; bit < tail; ++bit)
                *out++ = last >> bit & 1 ? 1 : -1;
        }
    }
}

const onebit_pack onebit_pack_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "pack/avx2",
    .sign = sign,
    .sign_planes = sign_planes,
    .unpack = unpack,
    .repack = onebit_pack_repack,
};
