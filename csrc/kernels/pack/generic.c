/* The portable variant, and the repack of all variants. */
#include "base/bits.h"
#include "kernels/pack/pack.h"
#include "kernels/pack/repack.h"

#include <string.h>

#include "kernels/pack/planes.inc"

static void sign(size_t rows, size_t channels, const float *x, uint32_t *bits) {
    for (size_t row = 0; row < rows; ++row)
        for (size_t left = channels; left;) {
            size_t count = left < ONEBIT_WORD_BITS ? left : ONEBIT_WORD_BITS;
            uint32_t word = 0;
            for (size_t bit = 0; bit < count; ++bit)
                word |= (uint32_t)(x[bit] >= 0.0f) << bit;
            *bits++ = word;
            x += count;
            left -= count;
        }
}

static void unpack(size_t rows, size_t channels, const uint32_t *bits, int8_t *out) {
    size_t words = onebit_words(channels);
    for (size_t row = 0; row < rows; ++row, bits += words, out += channels)
        for (size_t c = 0; c < channels; ++c)
            out[c] = (int8_t)(2 * (int)(bits[c / ONEBIT_WORD_BITS] >> (c % ONEBIT_WORD_BITS) & 1) - 1);
}

/* One sample: a queue of at most 31 + 32 bits between the words read and the words written. */
static uint32_t *repack_sample(size_t rows, size_t channels, const uint32_t *bits, size_t out_channels,
                               uint32_t *out) {
    uint64_t queue = 0;
    size_t queued = 0, out_left = out_channels;
    for (size_t row = 0; row < rows; ++row)
        for (size_t left = channels; left;) {
            size_t count = left < ONEBIT_WORD_BITS ? left : ONEBIT_WORD_BITS;
            uint32_t word = *bits++ & (count < ONEBIT_WORD_BITS ? onebit_tail_mask(count) : UINT32_MAX);
            queue |= (uint64_t)word << queued;
            queued += count;
            left -= count;
            for (;;) {
                size_t wanted = out_left < ONEBIT_WORD_BITS ? out_left : ONEBIT_WORD_BITS;
                if (queued < wanted)
                    break;
                *out++ = (uint32_t)queue & onebit_tail_mask(wanted);
                queue >>= wanted;
                queued -= wanted;
                out_left = out_left > wanted ? out_left - wanted : out_channels;
            }
        }
    return out;
}

void onebit_pack_repack(size_t samples, size_t rows, size_t channels, const uint32_t *bits, size_t out_rows,
                        size_t out_channels, uint32_t *out) {
    size_t words = rows * onebit_words(channels);
    if (channels == out_channels ||
        (channels % ONEBIT_WORD_BITS == 0 && out_channels % ONEBIT_WORD_BITS == 0)) {
        memcpy(out, bits, samples * words * sizeof *bits);
        return;
    }
    (void)out_rows; /* follows from the count of bits */
    for (size_t sample = 0; sample < samples; ++sample, bits += words)
        out = repack_sample(rows, channels, bits, out_channels, out);
}

const onebit_pack onebit_pack_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "pack/generic",
    .sign = sign,
    .sign_planes = sign_planes,
    .unpack = unpack,
    .repack = onebit_pack_repack,
};
