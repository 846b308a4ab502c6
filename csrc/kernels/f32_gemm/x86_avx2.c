/* AVX2 and FMA: a register tile of 6 rows by 16 columns, or of one row by 64: enough sums to hide the latency
 * of the fused multiply-add.
 *
 * packed: panels [16 columns][k][16] of floats. k goes in chunks, so that the piece of a panel which all rows
 * reuse stays in the cache; between chunks the sums wait in out. */
#include <immintrin.h>

#include "kernels/f32_gemm/f32_gemm.h"

enum { PANEL = 16, LANES = 8, VECTORS = PANEL / LANES, ROWS = 6, PANELS = 4, CHUNK = 512 };

#define INLINE static inline __attribute__((always_inline))

static size_t packed_size(size_t n, size_t k) {
    return (n + PANEL - 1) / PANEL * PANEL * k * sizeof(float);
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    const float *from = weights;
    float *to = packed;
    for (size_t panel = 0; panel < n; panel += PANEL)
        for (size_t i = 0; i < k; ++i)
            for (size_t column = panel; column < panel + PANEL; ++column)
                *to++ = column < n ? from[column * k + i] : 0.0f;
}

static size_t scratch_size(size_t m, size_t k) {
    (void)m;
    (void)k;
    return 0;
}

/* Lanes below `left` are true. */
INLINE __m256i lanes_below(size_t left) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left < LANES ? (int)left : LANES), lane);
}

/* Inputs [begin, end) of `rows` rows from m on, times `panels` panels from column n on. */
INLINE void run_tile(int rows, int panels, const onebit_gemm_args *args, size_t m, size_t n, size_t begin,
                     size_t end) {
    const float *weights = (const float *)args->weights + n * args->k;
    const unsigned char *a = (const unsigned char *)args->a + m * args->a_stride;
    unsigned char *out = (unsigned char *)args->out + m * args->out_stride + n * sizeof(float);
    const int vectors = panels * VECTORS;
    __m256i mask[PANELS * VECTORS];
    __m256 sum[ROWS][PANELS * VECTORS];
#define OUT(row, vector) ((float *)(out + (size_t)(row) * args->out_stride) + (vector) * LANES)
    for (int vector = 0; vector < vectors; ++vector) {
        const size_t first = n + (size_t)vector * LANES;
        mask[vector] = lanes_below(first < args->n_end ? args->n_end - first : 0);
    }
    for (int row = 0; row < rows; ++row)
        for (int vector = 0; vector < vectors; ++vector)
            sum[row][vector] =
                begin ? _mm256_maskload_ps(OUT(row, vector), mask[vector]) : _mm256_setzero_ps();
    for (size_t i = begin; i < end; ++i) {
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
            const __m256 x = _mm256_set1_ps(((const float *)(a + (size_t)row * args->a_stride))[i]);
#pragma GCC unroll 8
            for (int vector = 0; vector < vectors; ++vector) {
                const size_t panel = (size_t)(vector / VECTORS) * args->k * PANEL;
                const __m256 w = _mm256_load_ps(weights + panel + i * PANEL + vector % VECTORS * LANES);
                sum[row][vector] = _mm256_fmadd_ps(x, w, sum[row][vector]);
            }
        }
    }
    for (int vector = 0; vector < vectors; ++vector) {
        const size_t first = n + (size_t)vector * LANES;
        const __m256 scale = _mm256_maskload_ps(args->epilogue->scale + first, mask[vector]);
        const __m256 bias = _mm256_maskload_ps(args->epilogue->bias + first, mask[vector]);
        for (int row = 0; row < rows; ++row)
            _mm256_maskstore_ps(OUT(row, vector), mask[vector],
                                end == args->k ? _mm256_fmadd_ps(sum[row][vector], scale, bias)
                                               : sum[row][vector]);
    }
#undef OUT
}

/* The last rows, fewer than ROWS, of up to PANELS panels. */
static void run_last_rows(const onebit_gemm_args *args, size_t m, size_t n, size_t n_end, size_t begin,
                          size_t end) {
    for (; m < args->m; ++m) {
        if (n_end - n > (PANELS - 1) * PANEL)
            run_tile(1, PANELS, args, m, n, begin, end);
        else
            for (size_t column = n; column < n_end; column += PANEL)
                run_tile(1, 1, args, m, column, begin, end);
    }
}

static void run(const onebit_gemm_args *args) {
    const size_t whole = args->m / ROWS * ROWS;
    for (size_t n = args->n_begin; n < args->n_end; n += PANELS * PANEL) {
        const size_t n_end = args->n_end - n < PANELS * PANEL ? args->n_end : n + PANELS * PANEL;
        for (size_t begin = 0; begin < args->k; begin += CHUNK) {
            const size_t end = args->k - begin < CHUNK ? args->k : begin + CHUNK;
            for (size_t column = n; column < n_end; column += PANEL)
                for (size_t m = 0; m < whole; m += ROWS)
                    run_tile(ROWS, 1, args, m, column, begin, end);
            run_last_rows(args, whole, n, n_end, begin, end);
        }
    }
}

const onebit_gemm_variant onebit_f32_gemm_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "f32_gemm/avx2",
    .m_tile = ROWS,
    .n_tile = 2 * PANEL,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
