/* Portable C: weights packed as [n / 32][k][32], so that the inner loop runs over columns and vectorises
 * without reordering any sum. */
#include "kernels/f32_gemm/f32_gemm.h"

enum { BLOCK = 32 };

static size_t packed_size(size_t n, size_t k) {
    return (n + BLOCK - 1) / BLOCK * BLOCK * k * sizeof(float);
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    const float *from = weights;
    float *to = packed;
    for (size_t block = 0; block < n; block += BLOCK)
        for (size_t i = 0; i < k; ++i)
            for (size_t column = block; column < block + BLOCK; ++column)
                *to++ = column < n ? from[column * k + i] : 0.0f;
}

static size_t scratch_size(size_t m, size_t k) {
    (void)m;
    (void)k;
    return 0;
}

static void run(const onebit_gemm_args *args) {
    const float *scale = args->epilogue->scale, *bias = args->epilogue->bias;
    for (size_t n = args->n_begin; n < args->n_end; n += BLOCK) {
        const float *block = (const float *)args->weights + n * args->k;
        const size_t width = args->n_end - n < BLOCK ? args->n_end - n : BLOCK;
        for (size_t m = 0; m < args->m; ++m) {
            const float *x = (const float *)((const unsigned char *)args->a + m * args->a_stride);
            float *row = (float *)((unsigned char *)args->out + m * args->out_stride);
            float sum[BLOCK] = {0};
            for (size_t i = 0; i < args->k; ++i)
                for (size_t j = 0; j < BLOCK; ++j)
                    sum[j] += x[i] * block[i * BLOCK + j];
            for (size_t j = 0; j < width; ++j)
                row[n + j] = __builtin_fmaf(sum[j], scale[n + j], bias[n + j]);
        }
    }
}

const onebit_gemm_variant onebit_f32_gemm_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "f32_gemm/generic",
    .m_tile = 1,
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
