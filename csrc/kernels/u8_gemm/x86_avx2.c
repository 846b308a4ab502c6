/* AVX2: tables in byte shuffles. An input is 16 h + l; for every four inputs the sums of all 16 subsets of
 * the l and of the h are two tables of 16 bytes, and vpshufb looks up 32 columns at once.
 *
 * Ranges: S = sum of the inputs whose weight is +1. Four look-ups of at most 4 * 15 make a byte of at most
 * 240; vpmaddubsw joins the two bytes to l + 16 h <= 4080 for a step of 16 inputs; WIDEN = 16 steps make at
 * most 65280 < 2^16, and then the lane moves to 32 bits. dot = 2 S - sum(x); modulo 2^32 from there.
 *
 * packed: rowsum int32[32 a block], then [block of 32 columns][step of 16 inputs][2][32] bytes of 8 inputs.
 * The columns of a block are ordered so that unpacking twice leaves them in fours of 8 in order. */
#include <immintrin.h>
#include <string.h>

#include "base/bits.h"
#include "kernels/u8_gemm/u8_gemm.h"

enum {
    BLOCK = 32,
    STEP = 16,
    STEP_BYTES = 2 * BLOCK,
    WIDEN = 16,
    ROWS = 4,
    TABLES = 8,
    LANES = 8,
    QUARTERS = 4
};

#define INLINE static inline __attribute__((always_inline))

/* The eight tables of a step: l of inputs 0..3, 4..7, 8..11, 12..15, then h of the same. */
typedef struct {
    __m128i of[TABLES];
} step_tables;

static size_t steps_of(size_t k) {
    return (k + STEP - 1) / STEP;
}

static size_t blocks_of(size_t n) {
    return (n + BLOCK - 1) / BLOCK;
}

static size_t packed_size(size_t n, size_t k) {
    return blocks_of(n) * (BLOCK * sizeof(int32_t) + steps_of(k) * STEP_BYTES);
}

/* The byte of column c: unpacking bytes splits 8 and 8 of a 128-bit half, taking halves of words evens and
 * odds. */
static size_t byte_of(size_t column) {
    const size_t quarter = column / LANES, lane = column % LANES;
    return lane / 4 * 16 + quarter / 2 * 8 + lane % 4 * 2 + quarter % 2;
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    const uint32_t *words = weights;
    const size_t stride = onebit_words(k), steps = steps_of(k);
    int32_t *rowsum = packed;
    memset(packed, 0, packed_size(n, k));
    for (size_t row = 0; row < n; ++row, words += stride) {
        uint8_t *to = (uint8_t *)(rowsum + blocks_of(n) * BLOCK) + row / BLOCK * steps * STEP_BYTES;
        int64_t ones = 0;
        for (size_t word = 0; word < stride; ++word)
            ones += onebit_popcount32(words[word]);
        rowsum[row] = (int32_t)(2 * ones - (int64_t)k);
        for (size_t eight = 0; eight < 2 * steps; ++eight)
            to[eight * BLOCK + byte_of(row % BLOCK)] = (uint8_t)(words[eight / 4] >> 8 * (eight % 4));
    }
}

static size_t tables_size(size_t m, size_t k) {
    return (m < ROWS ? m : ROWS) * steps_of(k) * sizeof(step_tables);
}

/* scratch: the tables [row][listed step], then the list of steps. */
static size_t scratch_size(size_t m, size_t k) {
    return tables_size(m, k) + steps_of(k) * sizeof(uint32_t);
}

/* Inputs beyond k count as 0. */
INLINE __m128i step_inputs(size_t k, const uint8_t *x, size_t step) {
    const size_t left = k - step * STEP;
    uint8_t last[STEP] = {0};
    if (left >= STEP)
        return _mm_loadu_si128((const __m128i *)(x + step * STEP));
    return _mm_loadu_si128(memcpy(last, x + step * STEP, left));
}

/* Lists the steps in which any row has an input other than 0: only these add to S. Images have many others.
 */
static size_t list_steps(size_t k, size_t rows, const uint8_t *x, size_t stride, uint32_t *list) {
    size_t listed = 0;
    for (size_t step = 0; step < steps_of(k); ++step) {
        __m128i any = step_inputs(k, x, step);
        for (size_t row = 1; row < rows; ++row)
            any = _mm_or_si128(any, step_inputs(k, x + row * stride, step));
        list[listed] = (uint32_t)step;
        listed += !_mm_testz_si128(any, any);
    }
    return listed;
}

/* Byte j of the result: the sum of values[i] over the bits i of j. */
INLINE __m128i subset_sums(const uint8_t *values) {
    const __m128i byte = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m128i sum = _mm_setzero_si128();
    for (int i = 0; i < 4; ++i) {
        const __m128i bit = _mm_set1_epi8((char)(1 << i));
        const __m128i chosen = _mm_cmpeq_epi8(_mm_and_si128(byte, bit), bit);
        sum = _mm_add_epi8(sum, _mm_and_si128(chosen, _mm_set1_epi8((char)values[i])));
    }
    return sum;
}

/* Writes the tables of one row and returns the sum of its inputs. */
static uint32_t build_tables(size_t k, const uint8_t *x, size_t listed, const uint32_t *list,
                             step_tables *tables) {
    const __m128i low = _mm_set1_epi8(15);
    __m128i sum = _mm_setzero_si128();
    for (size_t i = 0; i < listed; ++i) {
        const __m128i inputs = step_inputs(k, x, list[i]);
        uint8_t nibbles[2 * STEP];
        _mm_storeu_si128((__m128i *)nibbles, _mm_and_si128(inputs, low));
        _mm_storeu_si128((__m128i *)(nibbles + STEP), _mm_and_si128(_mm_srli_epi16(inputs, 4), low));
        sum = _mm_add_epi64(sum, _mm_sad_epu8(inputs, _mm_setzero_si128()));
        for (size_t table = 0; table < TABLES; ++table)
            tables[i].of[table] = subset_sums(nibbles + 4 * table);
    }
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)));
}

/* The inputs of up to ROWS rows, ready to be looked up. */
typedef struct {
    size_t steps, listed;
    const uint32_t *list;
    const step_tables *tables;
    uint32_t sums[ROWS];
} inputs;

/* Four look-ups of the l (first = 0) or of the h (first = 4) of a step. */
INLINE __m256i look_up(const step_tables *tables, int first, const __m256i *index) {
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
        const __m256i table = _mm256_broadcastsi128_si256(tables->of[first + i]);
        sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(table, index[i]));
    }
    return sum;
}

/* Adds the listed steps [begin, end), at most WIDEN of them, to S of `rows` rows of one block:
 * sums[row][quarter] is 8 columns of 32 bits. */
INLINE void add_steps(int rows, const inputs *x, size_t begin, size_t end, const uint8_t *weights,
                      __m256i (*sums)[QUARTERS]) {
    const __m256i nibble = _mm256_set1_epi8(15), join = _mm256_set1_epi16(16 << 8 | 1);
    const __m256i low_half = _mm256_set1_epi32(0xFFFF);
    __m256i narrow[ROWS][2];
    for (int row = 0; row < rows; ++row)
        narrow[row][0] = narrow[row][1] = _mm256_setzero_si256();
    for (size_t i = begin; i < end; ++i) {
        const __m256i *step = (const __m256i *)(weights + x->list[i] * (size_t)STEP_BYTES);
        const __m256i index[4] = {
            _mm256_and_si256(step[0], nibble), _mm256_and_si256(_mm256_srli_epi16(step[0], 4), nibble),
            _mm256_and_si256(step[1], nibble), _mm256_and_si256(_mm256_srli_epi16(step[1], 4), nibble)};
#pragma GCC unroll 4
        for (int row = 0; row < rows; ++row) {
            const step_tables *tables = x->tables + (size_t)row * x->listed + i;
            const __m256i l = look_up(tables, 0, index), h = look_up(tables, 4, index);
            const __m256i first = _mm256_maddubs_epi16(_mm256_unpacklo_epi8(l, h), join);
            const __m256i second = _mm256_maddubs_epi16(_mm256_unpackhi_epi8(l, h), join);
            narrow[row][0] = _mm256_add_epi16(narrow[row][0], first);
            narrow[row][1] = _mm256_add_epi16(narrow[row][1], second);
        }
    }
    for (int row = 0; row < rows; ++row)
        for (int half = 0; half < 2; ++half) {
            __m256i *wide = sums[row] + 2 * half;
            wide[0] = _mm256_add_epi32(wide[0], _mm256_and_si256(narrow[row][half], low_half));
            wide[1] = _mm256_add_epi32(wide[1], _mm256_srli_epi32(narrow[row][half], 16));
        }
}

/* Eight columns from n on, of which the mask has those that exist. Returns the compare for BITS. */
INLINE uint32_t store_quarter(const onebit_epilogue *epilogue, void *row, size_t n, __m256i mask, __m256i v) {
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS) {
        const __m256i threshold = _mm256_maskload_epi32(epilogue->threshold + n, mask);
        const __m256i below = _mm256_cmpgt_epi32(threshold, v);
        return ~(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(below)) & 0xFF;
    }
    if (epilogue->kind == ONEBIT_EPILOGUE_I32) {
        _mm256_maskstore_epi32((int32_t *)row + n, mask, v);
        return 0;
    }
    const __m256 scale = _mm256_maskload_ps(epilogue->scale + n, mask);
    const __m256 bias = _mm256_maskload_ps(epilogue->bias + n, mask);
    _mm256_maskstore_ps((float *)row + n, mask, _mm256_fmadd_ps(_mm256_cvtepi32_ps(v), scale, bias));
    return 0;
}

/* One block of one row: v = 2 multiplier S + (offset rowsum - multiplier sum(x)), then the epilogue. */
INLINE void apply_epilogue(const onebit_gemm_args *args, size_t m, size_t n, uint32_t sum, const __m256i *s) {
    const int32_t *rowsum = (const int32_t *)args->weights + n;
    unsigned char *row = (unsigned char *)args->out + m * args->out_stride;
    const size_t width = args->n_end - n < BLOCK ? args->n_end - n : BLOCK;
    const __m256i twice = _mm256_set1_epi32((int32_t)(2 * (uint32_t)args->multiplier));
    const __m256i offset = _mm256_set1_epi32(args->offset);
    const __m256i minus = _mm256_set1_epi32((int32_t)((uint32_t)args->multiplier * sum));
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    uint32_t word = 0;
    for (int quarter = 0; quarter < QUARTERS; ++quarter) {
        const int first = LANES * quarter;
        const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)width - first), lane);
        const __m256i sums = _mm256_load_si256((const __m256i *)(rowsum + first));
        const __m256i constant = _mm256_sub_epi32(_mm256_mullo_epi32(offset, sums), minus);
        const __m256i v = _mm256_add_epi32(_mm256_mullo_epi32(twice, s[quarter]), constant);
        word |= store_quarter(args->epilogue, row, n + (size_t)first, mask, v) << first;
    }
    if (args->epilogue->kind == ONEBIT_EPILOGUE_BITS)
        ((uint32_t *)row)[n / BLOCK] = (word ^ args->epilogue->flip[n / BLOCK]) & onebit_tail_mask(width);
}

/* `rows` rows from m on, over all columns of the call. */
INLINE void run_rows(int rows, const onebit_gemm_args *args, size_t m, const inputs *x) {
    const uint8_t *bytes = (const uint8_t *)((const int32_t *)args->weights + blocks_of(args->n) * BLOCK);
    for (size_t n = args->n_begin; n < args->n_end; n += BLOCK) {
        const uint8_t *weights = bytes + n / BLOCK * x->steps * STEP_BYTES;
        __m256i sums[ROWS][QUARTERS];
        for (int row = 0; row < rows; ++row)
            for (int quarter = 0; quarter < QUARTERS; ++quarter)
                sums[row][quarter] = _mm256_setzero_si256();
        for (size_t begin = 0; begin < x->listed; begin += WIDEN)
            add_steps(rows, x, begin, x->listed - begin < WIDEN ? x->listed : begin + WIDEN, weights, sums);
        for (int row = 0; row < rows; ++row)
            apply_epilogue(args, m + (size_t)row, n, x->sums[row], sums[row]);
    }
}

static void run(const onebit_gemm_args *args) {
    step_tables *tables = args->scratch;
    uint32_t *list = (uint32_t *)((unsigned char *)args->scratch + tables_size(args->m, args->k));
    for (size_t m = 0, rows; m < args->m; m += rows) {
        const size_t left = args->m - m;
        const uint8_t *a = (const uint8_t *)args->a + m * args->a_stride;
        inputs x = {.steps = steps_of(args->k), .list = list, .tables = tables};
        rows = left >= ROWS ? ROWS : left >= 2 ? 2 : 1;
        x.listed = list_steps(args->k, rows, a, args->a_stride, list);
        for (size_t row = 0; row < rows; ++row)
            x.sums[row] =
                build_tables(args->k, a + row * args->a_stride, x.listed, list, tables + row * x.listed);
        if (rows == ROWS)
            run_rows(ROWS, args, m, &x);
        else if (rows == 2)
            run_rows(2, args, m, &x);
        else
            run_rows(1, args, m, &x);
    }
}

const onebit_gemm_variant onebit_u8_gemm_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "u8_gemm/avx2",
    .m_tile = ROWS,
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
