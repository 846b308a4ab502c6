/* Comparison masks as integers, safely.
 *
 * Where GCC 12 runs out of mask registers it keeps a 16-bit mask in two bytes of the stack and, when the
 * value is wanted as a wider integer, reads back more than it stored. Seen with -fsanitize=undefined at -O3
 * and with ThreadSanitizer. Moving each mask through a general register at once leaves nothing to spill. */
#ifndef ONEBIT_KERNELS_AVX512_MASKS_H
#define ONEBIT_KERNELS_AVX512_MASKS_H

#include <immintrin.h>
#include <stdint.h>

static inline uint32_t avx512_mask_bits(__mmask16 mask) {
    uint32_t bits = _cvtmask16_u32(mask);
    __asm__("" : "+r"(bits));
    return bits;
}

/* low in bits 0..15, high in bits 16..31. */
static inline uint32_t avx512_mask_pair(__mmask16 low, __mmask16 high) {
    return avx512_mask_bits(low) | avx512_mask_bits(high) << 16;
}

#endif
