/* Differing bits are counted by table lookup: kernels/avx2_nibbles.inc says how.
 *
 *   weights   [panel][tap][word][byte of the word][64 channels], a byte holds two nibbles
 *   strip     a byte becomes two, 16 * low nibble and 16 * high nibble: the offsets of their tables
 *
 * The tile is 6 neighbouring pixels x 64 channels: 12 byte accumulators, two vectors of nibbles, two
 * temporaries.
 *
 * Ranges: a byte gains at most 32 a word, 32 * WORD_STEPS = 224 <= 255; it is then added to 16-bit sums,
 * which are added to 32-bit totals after at most SUM_STEPS such additions, 224 * 256 = 57344 <= 65535; a
 * total is at most kernel_h * kernel_w * channels < 2^29. */
#include "kernels/binary_conv/driver.h"

#include <immintrin.h>

#include "kernels/avx2_nibbles.inc"

enum { N_TILE = 64, PIXELS = 6, HALVES = N_TILE / 32, WORD_STEPS = 7, SUM_STEPS = 256 };
enum { WORD_BYTES = sizeof(uint32_t), STRIP_WORD = 2 * WORD_BYTES };

/* counts += differing bits of one nibble of K, for every pixel; a: the offset of the table of the first. */
static inline __attribute__((always_inline)) void count_nibbles(size_t pixels, const char *a, size_t stride,
                                                                __m256i nibbles0, __m256i nibbles1,
                                                                __m256i *counts0, __m256i *counts1) {
#pragma GCC unroll 6
    for (size_t p = 0; p < pixels; ++p)
        step(&counts0[p], &counts1[p], nibbles0, nibbles1, (uint8_t)a[p * stride]);
}

/* sums = counts over `words` <= WORD_STEPS * SUM_STEPS words of K; `pixels` is a constant once inlined. */
static inline __attribute__((always_inline)) void count(size_t pixels, size_t words, const conv_tile *t,
                                                        size_t first, __m256i *sums) {
    const uint8_t *weights = (const uint8_t *)t->weights + first * WORD_BYTES * N_TILE;
    const size_t *offset = t->offsets + first, *end = offset + words, stride = t->a_stride;
    for (bool add = false; offset < end; add = true) {
        const size_t left = (size_t)(end - offset);
        const size_t *stop = offset + (left < WORD_STEPS ? left : WORD_STEPS);
        __m256i counts0[PIXELS], counts1[PIXELS];
#pragma GCC unroll 6
        for (size_t p = 0; p < pixels; ++p)
            counts0[p] = counts1[p] = _mm256_setzero_si256();
        for (; offset < stop; ++offset) {
            const char *a = t->a + *offset, *a_end = a + STRIP_WORD;
            for (; a < a_end; a += 2, weights += N_TILE) {
                const bool tall = pixels > 4;
                count_nibbles(pixels, a, stride, low_nibbles(tall, weights), low_nibbles(tall, weights + 32),
                              counts0, counts1);
                count_nibbles(pixels, a + 1, stride, high_nibbles(tall, weights),
                              high_nibbles(tall, weights + 32), counts0, counts1);
            }
        }
#pragma GCC unroll 6
        for (size_t p = 0; p < pixels; ++p) {
            widen_bytes(counts0[p], add, sums + 4 * p);
            widen_bytes(counts1[p], add, sums + 4 * p + 2);
        }
    }
}

#define COUNT_OF(pixels)                                                                                     \
    static __attribute__((noinline)) void count##pixels(size_t words, const conv_tile *t, size_t first,      \
                                                        __m256i *sums) {                                     \
        count(pixels, words, t, first, sums);                                                                \
    }
COUNT_OF(1)
COUNT_OF(2)
COUNT_OF(3)
COUNT_OF(4)
COUNT_OF(5)
COUNT_OF(6)

typedef void count_function(size_t words, const conv_tile *t, size_t first, __m256i *sums);
static count_function *const counts[PIXELS + 1] = {NULL, count1, count2, count3, count4, count5, count6};

/* 32 channels from n on, of one pixel; only the first `live` are stored. */
static inline void store32(const conv_tile *t, size_t n, size_t live, const int32_t *bases,
                           const int32_t *different, char *out) {
    const onebit_epilogue *epilogue = t->epilogue;
    uint32_t above = 0;
    for (size_t lane = 0; lane < 32; lane += 8) {
        __m256i count = _mm256_load_si256((const __m256i *)(const void *)(different + lane));
        __m256i base = _mm256_load_si256((const __m256i *)(const void *)(bases + lane));
        __m256i *to = (__m256i *)(void *)(out + (n + lane) * sizeof(int32_t));
        if (epilogue->kind == ONEBIT_EPILOGUE_BITS)
            above |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(count, base)))
                     << lane;
        else if (lane + 8 > live)
            break;
        else if (epilogue->kind == ONEBIT_EPILOGUE_I32)
            _mm256_storeu_si256(to, _mm256_sub_epi32(base, _mm256_slli_epi32(count, 1)));
        else
            _mm256_storeu_ps(
                (float *)to,
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(base, _mm256_slli_epi32(count, 1))),
                                _mm256_loadu_ps(epilogue->scale + n + lane),
                                _mm256_loadu_ps(epilogue->bias + n + lane)));
    }
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS) {
        ((uint32_t *)(void *)out)[n / 32] = (~above ^ epilogue->flip[n / 32]) & onebit_tail_mask(live);
        return;
    }
    for (size_t lane = live / 8 * 8; lane < live; ++lane) {
        const int32_t v = bases[lane] - 2 * different[lane];
        if (epilogue->kind == ONEBIT_EPILOGUE_I32)
            ((int32_t *)(void *)out)[n + lane] = v;
        else
            ((float *)(void *)out)[n + lane] =
                fmaf((float)v, epilogue->scale[n + lane], epilogue->bias[n + lane]);
    }
}

static void tile(const conv_tile *t, size_t pixels) {
    _Alignas(32) int32_t totals[PIXELS][N_TILE];
    __m256i sums[PIXELS][2 * HALVES];
    const size_t block = WORD_STEPS * SUM_STEPS;
    for (size_t done = 0; done < t->words; done += block) {
        counts[pixels](t->words - done < block ? t->words - done : block, t, done, sums[0]);
        for (size_t p = 0; p < pixels; ++p)
            for (size_t half = 0; half < HALVES; ++half)
                widen_sums(sums[p] + 2 * half, done > 0, totals[p] + 32 * half);
    }
    for (size_t p = 0; p < pixels; ++p)
        for (size_t first = 0; first < t->count; first += 32)
            store32(t, t->n + first, t->count - first < 32 ? t->count - first : 32,
                    t->bases + t->classes[p] + first, totals[p] + first, t->out + p * t->out_stride);
}

static void store_strip(const uint32_t *from, size_t words, void *to) {
    const uint8_t *bytes = (const uint8_t *)from;
    uint8_t *offsets = to;
    for (size_t byte = 0; byte < words * WORD_BYTES; ++byte) {
        offsets[2 * byte] = (uint8_t)(bytes[byte] << 4);
        offsets[2 * byte + 1] = bytes[byte] & 0xF0;
    }
}

static const conv_kernel kernel = {
    .n_tile = N_TILE, .pixels = PIXELS, .word_bytes = STRIP_WORD, .to_strip = store_strip, .tile = tile};

static size_t packed_size(const onebit_conv_shape *shape) {
    return packed_bytes(shape, N_TILE);
}

static void prepack(const onebit_conv_shape *shape, const void *weights, void *packed) {
    prepack_panels(shape, N_TILE, weights, packed);
    const size_t panels = shape->groups * group_panels(shape, N_TILE), size = panel_size(shape, N_TILE);
    for (size_t panel = 0; panel < panels; ++panel) /* words of channels to bytes of channels */
        for (size_t word = 0; word < sum_words(shape); ++word) {
            uint8_t *to = (uint8_t *)((uint32_t *)packed + panel * size + word * N_TILE);
            uint32_t channels[N_TILE];
            memcpy(channels, to, sizeof channels);
            for (size_t byte = 0; byte < WORD_BYTES; ++byte)
                for (size_t lane = 0; lane < N_TILE; ++lane)
                    to[byte * N_TILE + lane] = (uint8_t)(channels[lane] >> 8 * byte);
        }
}

static size_t scratch_size(const onebit_conv_shape *shape) {
    return conv_scratch_size(&kernel, shape);
}

static void run(const onebit_conv_args *args) {
    conv_run(&kernel, args);
}

const onebit_conv_variant onebit_binary_conv_avx2 = {
    .isa = ONEBIT_ISA_AVX2,
    .name = "binary_conv/avx2",
    .n_tile = N_TILE,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
