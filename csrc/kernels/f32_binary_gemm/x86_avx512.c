/* AVX-512: tables in registers. Thirty weights of a column are one 32-bit lane, six groups of five bits. For
 * every five inputs of a row the 32 sums +-x0 +-x1 +-x2 +-x3 +-x4 fill two registers, and one vpermi2ps looks
 * them up for 16 columns: one permute and one addition for 80 products, where fma needs five.
 *
 * packed: [16 columns][word of 30 inputs][16 lanes] of 32 bits. */
#include <immintrin.h>
#include <string.h>

#include "base/bits.h"
#include "kernels/f32_binary_gemm/f32_binary_gemm.h"

enum { BLOCK = 32, LANES = 16, GROUP = 5, GROUPS = 6, WORD = GROUP * GROUPS, ROWS = 2, VECTORS = 8 };

#define INLINE           static inline __attribute__((always_inline))
/* Keeps the order of the source: left alone, GCC does all permutes first and spills what they found. */
#define IN_ORDER(vector) __asm__ volatile("" : "+v"(vector))

static size_t words_of(size_t k) {
    return (k + WORD - 1) / WORD;
}

static size_t packed_size(size_t n, size_t k) {
    return (n + BLOCK - 1) / BLOCK * BLOCK * words_of(k) * sizeof(uint32_t);
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    const uint32_t *rows = weights;
    uint32_t *lanes = packed;
    const size_t words = words_of(k);
    memset(packed, 0, packed_size(n, k));
    for (size_t row = 0; row < n; ++row, rows += onebit_words(k)) {
        uint32_t *to = lanes + row / LANES * words * LANES + row % LANES;
        for (size_t i = 0; i < k; ++i)
            to[i / WORD * LANES] |= (rows[i / 32] >> i % 32 & 1) << i % WORD;
    }
}

static size_t scratch_size(size_t m, size_t k) {
    return (m < ROWS ? m : ROWS) * words_of(k) * GROUPS * 2 * sizeof(__m512);
}

/* x where bit i of the lane's number is 1, else -x. */
INLINE __m512 with_sign(float x, int bit) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i sign =
        _mm512_andnot_si512(_mm512_slli_epi32(lane, (unsigned)(31 - bit)), _mm512_set1_epi32(INT32_MIN));
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(_mm512_set1_ps(x)), sign));
}

/* Two registers a group: the sums with -x[4], then those with +x[4]. Inputs beyond k count as 0. */
static void build_tables(size_t k, const float *x, __m512 *tables) {
    const size_t groups = words_of(k) * GROUPS;
    for (size_t group = 0; group < groups; ++group, tables += 2) {
        float last[GROUP] = {0};
        const float *from = x + group * GROUP;
        if ((group + 1) * GROUP > k) {
            for (size_t i = 0; group * GROUP + i < k; ++i)
                last[i] = from[i];
            from = last;
        }
        const __m512 low = _mm512_add_ps(with_sign(from[0], 0), with_sign(from[1], 1));
        const __m512 high = _mm512_add_ps(with_sign(from[2], 2), with_sign(from[3], 3));
        const __m512 four = _mm512_add_ps(low, high), fifth = _mm512_set1_ps(from[4]);
        tables[0] = _mm512_sub_ps(four, fifth);
        tables[1] = _mm512_add_ps(four, fifth);
    }
}

/* `rows` rows times `vectors` vectors of 16 columns. tables: [row][word][group][2]. */
INLINE void look_up(int rows, int vectors, size_t words, const __m512 *tables, const __m512i *weights,
                    __m512 (*sums)[VECTORS]) {
    __m512 sum[ROWS][VECTORS];
    for (int row = 0; row < rows; ++row)
        for (int vector = 0; vector < vectors; ++vector)
            sum[row][vector] = _mm512_setzero_ps();
    __m512 one = _mm512_set1_ps(1.0f);
    IN_ORDER(one);
    for (size_t word = 0; word < words; ++word) {
#pragma GCC unroll 8
        for (int group = 0; group < GROUPS; ++group) {
#pragma GCC unroll 8
            for (int vector = 0; vector < vectors; ++vector) {
                __m512i index = weights[(size_t)vector * words + word];
                index = _mm512_srli_epi32(index, (unsigned)(GROUP * group));
                IN_ORDER(index);
#pragma GCC unroll 8
                for (int row = 0; row < rows; ++row) {
                    const __m512 *table =
                        tables + (((size_t)row * words + word) * GROUPS + (size_t)group) * 2;
                    const __m512 found = _mm512_permutex2var_ps(table[0], index, table[1]);
                    /* The same sum either way; cores that add and multiply on different ports do more of
                     * both. */
                    if ((row + vector) % 2)
                        sum[row][vector] = _mm512_fmadd_ps(found, one, sum[row][vector]);
                    else
                        sum[row][vector] = _mm512_add_ps(sum[row][vector], found);
                    IN_ORDER(sum[row][vector]);
                }
            }
        }
    }
    for (int row = 0; row < rows; ++row)
        for (int vector = 0; vector < vectors; ++vector)
            sums[row][vector] = sum[row][vector];
}

/* `vectors` vectors of columns from n on, of the `rows` rows from m on. */
INLINE void run_tile(int rows, int vectors, const onebit_gemm_args *args, size_t m, size_t n) {
    const size_t words = words_of(args->k);
    const __m512i *weights = (const __m512i *)args->weights + n / LANES * words;
    __m512 sums[ROWS][VECTORS];
    look_up(rows, vectors, words, args->scratch, weights, sums);
    for (int vector = 0; vector < vectors && n < args->n_end; ++vector, n += LANES) {
        const size_t width = args->n_end - n;
        const __mmask16 mask = width < LANES ? (__mmask16)((1 << width) - 1) : 0xFFFF;
        const __m512 scale = _mm512_maskz_loadu_ps(mask, args->epilogue->scale + n);
        const __m512 bias = _mm512_maskz_loadu_ps(mask, args->epilogue->bias + n);
        for (int row = 0; row < rows; ++row) {
            float *out = (float *)((unsigned char *)args->out + (m + (size_t)row) * args->out_stride) + n;
            _mm512_mask_storeu_ps(out, mask, _mm512_fmadd_ps(sums[row][vector], scale, bias));
        }
    }
}

INLINE void run_rows(int rows, const onebit_gemm_args *args, size_t m) {
    size_t n = args->n_begin;
    for (; n < args->n_end && args->n_end - n > (VECTORS - 2) * LANES; n += VECTORS * LANES)
        run_tile(rows, VECTORS, args, m, n);
    for (; n < args->n_end; n += BLOCK)
        run_tile(rows, BLOCK / LANES, args, m, n);
}

static void run(const onebit_gemm_args *args) {
    const size_t table_size = words_of(args->k) * GROUPS * 2;
    for (size_t m = 0; m < args->m; m += ROWS) {
        const size_t rows = args->m - m < ROWS ? args->m - m : ROWS;
        for (size_t row = 0; row < rows; ++row) {
            const unsigned char *x = (const unsigned char *)args->a + (m + row) * args->a_stride;
            build_tables(args->k, (const float *)x, (__m512 *)args->scratch + row * table_size);
        }
        if (rows == ROWS)
            run_rows(ROWS, args, m);
        else
            run_rows(1, args, m);
    }
}

const onebit_gemm_variant onebit_f32_binary_gemm_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "f32_binary_gemm/avx512",
    .m_tile = ROWS,
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
