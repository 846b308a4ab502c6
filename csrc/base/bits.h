/* Packed bits. Bit 1 means +1, bit 0 means -1. Channel c is bit (c % 32) of little-endian
 * 32-bit word (c / 32). Padding bits are zero, and the true channel count is always carried
 * beside the words: dot = K - 2 * popcount(a xor b), K counting true channels only. */
#ifndef ONEBIT_BASE_BITS_H
#define ONEBIT_BASE_BITS_H

#include <stddef.h>
#include <stdint.h>

enum { ONEBIT_WORD_BITS = 32 };

static inline size_t onebit_words(size_t channels) {
    return (channels + ONEBIT_WORD_BITS - 1) / ONEBIT_WORD_BITS;
}

/* Mask of the true channels in the last word. */
static inline uint32_t onebit_tail_mask(size_t channels) {
    size_t tail = channels % ONEBIT_WORD_BITS;
    return tail ? (UINT32_C(1) << tail) - 1 : UINT32_MAX;
}

static inline int onebit_popcount32(uint32_t x) {
    return __builtin_popcount(x);
}

#endif
