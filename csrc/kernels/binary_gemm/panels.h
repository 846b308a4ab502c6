/* The weight layout that the generic and AVX-512 variants share: [n/32][word of k][32 channels], the missing
 * channels of the last panel zero. */
#ifndef ONEBIT_KERNELS_BINARY_GEMM_PANELS_H
#define ONEBIT_KERNELS_BINARY_GEMM_PANELS_H

#include "base/bits.h"

enum { N_TILE = 32 };

static inline size_t panels_size(size_t n, size_t k) {
    return (n + N_TILE - 1) / N_TILE * N_TILE * onebit_words(k) * sizeof(uint32_t);
}

static inline void panels_prepack(size_t n, size_t k, const void *weights, void *packed) {
    size_t words = onebit_words(k);
    const uint32_t *rows = (const uint32_t *)weights;
    uint32_t *panel = (uint32_t *)packed;
    for (size_t first = 0; first < n; first += N_TILE, panel += N_TILE * words)
        for (size_t word = 0; word < words; ++word)
            for (size_t lane = 0; lane < N_TILE; ++lane)
                panel[word * N_TILE + lane] = first + lane < n ? rows[(first + lane) * words + word] : 0;
}

#endif
