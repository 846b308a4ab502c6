/* Portable C: 16-entry tables. For every four inputs of a row, the sums of all 16 subsets are written once;
 * each four weights of each column then cost one look-up. S = sum of the inputs whose weight is +1 gives
 * dot = 2 S - sum(x), and v = multiplier * dot + offset * rowsum. All arithmetic is modulo 2^32. */
#include <string.h>

#include "base/bits.h"
#include "kernels/u8_gemm/u8_gemm.h"

enum { BLOCK = 32, GROUP = 4, SUBSETS = 16, GROUPS_A_WORD = ONEBIT_WORD_BITS / GROUP };

/* A table entry is at most 4 * 255. */
typedef uint16_t table[SUBSETS];

/* packed: rowsum int32[n], then the words as they came. */
static size_t packed_size(size_t n, size_t k) {
    return n * sizeof(int32_t) + n * onebit_words(k) * sizeof(uint32_t);
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    const uint32_t *words = weights;
    const size_t stride = onebit_words(k);
    int32_t *rowsum = packed;
    for (size_t row = 0; row < n; ++row) {
        int64_t ones = 0;
        for (size_t word = 0; word < stride; ++word)
            ones += onebit_popcount32(words[row * stride + word]);
        rowsum[row] = (int32_t)(2 * ones - (int64_t)k);
    }
    memcpy(rowsum + n, words, n * stride * sizeof(uint32_t));
}

static size_t scratch_size(size_t m, size_t k) {
    (void)m;
    return onebit_words(k) * GROUPS_A_WORD * sizeof(table);
}

/* Fills the tables of one row and returns the sum of its inputs. Inputs beyond k count as 0. */
static uint32_t build_tables(size_t k, const uint8_t *x, table *tables) {
    uint32_t sum = 0;
    const size_t groups = onebit_words(k) * GROUPS_A_WORD;
    for (size_t group = 0; group < groups; ++group) {
        uint16_t *entry = tables[group];
        entry[0] = 0;
        for (size_t i = 0; i < GROUP; ++i) {
            const size_t position = group * GROUP + i;
            const uint16_t value = position < k ? x[position] : 0;
            sum += value;
            for (size_t subset = 0; subset < (size_t)1 << i; ++subset)
                entry[subset + ((size_t)1 << i)] = (uint16_t)(entry[subset] + value);
        }
    }
    return sum;
}

static uint32_t look_up(size_t words, const uint32_t *weights, const table *tables) {
    uint32_t sum = 0;
    for (size_t word = 0; word < words; ++word, tables += GROUPS_A_WORD) {
        const uint32_t bits = weights[word];
        for (int group = 0; group < GROUPS_A_WORD; ++group)
            sum += tables[group][bits >> (GROUP * group) & (SUBSETS - 1)];
    }
    return sum;
}

/* Columns [n, n + width) of one row of the output. */
static void apply_epilogue(const onebit_epilogue *epilogue, void *row, size_t n, size_t width,
                           const int32_t *v) {
    uint32_t word = 0;
    for (size_t j = 0; j < width; ++j) {
        if (epilogue->kind == ONEBIT_EPILOGUE_I32)
            ((int32_t *)row)[n + j] = v[j];
        else if (epilogue->kind == ONEBIT_EPILOGUE_F32)
            ((float *)row)[n + j] =
                __builtin_fmaf((float)v[j], epilogue->scale[n + j], epilogue->bias[n + j]);
        else
            word |= (uint32_t)(v[j] >= epilogue->threshold[n + j]) << j;
    }
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS)
        ((uint32_t *)row)[n / BLOCK] = (word ^ epilogue->flip[n / BLOCK]) & onebit_tail_mask(width);
}

static void run(const onebit_gemm_args *args) {
    const size_t words = onebit_words(args->k);
    const int32_t *rowsum = args->weights;
    const uint32_t *weights = (const uint32_t *)(rowsum + args->n);
    const uint32_t multiplier = (uint32_t)args->multiplier, offset = (uint32_t)args->offset;
    table *tables = args->scratch;
    int32_t v[BLOCK];
    for (size_t m = 0; m < args->m; ++m) {
        const uint8_t *x = (const uint8_t *)args->a + m * args->a_stride;
        unsigned char *row = (unsigned char *)args->out + m * args->out_stride;
        const uint32_t sum = build_tables(args->k, x, tables);
        for (size_t n = args->n_begin; n < args->n_end; n += BLOCK) {
            const size_t width = args->n_end - n < BLOCK ? args->n_end - n : BLOCK;
            for (size_t j = 0; j < width; ++j) {
                const uint32_t dot = 2 * look_up(words, weights + (n + j) * words, tables) - sum;
                v[j] = (int32_t)(multiplier * dot + offset * (uint32_t)rowsum[n + j]);
            }
            apply_epilogue(args->epilogue, row, n, width, v);
        }
    }
}

const onebit_gemm_variant onebit_u8_gemm_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "u8_gemm/generic",
    .m_tile = 1,
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
