/* The weight layout that variants share: [n/32][word of k][32 channels], the missing channels of the last
 * panel zero; and the epilogues of a panel in plain C. */
#ifndef ONEBIT_KERNELS_BINARY_GEMM_PANELS_H
#define ONEBIT_KERNELS_BINARY_GEMM_PANELS_H

#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "kernels/epilogue.h"

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

/* Channels n .. n + count - 1, all of one panel, of the output row `out`. */
static inline void panels_store(const onebit_epilogue *epilogue, size_t n, size_t count, const int32_t *v,
                                char *out) {
    if (epilogue->kind == ONEBIT_EPILOGUE_I32) {
        memcpy(out + n * sizeof *v, v, count * sizeof *v);
    } else if (epilogue->kind == ONEBIT_EPILOGUE_F32) {
        float *to = (float *)out + n;
        for (size_t lane = 0; lane < count; ++lane)
            to[lane] = fmaf((float)v[lane], epilogue->scale[n + lane], epilogue->bias[n + lane]);
    } else {
        uint32_t bits = 0;
        for (size_t lane = 0; lane < count; ++lane)
            bits |= (uint32_t)(v[lane] >= epilogue->threshold[n + lane]) << lane;
        ((uint32_t *)out)[n / N_TILE] = (bits ^ epilogue->flip[n / N_TILE]) & onebit_tail_mask(count);
    }
}

#endif
