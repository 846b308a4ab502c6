/* AVX-512 with VPOPCNTDQ: 32-bit lanes run across output channels, activations are broadcast from memory by
 * the xor itself, and nothing is ever summed across lanes.
 *
 * The tile is 12 rows x 32 channels: 24 accumulators, and three instructions (xor, popcount, add) for 512
 * multiply-accumulates. Thirty-two channels rather than 64 let a panel of weights (128 bytes a word of K,
 * 16 KB at K = 4096) and a panel of activations stay in the first-level cache together.
 * Activations are copied into scratch, a block of rows at a time, as [tile of rows][word of k][rows].
 * Range: a lane counts at most k <= INT32_MAX differing bits.
 *
 * The inner step is inline assembly because compilers hoist the broadcasts, run out of registers and spill
 * accumulators (10 % slower, seen with GCC 12). */
#include <immintrin.h>

#include "kernels/binary_gemm/binary_gemm.h"
#include "kernels/binary_gemm/blocking.h"
#include "kernels/binary_gemm/panels.h"

#include "kernels/avx512_masks.inc"

enum { LANES = 16, M_TILE = 12 };

typedef struct {
    const onebit_gemm_args *args;
    bool stream;
} context;

static size_t scratch_size(size_t m, size_t k) {
    size_t words = onebit_words(k), rows = block_rows(words * sizeof(uint32_t), M_TILE);
    return m == 1 ? 0 : (m < rows ? m : rows) * words * sizeof(uint32_t);
}

/* One row of a tile at columns n .. n + 31, from the counts of differing bits. */
static inline void apply_epilogue(const context *ctx, size_t m, size_t n, __m512i low, __m512i high) {
    const onebit_gemm_args *args = ctx->args;
    const onebit_epilogue *epilogue = args->epilogue;
    size_t count = args->n_end - n;
    uint32_t live = count < N_TILE ? onebit_tail_mask(count) : UINT32_MAX;
    __mmask16 live0 = (__mmask16)live, live1 = (__mmask16)(live >> LANES);
    char *out = (char *)args->out + m * args->out_stride;
    __m512i k = _mm512_set1_epi32((int)args->k);
    low = _mm512_sub_epi32(k, _mm512_slli_epi32(low, 1));
    high = _mm512_sub_epi32(k, _mm512_slli_epi32(high, 1));
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS) {
        const int32_t *threshold = epilogue->threshold + n;
        uint32_t bits = avx512_mask_pair(
            _mm512_cmpge_epi32_mask(low, _mm512_maskz_loadu_epi32(live0, threshold)),
            _mm512_cmpge_epi32_mask(high, _mm512_maskz_loadu_epi32(live1, threshold + LANES)));
        ((uint32_t *)out)[n / N_TILE] = (bits ^ epilogue->flip[n / N_TILE]) & live;
        return;
    }
    if (epilogue->kind == ONEBIT_EPILOGUE_F32) {
        const float *scale = epilogue->scale + n, *bias = epilogue->bias + n;
        low =
            _mm512_castps_si512(_mm512_fmadd_ps(_mm512_cvtepi32_ps(low), _mm512_maskz_loadu_ps(live0, scale),
                                                _mm512_maskz_loadu_ps(live0, bias)));
        high = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_cvtepi32_ps(high),
                                                   _mm512_maskz_loadu_ps(live1, scale + LANES),
                                                   _mm512_maskz_loadu_ps(live1, bias + LANES)));
    }
    int32_t *to = (int32_t *)out + n;
    if (ctx->stream && live == UINT32_MAX) {
        _mm512_stream_si512((void *)to, low);
        _mm512_stream_si512((void *)(to + LANES), high);
    } else {
        _mm512_mask_storeu_epi32(to, live0, low);
        _mm512_mask_storeu_epi32(to + LANES, live1, high);
    }
}

/* total += popcount(weights xor broadcast(*activation)). */
static inline __m512i step(__m512i total, __m512i weights, const uint32_t *activation) {
    __m512i different;
    __asm__("vpxord %3%{1to16%}, %2, %1\n\t"
            "vpopcntd %1, %1\n\t"
            "vpaddd %1, %0, %0"
            : "+v"(total), "=&v"(different)
            : "v"(weights), "m"(*activation));
    return total;
}

/* `rows` (a constant once inlined) x 32 channels over all of K. */
static inline __attribute__((always_inline)) void tile(const context *ctx, size_t rows, size_t m, size_t n,
                                                       const uint32_t *a, const uint32_t *weights) {
    __m512i low[M_TILE], high[M_TILE];
#pragma GCC unroll 12
    for (size_t row = 0; row < rows; ++row)
        low[row] = high[row] = _mm512_setzero_si512();
    size_t words = onebit_words(ctx->args->k);
    for (size_t word = 0; word < words; ++word, weights += N_TILE, a += rows) {
        __m512i weights0 = _mm512_load_si512(weights), weights1 = _mm512_load_si512(weights + LANES);
#pragma GCC unroll 12
        for (size_t row = 0; row < rows; ++row) {
            low[row] = step(low[row], weights0, a + row);
            high[row] = step(high[row], weights1, a + row);
        }
    }
#pragma GCC unroll 12
    for (size_t row = 0; row < rows; ++row)
        apply_epilogue(ctx, m + row, n, low[row], high[row]);
}

#define TILE_OF(rows)                                                                                        \
    static __attribute__((noinline)) void tile##rows(const context *ctx, size_t m, size_t n,                 \
                                                     const uint32_t *a, const uint32_t *weights) {           \
        tile(ctx, rows, m, n, a, weights);                                                                   \
    }
TILE_OF(1)
TILE_OF(2)
TILE_OF(3)
TILE_OF(4)
TILE_OF(5)
TILE_OF(6)
TILE_OF(7)
TILE_OF(8)
TILE_OF(9)
TILE_OF(10)
TILE_OF(11)
TILE_OF(12)

typedef void tile_function(const context *, size_t m, size_t n, const uint32_t *a, const uint32_t *weights);
static tile_function *const tiles[M_TILE + 1] = {NULL,  tile1, tile2, tile3,  tile4,  tile5, tile6,
                                                 tile7, tile8, tile9, tile10, tile11, tile12};

static void pack_rows(const onebit_gemm_args *args, size_t first, size_t rows, uint32_t *to) {
    size_t words = onebit_words(args->k);
    const char *from = (const char *)args->a + first * args->a_stride;
    for (size_t in_tile; rows; rows -= in_tile, to += in_tile * words, from += in_tile * args->a_stride) {
        in_tile = tile_rows(rows, M_TILE);
        for (size_t row = 0; row < in_tile; ++row) {
            const uint32_t *a = (const uint32_t *)(from + row * args->a_stride);
            for (size_t word = 0; word < words; ++word)
                to[word * in_tile + row] = a[word];
        }
    }
}

static void run(const onebit_gemm_args *args) {
    size_t words = onebit_words(args->k), max_rows = block_rows(words * sizeof(uint32_t), M_TILE);
    context ctx = {args, stream_output(args, 64)};
    for (size_t first = 0, rows; first < args->m; first += rows) {
        rows = args->m - first < max_rows ? args->m - first : max_rows;
        const uint32_t *block = args->m == 1 ? args->a : args->scratch;
        if (args->m > 1)
            pack_rows(args, first, rows, args->scratch);
        for (size_t n = args->n_begin; n < args->n_end; n += N_TILE) {
            const uint32_t *weights = (const uint32_t *)args->weights + n * words;
            for (size_t m = 0, in_tile; m < rows; m += in_tile) {
                in_tile = tile_rows(rows - m, M_TILE);
                tiles[in_tile](&ctx, first + m, n, block + m * words, weights);
            }
        }
    }
    if (ctx.stream)
        _mm_sfence();
}

const onebit_gemm_variant onebit_binary_gemm_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "binary_gemm/avx512",
    .m_tile = M_TILE,
    .n_tile = N_TILE,
    .packed_size = panels_size,
    .prepack = panels_prepack,
    .scratch_size = scratch_size,
    .run = run,
};
