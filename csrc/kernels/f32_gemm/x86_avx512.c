/* AVX-512: a register tile of 6 rows by 64 columns (24 sums), one broadcast input for four fused
 * multiply-adds.
 *
 * packed: panels [32 columns][k][32] of floats, two panels at a time. k goes in chunks, so that the piece of
 * a panel which all rows reuse stays in the L2 cache; between chunks the sums wait in out. */
#include <immintrin.h>

#include "kernels/f32_gemm/f32_gemm.h"

enum { PANEL = 32, LANES = 16, VECTORS = PANEL / LANES, ROWS = 6, PANELS = 2, CHUNK = 512 };

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

/* Inputs [begin, end) of `rows` rows from m on, times `panels` panels from column n on. */
INLINE void run_tile(int rows, int panels, const onebit_gemm_args *args, size_t m, size_t n, size_t begin,
                     size_t end) {
    const float *weights = (const float *)args->weights + n * args->k;
    const unsigned char *a = (const unsigned char *)args->a + m * args->a_stride;
    unsigned char *out = (unsigned char *)args->out + m * args->out_stride + n * sizeof(float);
    const int vectors = panels * VECTORS;
    __m512 sum[ROWS][PANELS * VECTORS];
    __mmask16 mask[PANELS * VECTORS];
    for (int vector = 0; vector < vectors; ++vector) {
        const size_t first = n + (size_t)vector * LANES, left = first < args->n_end ? args->n_end - first : 0;
        mask[vector] = left < LANES ? (__mmask16)((1 << left) - 1) : 0xFFFF;
    }
#define OUT(row, vector) ((float *)(out + (size_t)(row) * args->out_stride) + (vector) * LANES)
    for (int row = 0; row < rows; ++row)
        for (int vector = 0; vector < vectors; ++vector)
            sum[row][vector] =
                begin ? _mm512_maskz_loadu_ps(mask[vector], OUT(row, vector)) : _mm512_setzero_ps();
    for (size_t i = begin; i < end; ++i) {
        __m512 w[PANELS * VECTORS];
#pragma GCC unroll 8
        for (int vector = 0; vector < vectors; ++vector)
            w[vector] = _mm512_load_ps(weights + (size_t)(vector / VECTORS) * args->k * PANEL + i * PANEL +
                                       vector % VECTORS * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
            const __m512 x = _mm512_set1_ps(((const float *)(a + (size_t)row * args->a_stride))[i]);
#pragma GCC unroll 8
            for (int vector = 0; vector < vectors; ++vector)
                sum[row][vector] = _mm512_fmadd_ps(x, w[vector], sum[row][vector]);
        }
    }
    for (int vector = 0; vector < vectors; ++vector) {
        const int last = end == args->k;
        const size_t first = n + (size_t)vector * LANES;
        const __m512 scale = _mm512_maskz_loadu_ps(mask[vector], args->epilogue->scale + first);
        const __m512 bias = _mm512_maskz_loadu_ps(mask[vector], args->epilogue->bias + first);
        for (int row = 0; row < rows; ++row)
            _mm512_mask_storeu_ps(OUT(row, vector), mask[vector],
                                  last ? _mm512_fmadd_ps(sum[row][vector], scale, bias) : sum[row][vector]);
    }
#undef OUT
}

INLINE void run_panels(int panels, const onebit_gemm_args *args, size_t n, size_t begin, size_t end) {
    size_t m = 0;
    for (; m + ROWS <= args->m; m += ROWS)
        run_tile(ROWS, panels, args, m, n, begin, end);
    for (; m + 2 <= args->m; m += 2)
        run_tile(2, panels, args, m, n, begin, end);
    if (m < args->m)
        run_tile(1, panels, args, m, n, begin, end);
}

static void run(const onebit_gemm_args *args) {
    for (size_t n = args->n_begin; n < args->n_end; n += PANELS * PANEL)
        for (size_t begin = 0; begin < args->k; begin += CHUNK) {
            const size_t end = args->k - begin < CHUNK ? args->k : begin + CHUNK;
            if (args->n_end - n > PANEL)
                run_panels(PANELS, args, n, begin, end);
            else
                run_panels(1, args, n, begin, end);
        }
}

const onebit_gemm_variant onebit_f32_gemm_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "f32_gemm/avx512",
    .m_tile = ROWS,
    .n_tile = PANEL,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
