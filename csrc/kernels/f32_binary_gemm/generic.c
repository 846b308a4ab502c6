/* Portable C: 16-entry tables. For every four inputs of a row the 16 sums +-x0 +-x1 +-x2 +-x3 are written
 * once; each four weights of each column then cost one look-up. Four running sums a column, joined at the
 * end. */
#include <string.h>

#include "base/bits.h"
#include "kernels/f32_binary_gemm/f32_binary_gemm.h"

enum { BLOCK = 32, GROUP = 4, SIGNS = 16, GROUPS_A_WORD = ONEBIT_WORD_BITS / GROUP };

typedef float table[SIGNS];

/* packed: the words as they came. */
static size_t packed_size(size_t n, size_t k) {
    return n * onebit_words(k) * sizeof(uint32_t);
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    memcpy(packed, weights, packed_size(n, k));
}

static size_t scratch_size(size_t m, size_t k) {
    (void)m;
    return onebit_words(k) * GROUPS_A_WORD * sizeof(table);
}

/* Inputs beyond k count as 0, and their weight bits are 0: they add -0. */
static void build_tables(size_t k, const float *x, table *tables) {
    const size_t groups = onebit_words(k) * GROUPS_A_WORD;
    for (size_t group = 0; group < groups; ++group) {
        float value[GROUP];
        for (size_t i = 0; i < GROUP; ++i)
            value[i] = group * GROUP + i < k ? x[group * GROUP + i] : 0.0f;
        for (unsigned signs = 0; signs < SIGNS; ++signs) {
            const float low = (signs & 1 ? value[0] : -value[0]) + (signs & 2 ? value[1] : -value[1]);
            const float high = (signs & 4 ? value[2] : -value[2]) + (signs & 8 ? value[3] : -value[3]);
            tables[group][signs] = low + high;
        }
    }
}

/* One word of one column. */
static float look_up(uint32_t bits, const table *tables) {
    float found[GROUPS_A_WORD];
    for (int group = 0; group < GROUPS_A_WORD; ++group)
        found[group] = tables[group][bits >> (GROUP * group) & (SIGNS - 1)];
    return ((found[0] + found[1]) + (found[2] + found[3])) + ((found[4] + found[5]) + (found[6] + found[7]));
}

static void run(const onebit_gemm_args *args) {
    const size_t words = onebit_words(args->k);
    const float *scale = args->epilogue->scale, *bias = args->epilogue->bias;
    table *tables = args->scratch;
    for (size_t m = 0; m < args->m; ++m) {
        const float *x = (const float *)((const unsigned char *)args->a + m * args->a_stride);
        float *row = (float *)((unsigned char *)args->out + m * args->out_stride);
        build_tables(args->k, x, tables);
        for (size_t n = args->n_begin; n < args->n_end; n += BLOCK) {
            const uint32_t *weights = (const uint32_t *)args->weights + n * words;
            const size_t width = args->n_end - n < BLOCK ? args->n_end - n : BLOCK;
            float sum[BLOCK] = {0};
            for (size_t word = 0; word < words; ++word)
                for (size_t j = 0; j < width; ++j)
                    sum[j] += look_up(weights[j * words + word], tables + word * GROUPS_A_WORD);
            for (size_t j = 0; j < width; ++j)
                row[n + j] = __builtin_fmaf(sum[j], scale[n + j], bias[n + j]);
        }
    }
}

const onebit_gemm_variant onebit_f32_binary_gemm_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "f32_binary_gemm/generic",
    .m_tile = 1,
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
