/* AVX2: tables in registers. Thirty weights of a column are one 32-bit lane, ten groups of three bits. For
 * every three inputs of a row the 8 sums +-x0 +-x1 +-x2 fill one register, and one vpermps looks them up for
 * 8 columns: one permute and one addition for 24 products, where fma needs three.
 *
 * packed: [8 columns][word of 30 inputs][8 lanes] of 32 bits. */
#include <immintrin.h>
#include <string.h>

#include "base/bits.h"
#include "kernels/f32_binary_gemm/f32_binary_gemm.h"

enum {
    BLOCK = 32,
    LANES = 8,
    GROUP = 3,
    GROUPS = 10,
    WORD = GROUP * GROUPS,
    ROWS = 2,
    VECTORS = BLOCK / LANES
};

#define INLINE           static inline __attribute__((always_inline))
/* Keeps the order of the source: left alone, GCC does all permutes first and spills what they found. */
#define IN_ORDER(vector) __asm__ volatile("" : "+x"(vector))

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
    return (m < ROWS ? m : ROWS) * words_of(k) * GROUPS * sizeof(__m256);
}

/* x where bit `bit` of the lane's number is 1, else -x. */
INLINE __m256 with_sign(float x, int bit) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i set = _mm256_slli_epi32(lane, 31 - bit);
    const __m256i sign = _mm256_andnot_si256(set, _mm256_set1_epi32(INT32_MIN));
    return _mm256_xor_ps(_mm256_set1_ps(x), _mm256_castsi256_ps(sign));
}

/* One register a group. Inputs beyond k count as 0. */
static void build_tables(size_t k, const float *x, __m256 *tables) {
    const size_t groups = words_of(k) * GROUPS;
    for (size_t group = 0; group < groups; ++group) {
        float last[GROUP] = {0};
        const float *from = x + group * GROUP;
        if ((group + 1) * GROUP > k) {
            for (size_t i = 0; group * GROUP + i < k; ++i)
                last[i] = from[i];
            from = last;
        }
        const __m256 two = _mm256_add_ps(with_sign(from[0], 0), with_sign(from[1], 1));
        tables[group] = _mm256_add_ps(two, with_sign(from[2], 2));
    }
}

/* `rows` rows times one block of columns. tables: [row][word][group]. */
INLINE void look_up(int rows, size_t words, const __m256 *tables, const __m256i *weights,
                    __m256 (*sums)[VECTORS]) {
    __m256 sum[ROWS][VECTORS];
    for (int row = 0; row < rows; ++row)
        for (int vector = 0; vector < VECTORS; ++vector)
            sum[row][vector] = _mm256_setzero_ps();
    for (size_t word = 0; word < words; ++word) {
#pragma GCC unroll 16
        for (int group = 0; group < GROUPS; ++group) {
#pragma GCC unroll 4
            for (int vector = 0; vector < VECTORS; ++vector) {
                __m256i index = _mm256_srli_epi32(weights[(size_t)vector * words + word], GROUP * group);
                IN_ORDER(index);
#pragma GCC unroll 2
                for (int row = 0; row < rows; ++row) {
                    const __m256 table = tables[((size_t)row * words + word) * GROUPS + (size_t)group];
                    const __m256 found = _mm256_permutevar8x32_ps(table, index);
                    sum[row][vector] = _mm256_add_ps(sum[row][vector], found);
                    IN_ORDER(sum[row][vector]);
                }
            }
        }
    }
    for (int row = 0; row < rows; ++row)
        for (int vector = 0; vector < VECTORS; ++vector)
            sums[row][vector] = sum[row][vector];
}

/* All columns of the call, of the `rows` rows from m on. */
INLINE void run_rows(int rows, const onebit_gemm_args *args, size_t m) {
    const size_t words = words_of(args->k);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (size_t block = args->n_begin; block < args->n_end; block += BLOCK) {
        const __m256i *weights = (const __m256i *)args->weights + block / LANES * words;
        __m256 sums[ROWS][VECTORS];
        look_up(rows, words, args->scratch, weights, sums);
        size_t n = block;
        for (int vector = 0; vector < VECTORS && n < args->n_end; ++vector, n += LANES) {
            const int left = args->n_end - n < LANES ? (int)(args->n_end - n) : LANES;
            const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane);
            const __m256 scale = _mm256_maskload_ps(args->epilogue->scale + n, mask);
            const __m256 bias = _mm256_maskload_ps(args->epilogue->bias + n, mask);
            for (int row = 0; row < rows; ++row) {
                float *out = (float *)((unsigned char *)args->out + (m + (size_t)row) * args->out_stride) + n;
                _mm256_maskstore_ps(out, mask, _mm256_fmadd_ps(sums[row][vector], scale, bias));
            }
        }
    }
}

static void run(const onebit_gemm_args *args) {
    const size_t table_size = words_of(args->k) * GROUPS;
    for (size_t m = 0; m < args->m; m += ROWS) {
        const size_t rows = args->m - m < ROWS ? args->m - m : ROWS;
        for (size_t row = 0; row < rows; ++row) {
            const unsigned char *x = (const unsigned char *)args->a + (m + row) * args->a_stride;
            build_tables(args->k, (const float *)x, (__m256 *)args->scratch + row * table_size);
        }
        if (rows == ROWS)
            run_rows(ROWS, args, m);
        else
            run_rows(1, args, m);
    }
}

const onebit_gemm_variant onebit_f32_binary_gemm_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "f32_binary_gemm/avx2",
    .m_tile = ROWS,
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
