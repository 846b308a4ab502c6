/* AVX-512: tables in registers. Sixteen weights of a column are one 16-bit lane, read as 6 + 5 + 5 bits; for
 * every sixteen inputs of a row, the sums of all subsets of the first 6, the next 5 and the last 5 are held
 * in 2 + 1 + 1 registers, and one vpermi2w and two vpermw look them up for 32 columns: three permutes and
 * three additions for 512 products.
 *
 * Ranges: S = sum of the inputs whose weight is +1. 16 inputs add at most 16 * 255 = 4080 to a lane; WIDEN =
 * 16 steps make at most 65280 < 2^16, and then the lane moves to 32 bits. dot = 2 S - sum(x); modulo 2^32
 * from there.
 *
 * packed: rowsum int32[32 a block], then [block of 32 columns][step of 16 inputs][32 lanes] of 16 bits. Lane
 * 2i holds column i and lane 2i + 1 column 16 + i of its block, so that the low halves of the 32-bit lanes
 * are columns 0..15 in order, and the high halves columns 16..31. */
#include <immintrin.h>
#include <string.h>

#include "base/bits.h"
#include "kernels/u8_gemm/u8_gemm.h"

#include "kernels/avx512_masks.inc"

enum { BLOCK = 32, STEP = 16, WIDEN = 16, ROWS = 2, BLOCKS = 4, TABLES = 4 };

#define INLINE           static inline __attribute__((always_inline))
/* Keeps the order of the source: left alone, GCC loads one operand many times and spills others. */
#define IN_ORDER(vector) __asm__ volatile("" : "+v"(vector))

static size_t steps_of(size_t k) {
    return (k + STEP - 1) / STEP;
}

static size_t blocks_of(size_t n) {
    return (n + BLOCK - 1) / BLOCK;
}

static size_t packed_size(size_t n, size_t k) {
    return blocks_of(n) * (BLOCK * sizeof(int32_t) + steps_of(k) * sizeof(__m512i));
}

static void prepack(size_t n, size_t k, const void *weights, void *packed) {
    const uint32_t *words = weights;
    const size_t stride = onebit_words(k), steps = steps_of(k), padded = blocks_of(n) * BLOCK;
    int32_t *rowsum = packed;
    uint16_t *lanes = (uint16_t *)(rowsum + padded);
    memset(packed, 0, packed_size(n, k));
    for (size_t row = 0; row < n; ++row) {
        const size_t column = row % BLOCK, lane = column < BLOCK / 2 ? 2 * column : 2 * column - BLOCK + 1;
        uint16_t *to = lanes + row / BLOCK * steps * BLOCK + lane;
        int64_t ones = 0;
        for (size_t word = 0; word < stride; ++word)
            ones += onebit_popcount32(words[row * stride + word]);
        rowsum[row] = (int32_t)(2 * ones - (int64_t)k);
        for (size_t step = 0; step < steps; ++step)
            to[step * BLOCK] = (uint16_t)(words[row * stride + step / 2] >> 16 * (step % 2));
    }
}

static size_t tables_size(size_t m, size_t k) {
    return (m < ROWS ? m : ROWS) * steps_of(k) * TABLES * sizeof(__m512i);
}

/* scratch: the tables [row][listed step][4], then the list of steps. */
static size_t scratch_size(size_t m, size_t k) {
    return tables_size(m, k) + steps_of(k) * sizeof(uint32_t);
}

INLINE __m512i pair(const uint8_t *x) {
    int16_t both;
    memcpy(&both, x, sizeof both);
    return _mm512_set1_epi16(both);
}

/* Lane j: the sum of x[i] over the bits i < 5 of j. Pairs of inputs times pairs of bits, at most 510 each. */
INLINE __m512i subset_sums(const uint8_t *x) {
    const __m512i lane = _mm512_add_epi16(
        _mm512_broadcast_i64x4(_mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
        _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1));
    const __m512i one = _mm512_set1_epi16(1), high = _mm512_set1_epi16(0x100);
    const __m512i bits01 =
        _mm512_or_si512(_mm512_and_si512(lane, one), _mm512_and_si512(_mm512_slli_epi16(lane, 7), high));
    const __m512i bits23 = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(lane, 2), one),
                                           _mm512_and_si512(_mm512_slli_epi16(lane, 5), high));
    const __m512i bit4 = _mm512_srli_epi16(lane, 4);
    const __m512i sum =
        _mm512_add_epi16(_mm512_maddubs_epi16(pair(x), bits01), _mm512_maddubs_epi16(pair(x + 2), bits23));
    return _mm512_add_epi16(sum, _mm512_maddubs_epi16(_mm512_set1_epi16(x[4]), bit4));
}

INLINE __m128i step_inputs(size_t k, const uint8_t *x, size_t step) {
    const size_t left = k - step * STEP;
    return _mm_maskz_loadu_epi8(left < STEP ? (__mmask16)((1 << left) - 1) : 0xFFFF, x + step * STEP);
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

/* Writes the tables of one row and returns the sum of its inputs. Inputs beyond k count as 0. */
static uint32_t build_tables(size_t k, const uint8_t *x, size_t listed, const uint32_t *list,
                             __m512i *tables) {
    __m128i sum = _mm_setzero_si128();
    for (size_t i = 0; i < listed; ++i, tables += TABLES) {
        uint8_t from[STEP];
        const __m128i inputs = step_inputs(k, x, list[i]);
        sum = _mm_add_epi64(sum, _mm_sad_epu8(inputs, _mm_setzero_si128()));
        _mm_storeu_si128((__m128i *)from, inputs);
        tables[0] = subset_sums(from);
        tables[1] = _mm512_add_epi16(tables[0], _mm512_set1_epi16(from[5]));
        tables[2] = subset_sums(from + 6);
        tables[3] = subset_sums(from + 11);
    }
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)));
}

/* The inputs of up to ROWS rows, ready to be looked up. */
typedef struct {
    size_t steps, listed;
    const uint32_t *list;
    const __m512i *tables;
    uint32_t sums[ROWS];
} inputs;

/* Adds the listed steps [begin, end), at most WIDEN of them, to S of `rows` rows and `blocks` blocks:
 * sums[row][block][columns 0..15, columns 16..31], 32-bit lanes. */
INLINE void look_up(int rows, int blocks, const inputs *x, size_t begin, size_t end, const __m512i *weights,
                    __m512i (*sums)[BLOCKS][2]) {
    __m512i narrow[ROWS][BLOCKS];
    for (int row = 0; row < rows; ++row)
        for (int block = 0; block < blocks; ++block)
            narrow[row][block] = _mm512_setzero_si512();
    for (size_t i = begin; i < end; ++i) {
        const __m512i *step = weights + x->list[i];
#pragma GCC unroll 8
        for (int block = 0; block < blocks; ++block) {
            __m512i first = step[(size_t)block * x->steps];
            IN_ORDER(first);
            const __m512i second = _mm512_srli_epi16(first, 6), third = _mm512_srli_epi16(first, 11);
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row) {
                const __m512i *table = x->tables + ((size_t)row * x->listed + i) * TABLES;
                __m512i sum = _mm512_permutex2var_epi16(table[0], first, table[1]);
                sum = _mm512_add_epi16(sum, _mm512_permutexvar_epi16(second, table[2]));
                narrow[row][block] = _mm512_add_epi16(narrow[row][block], sum);
                sum = _mm512_permutexvar_epi16(third, table[3]);
                narrow[row][block] = _mm512_add_epi16(narrow[row][block], sum);
                IN_ORDER(narrow[row][block]);
            }
        }
    }
    for (int row = 0; row < rows; ++row)
        for (int block = 0; block < blocks; ++block) {
            __m512i *wide = sums[row][block], low_half = _mm512_set1_epi32(0xFFFF);
            wide[0] = _mm512_add_epi32(wide[0], _mm512_and_si512(narrow[row][block], low_half));
            wide[1] = _mm512_add_epi32(wide[1], _mm512_srli_epi32(narrow[row][block], 16));
        }
}

/* Sixteen columns from n on, of which the mask has those that exist. Returns the compare for BITS. */
INLINE uint32_t store_half(const onebit_epilogue *epilogue, void *row, size_t n, __mmask16 mask, __m512i v) {
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS)
        return avx512_mask_bits(
            _mm512_mask_cmpge_epi32_mask(mask, v, _mm512_maskz_loadu_epi32(mask, epilogue->threshold + n)));
    if (epilogue->kind == ONEBIT_EPILOGUE_I32) {
        _mm512_mask_storeu_epi32((int32_t *)row + n, mask, v);
        return 0;
    }
    const __m512 scale = _mm512_maskz_loadu_ps(mask, epilogue->scale + n);
    const __m512 bias = _mm512_maskz_loadu_ps(mask, epilogue->bias + n);
    _mm512_mask_storeu_ps((float *)row + n, mask, _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), scale, bias));
    return 0;
}

/* One block of one row: v = 2 multiplier S + (offset rowsum - multiplier sum(x)), then the epilogue. */
INLINE void apply_epilogue(const onebit_gemm_args *args, size_t m, size_t n, uint32_t sum, const __m512i *s) {
    const int32_t *rowsum = (const int32_t *)args->weights + n;
    unsigned char *row = (unsigned char *)args->out + m * args->out_stride;
    const uint32_t mask = onebit_tail_mask(args->n_end - n < BLOCK ? args->n_end - n : 0);
    const __m512i twice = _mm512_set1_epi32((int32_t)(2 * (uint32_t)args->multiplier));
    const __m512i offset = _mm512_set1_epi32(args->offset);
    const __m512i minus = _mm512_set1_epi32((int32_t)((uint32_t)args->multiplier * sum));
    uint32_t word = 0;
    for (int half = 0; half < 2; ++half) {
        const __m512i sums = _mm512_load_si512(rowsum + 16 * half);
        const __m512i constant = _mm512_sub_epi32(_mm512_mullo_epi32(offset, sums), minus);
        const __m512i v = _mm512_add_epi32(_mm512_mullo_epi32(twice, s[half]), constant);
        const __mmask16 columns = (__mmask16)(mask >> 16 * half);
        word |= store_half(args->epilogue, row, n + (size_t)(16 * half), columns, v) << 16 * half;
    }
    if (args->epilogue->kind == ONEBIT_EPILOGUE_BITS)
        ((uint32_t *)row)[n / BLOCK] = (word ^ args->epilogue->flip[n / BLOCK]) & mask;
}

/* `blocks` blocks from column n on, of the `rows` rows from m on. */
INLINE void run_tile(int rows, int blocks, const onebit_gemm_args *args, size_t m, size_t n,
                     const inputs *x) {
    const __m512i *lanes = (const __m512i *)((const int32_t *)args->weights + blocks_of(args->n) * BLOCK);
    const __m512i *weights = lanes + n / BLOCK * x->steps;
    __m512i sums[ROWS][BLOCKS][2];
    for (int row = 0; row < rows; ++row)
        for (int block = 0; block < blocks; ++block)
            sums[row][block][0] = sums[row][block][1] = _mm512_setzero_si512();
    for (size_t begin = 0; begin < x->listed; begin += WIDEN)
        look_up(rows, blocks, x, begin, x->listed - begin < WIDEN ? x->listed : begin + WIDEN, weights, sums);
    for (int block = 0; block < blocks; ++block, n += BLOCK)
        for (int row = 0; row < rows; ++row)
            apply_epilogue(args, m + (size_t)row, n, x->sums[row], sums[row][block]);
}

INLINE void run_rows(int rows, const onebit_gemm_args *args, size_t m, const inputs *x) {
    size_t n = args->n_begin;
    for (; n < args->n_end && args->n_end - n > (BLOCKS - 1) * BLOCK; n += BLOCKS * BLOCK)
        run_tile(rows, BLOCKS, args, m, n, x);
    for (; n < args->n_end; n += BLOCK)
        run_tile(rows, 1, args, m, n, x);
}

static void run(const onebit_gemm_args *args) {
    __m512i *tables = args->scratch;
    uint32_t *list = (uint32_t *)((unsigned char *)args->scratch + tables_size(args->m, args->k));
    for (size_t m = 0; m < args->m; m += ROWS) {
        const size_t rows = args->m - m < ROWS ? args->m - m : ROWS;
        const uint8_t *a = (const uint8_t *)args->a + m * args->a_stride;
        inputs x = {.steps = steps_of(args->k), .list = list, .tables = tables};
        x.listed = list_steps(args->k, rows, a, args->a_stride, list);
        for (size_t row = 0; row < rows; ++row)
            x.sums[row] = build_tables(args->k, a + row * args->a_stride, x.listed, list,
                                       tables + row * x.listed * TABLES);
        if (rows == ROWS)
            run_rows(ROWS, args, m, &x);
        else
            run_rows(1, args, m, &x);
    }
}

const onebit_gemm_variant onebit_u8_gemm_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "u8_gemm/avx512",
    .m_tile = ROWS,
    .n_tile = BLOCK,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
