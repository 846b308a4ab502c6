/* The portable variant: plain C that compilers turn into whatever vectors the target has.
 *
 * The inner loop runs over the 32 channels of a panel and needs no horizontal sum. A popcount is done in
 * parallel in the four bytes of a 32-bit lane; bytes are added up for FLUSH words before they are widened.
 * Range: a byte gains at most 8 a word, 8 * 31 = 248 <= 255; the int32 total is at most k. */
#include "kernels/binary_gemm/binary_gemm.h"
#include "kernels/binary_gemm/panels.h"

#include <string.h>

enum { FLUSH = 31 };

static size_t scratch_size(size_t m, size_t k) {
    (void)m, (void)k;
    return 0;
}

/* Popcounts of the four bytes of x, each in its byte. */
static inline uint32_t byte_counts(uint32_t x) {
    x -= x >> 1 & UINT32_C(0x55555555);
    x = (x & UINT32_C(0x33333333)) + (x >> 2 & UINT32_C(0x33333333));
    return (x + (x >> 4)) & UINT32_C(0x0F0F0F0F);
}

/* different[lane] = how many bits of row a differ from channel `lane` of the panel. */
static void count_different(size_t words, const uint32_t *a, const uint32_t *panel, uint32_t *different) {
    memset(different, 0, N_TILE * sizeof *different);
    for (size_t word = 0; word < words;) {
        size_t stop = word + FLUSH < words ? word + FLUSH : words;
        uint32_t bytes[N_TILE] = {0};
        for (; word < stop; ++word)
            for (size_t lane = 0; lane < N_TILE; ++lane)
                bytes[lane] += byte_counts(a[word] ^ panel[word * N_TILE + lane]);
        for (size_t lane = 0; lane < N_TILE; ++lane) {
            uint32_t pairs = (bytes[lane] & 0x00FF00FF) + (bytes[lane] >> 8 & 0x00FF00FF);
            different[lane] += (pairs & 0xFFFF) + (pairs >> 16);
        }
    }
}

static void run(const onebit_gemm_args *args) {
    size_t words = onebit_words(args->k);
    for (size_t n = args->n_begin; n < args->n_end; n += N_TILE) {
        size_t count = args->n_end - n < N_TILE ? args->n_end - n : N_TILE;
        const uint32_t *panel = (const uint32_t *)args->weights + n * words;
        for (size_t m = 0; m < args->m; ++m) {
            uint32_t different[N_TILE];
            int32_t v[N_TILE];
            count_different(words, (const uint32_t *)((const char *)args->a + m * args->a_stride), panel,
                            different);
            for (size_t lane = 0; lane < N_TILE; ++lane)
                v[lane] = (int32_t)args->k - 2 * (int32_t)different[lane];
            panels_store(args->epilogue, n, count, v, (char *)args->out + m * args->out_stride);
        }
    }
}

const onebit_gemm_variant onebit_binary_gemm_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "binary_gemm/generic",
    .m_tile = 1,
    .n_tile = N_TILE,
    .packed_size = panels_size,
    .prepack = panels_prepack,
    .scratch_size = scratch_size,
    .run = run,
};
