/* NEON: a compare makes masks, of which each lane keeps its own bit; unpacking tests each byte for its own.
 */
#include "base/bits.h"
#include "kernels/pack/pack.h"
#include "kernels/pack/repack.h"

#include <arm_neon.h>

#include "kernels/pack/planes.inc"

enum { LANES = 4 };

static inline uint32_t sign32(const float *x) {
    static const uint32_t first_bits[LANES] = {1, 2, 4, 8};
    uint32x4_t word = vdupq_n_u32(0), lane_bits = vld1q_u32(first_bits);
    for (size_t i = 0; i < ONEBIT_WORD_BITS; i += LANES, lane_bits = vshlq_n_u32(lane_bits, LANES))
        word = vorrq_u32(word, vandq_u32(vcgezq_f32(vld1q_f32(x + i)), lane_bits));
    return vaddvq_u32(word);
}

static inline uint32_t sign_tail(size_t count, const float *x) {
    uint32_t word = 0;
    for (size_t bit = 0; bit < count; ++bit)
        word |= (uint32_t)(x[bit] >= 0.0f) << bit;
    return word;
}

static void sign(size_t rows, size_t channels, const float *x, uint32_t *bits) {
    const size_t tail = channels % ONEBIT_WORD_BITS;
    for (size_t row = 0; row < rows; ++row, x += tail) {
        for (size_t word = channels / ONEBIT_WORD_BITS; word--; x += ONEBIT_WORD_BITS)
            *bits++ = sign32(x);
        if (tail)
            *bits++ = sign_tail(tail, x);
    }
}

/* 16 bytes, +1 where the bit of the half word is 1 and -1 elsewhere; byte_of says whose byte a lane tests. */
static inline int8x16_t spread(uint8x16_t word, uint8x16_t byte_of) {
    const uint8x16_t bit_of = vreinterpretq_u8_u64(vdupq_n_u64(UINT64_C(0x8040201008040201)));
    const uint8x16_t set = vtstq_u8(vqtbl1q_u8(word, byte_of), bit_of);
    return vreinterpretq_s8_u8(vorrq_u8(vmvnq_u8(set), vdupq_n_u8(1)));
}

static void unpack(size_t rows, size_t channels, const uint32_t *bits, int8_t *out) {
    const size_t tail = channels % ONEBIT_WORD_BITS;
    const uint8x16_t low = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1)),
                     high = vcombine_u8(vdup_n_u8(2), vdup_n_u8(3));
    for (size_t row = 0; row < rows; ++row) {
        for (size_t word = channels / ONEBIT_WORD_BITS; word--; out += ONEBIT_WORD_BITS) {
            const uint8x16_t all = vreinterpretq_u8_u32(vld1q_dup_u32(bits++));
            vst1q_s8(out, spread(all, low));
            vst1q_s8(out + 16, spread(all, high));
        }
        if (tail) {
            const uint32_t last = *bits++;
            for (size_t bit = 0; bit < tail; ++bit)
                *out++ = last >> bit & 1 ? 1 : -1;
        }
    }
}

const onebit_pack onebit_pack_neon = {
    .isa = ONEBIT_ISA_NEON,
    .name = "pack/neon",
    .sign = sign,
    .sign_planes = sign_planes,
    .unpack = unpack,
    .repack = onebit_pack_repack,
};
