/* Differing bits are counted by table lookup: kernels/avx2_nibbles.inc says how.
 *
 *   weights       [n/64][byte of k][64 channels], a byte holds two nibbles
 *   activations   [tile of rows][byte of k][low, high][rows of the tile]: 16 * nibble, the offset of its
 * table
 *
 * The tile is 6 rows x 64 channels: 12 byte accumulators, two vectors of nibbles, two temporaries.
 *
 * Ranges: a byte gains at most 8 a byte of k, 8 * BYTE_STEPS = 248 <= 255; it is then added to 16-bit sums,
 * which are added to 32-bit totals after at most SUM_STEPS such additions, 248 * 256 = 63488 <= 65535; a
 * total is at most k <= INT32_MAX. */
#include "base/bits.h"
#include "kernels/binary_gemm/binary_gemm.h"
#include "kernels/binary_gemm/blocking.h"

#include <immintrin.h>
#include <math.h>

#include "kernels/avx2_nibbles.inc"

enum { N_TILE = 64, M_TILE = 6, HALVES = N_TILE / 32, BYTE_STEPS = 31, SUM_STEPS = 256 };

typedef struct {
    const onebit_gemm_args *args;
    bool stream;
} context;

static size_t k_bytes(size_t k) {
    return onebit_words(k) * sizeof(uint32_t);
}

static size_t packed_size(size_t n, size_t k) {
    return (n + N_TILE - 1) / N_TILE * N_TILE * k_bytes(k);
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    size_t bytes = k_bytes(k);
    const uint8_t *rows = weights;
    uint8_t *panel = packed;
    for (size_t first = 0; first < n; first += N_TILE, panel += N_TILE * bytes)
        for (size_t byte = 0; byte < bytes; ++byte)
            for (size_t lane = 0; lane < N_TILE; ++lane)
                panel[byte * N_TILE + lane] = first + lane < n ? rows[(first + lane) * bytes + byte] : 0;
}

static size_t scratch_size(size_t m, size_t k) {
    size_t rows = block_rows(2 * k_bytes(k), M_TILE);
    return (m < rows ? m : rows) * 2 * k_bytes(k);
}

/* count >= 32 columns from n on, of one row. */
static inline void store32(const context *ctx, size_t n, const int32_t *different, char *out) {
    const onebit_epilogue *epilogue = ctx->args->epilogue;
    const __m256i k = _mm256_set1_epi32((int)ctx->args->k);
    uint32_t below = 0;
    for (size_t lane = 0; lane < 32; lane += 8) {
        __m256i v = _mm256_load_si256((const __m256i *)(const void *)(different + lane));
        v = _mm256_sub_epi32(k, _mm256_slli_epi32(v, 1));
        if (epilogue->kind == ONEBIT_EPILOGUE_BITS) {
            __m256i t = _mm256_loadu_si256((const __m256i *)(const void *)(epilogue->threshold + n + lane));
            below |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(t, v))) << lane;
            continue;
        }
        if (epilogue->kind == ONEBIT_EPILOGUE_F32)
            v = _mm256_castps_si256(_mm256_fmadd_ps(_mm256_cvtepi32_ps(v),
                                                    _mm256_loadu_ps(epilogue->scale + n + lane),
                                                    _mm256_loadu_ps(epilogue->bias + n + lane)));
        __m256i *to = (__m256i *)(void *)(out + (n + lane) * sizeof(int32_t));
        if (ctx->stream)
            _mm256_stream_si256(to, v);
        else
            _mm256_storeu_si256(to, v);
    }
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS)
        ((uint32_t *)out)[n / 32] = ~below ^ epilogue->flip[n / 32];
}

/* The last count < 32 columns of one row. */
static void store_tail(const context *ctx, size_t n, size_t count, const int32_t *different, char *out) {
    const onebit_epilogue *epilogue = ctx->args->epilogue;
    uint32_t bits = 0;
    for (size_t lane = 0; lane < count; ++lane) {
        int32_t v = (int32_t)ctx->args->k - 2 * different[lane];
        if (epilogue->kind == ONEBIT_EPILOGUE_I32)
            ((int32_t *)out)[n + lane] = v;
        else if (epilogue->kind == ONEBIT_EPILOGUE_F32)
            ((float *)out)[n + lane] = fmaf((float)v, epilogue->scale[n + lane], epilogue->bias[n + lane]);
        else
            bits |= (uint32_t)(v >= epilogue->threshold[n + lane]) << lane;
    }
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS)
        ((uint32_t *)out)[n / 32] = (bits ^ epilogue->flip[n / 32]) & onebit_tail_mask(count);
}

/* sums = counts over the next `bytes` <= BYTE_STEPS * SUM_STEPS of k, for `rows` (a constant once inlined)
 * x 64 channels. */
static inline __attribute__((always_inline)) void count(size_t rows, size_t bytes, const uint8_t *a,
                                                        const uint8_t *weights, __m256i *sums) {
    const uint8_t *end = weights + bytes * N_TILE;
    for (bool add = false; weights < end; add = true) {
        const size_t left = (size_t)(end - weights), step_bytes = BYTE_STEPS * N_TILE;
        const uint8_t *stop = weights + (left < step_bytes ? left : step_bytes);
        __m256i counts0[M_TILE], counts1[M_TILE];
#pragma GCC unroll 6
        for (size_t row = 0; row < rows; ++row)
            counts0[row] = counts1[row] = _mm256_setzero_si256();
        for (; weights < stop; weights += N_TILE, a += 2 * rows) {
            __m256i nibbles0 = low_nibbles(rows > 4, weights), nibbles1 = low_nibbles(rows > 4, weights + 32);
#pragma GCC unroll 6
            for (size_t row = 0; row < rows; ++row)
                step(&counts0[row], &counts1[row], nibbles0, nibbles1, a[row]);
            nibbles0 = high_nibbles(rows > 4, weights), nibbles1 = high_nibbles(rows > 4, weights + 32);
#pragma GCC unroll 6
            for (size_t row = 0; row < rows; ++row)
                step(&counts0[row], &counts1[row], nibbles0, nibbles1, a[rows + row]);
        }
#pragma GCC unroll 6
        for (size_t row = 0; row < rows; ++row) {
            widen_bytes(counts0[row], add, sums + 4 * row);
            widen_bytes(counts1[row], add, sums + 4 * row + 2);
        }
    }
}

#define COUNT_OF(rows)                                                                                       \
    static __attribute__((noinline)) void count##rows(size_t bytes, const uint8_t *a,                        \
                                                      const uint8_t *weights, __m256i *sums) {               \
        count(rows, bytes, a, weights, sums);                                                                \
    }
COUNT_OF(1)
COUNT_OF(2)
COUNT_OF(3)
COUNT_OF(4)
COUNT_OF(5)
COUNT_OF(6)

typedef void count_function(size_t bytes, const uint8_t *a, const uint8_t *weights, __m256i *sums);
static count_function *const counts[M_TILE + 1] = {NULL, count1, count2, count3, count4, count5, count6};

static void store_row(const context *ctx, size_t m, size_t n, const int32_t *different) {
    char *out = (char *)ctx->args->out + m * ctx->args->out_stride;
    for (size_t first = n; first < n + N_TILE && first < ctx->args->n_end; first += 32, different += 32) {
        size_t left = ctx->args->n_end - first;
        if (left >= 32)
            store32(ctx, first, different, out);
        else
            store_tail(ctx, first, left, different, out);
    }
}

/* rows x 64 channels over all of K. */
static void tile(const context *ctx, size_t rows, size_t m, size_t n, const uint8_t *a,
                 const uint8_t *weights) {
    _Alignas(32) int32_t totals[M_TILE][N_TILE];
    __m256i sums[M_TILE][2 * HALVES];
    const size_t bytes = k_bytes(ctx->args->k), block = BYTE_STEPS * SUM_STEPS;
    for (size_t done = 0; done < bytes; done += block) {
        counts[rows](bytes - done < block ? bytes - done : block, a + 2 * rows * done,
                     weights + N_TILE * done, sums[0]);
        for (size_t row = 0; row < rows; ++row)
            for (size_t half = 0; half < HALVES; ++half)
                widen_sums(sums[row] + 2 * half, done > 0, totals[row] + 32 * half);
    }
    for (size_t row = 0; row < rows; ++row)
        store_row(ctx, m + row, n, totals[row]);
}

static void pack_rows(const onebit_gemm_args *args, size_t first, size_t rows, uint8_t *to) {
    size_t bytes = k_bytes(args->k);
    const char *from = (const char *)args->a + first * args->a_stride;
    for (size_t in_tile; rows; rows -= in_tile, to += 2 * in_tile * bytes, from += in_tile * args->a_stride) {
        in_tile = tile_rows(rows, M_TILE);
        for (size_t row = 0; row < in_tile; ++row) {
            const uint8_t *a = (const uint8_t *)(from + row * args->a_stride);
            for (size_t byte = 0; byte < bytes; ++byte) {
                to[2 * byte * in_tile + row] = (uint8_t)(a[byte] << 4);
                to[(2 * byte + 1) * in_tile + row] = a[byte] & 0xF0;
            }
        }
    }
}

static void run(const onebit_gemm_args *args) {
    size_t bytes = k_bytes(args->k), max_rows = block_rows(2 * bytes, M_TILE);
    context ctx = {args, stream_output(args, 32)};
    for (size_t first = 0, rows; first < args->m; first += rows) {
        rows = args->m - first < max_rows ? args->m - first : max_rows;
        pack_rows(args, first, rows, args->scratch);
        for (size_t n = args->n_begin; n < args->n_end; n += N_TILE) {
            const uint8_t *weights = (const uint8_t *)args->weights + n * bytes;
            for (size_t m = 0, in_tile; m < rows; m += in_tile) {
                in_tile = tile_rows(rows - m, M_TILE);
                tile(&ctx, in_tile, first + m, n, (const uint8_t *)args->scratch + 2 * m * bytes, weights);
            }
        }
    }
    if (ctx.stream)
        _mm_sfence();
}

const onebit_gemm_variant onebit_binary_gemm_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "binary_gemm/avx2",
    .m_tile = M_TILE,
    .n_tile = N_TILE,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
