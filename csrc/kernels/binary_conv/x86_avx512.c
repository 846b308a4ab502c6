/* AVX-512 with VPOPCNTDQ: 32-bit lanes run across output channels, activations are broadcast from memory by
 * the xor itself, and nothing is ever summed across lanes.
 *
 * The tile is 14 neighbouring pixels x 32 channels: 28 accumulators, two vectors of weights, two temporaries;
 * three instructions (xor, popcount, add) for 512 multiply-accumulates. 14 divides the widths 56, 28 and 14
 * of the usual networks. With s the bytes from pixel to pixel, pixel p = odd * 2^e is found by the address
 * a + (odd * s) * 2^e, e <= 3: fourteen pixels need one pointer and seven index registers.
 * Range: a lane counts at most kernel_h * kernel_w * channels < 2^29 differing bits.
 *
 * The inner step is inline assembly because compilers hoist the broadcasts or the addresses, run out of
 * registers and spill accumulators. */
#include <immintrin.h>

#include "kernels/binary_conv/driver.h"

#include "kernels/avx512_masks.inc"

enum { N_TILE = 32, LANES = 16, PIXELS = 14 };

/* different = popcount(weights xor broadcast(word at a + index * scale)), added to total unless it is the
 * first; scale is 1, 2, 4 or 8, and a constant. Sanitizers see the reads of intrinsics only. */
#if defined(__SANITIZE_ADDRESS__)
static inline __m512i count(bool first, __m512i total, __m512i weights, const char *a, size_t index,
                            int scale) {
    __m512i word = _mm512_set1_epi32(*(const int *)(const void *)(a + index * (size_t)scale));
    __m512i different = _mm512_popcnt_epi32(_mm512_xor_si512(weights, word));
    return first ? different : _mm512_add_epi32(total, different);
}
#else
/* What the asm may read from a on: any of it. An array of no size would say so, but clang takes none. */
typedef char anything[1 << 30];
#define COUNT(address)                                                                                       \
    do {                                                                                                     \
        if (first)                                                                                           \
            __asm__("vpxord " address "%{1to16%}, %1, %0\n\tvpopcntd %0, %0"                                 \
                    : "=v"(total)                                                                            \
                    : "v"(weights), "v"(weights), "r"(a), "r"(index), "m"(*(const anything *)a));            \
        else                                                                                                 \
            __asm__("vpxord " address "%{1to16%}, %2, %1\n\tvpopcntd %1, %1\n\tvpaddd %1, %0, %0"            \
                    : "+v"(total), "=&v"(different)                                                          \
                    : "v"(weights), "r"(a), "r"(index), "m"(*(const anything *)a));                          \
    } while (0)
static inline __attribute__((always_inline)) __m512i count(bool first, __m512i total, __m512i weights,
                                                           const char *a, size_t index, int scale) {
    __m512i different;
    if (scale == 1)
        COUNT("(%3,%4)");
    else if (scale == 2)
        COUNT("(%3,%4,2)");
    else if (scale == 4)
        COUNT("(%3,%4,4)");
    else
        COUNT("(%3,%4,8)");
    return total;
}
#undef COUNT
#endif

/* One pixel, from the counts of differing bits and the limits that they may reach for a one. */
static inline void store_bits(const int32_t *limits, __m512i low, __m512i high, uint32_t flip, uint32_t live,
                              char *out) {
    uint32_t ones = avx512_mask_pair(_mm512_cmple_epi32_mask(low, _mm512_load_si512(limits)),
                                     _mm512_cmple_epi32_mask(high, _mm512_load_si512(limits + LANES)));
    *(uint32_t *)(void *)out = (ones ^ flip) & live;
}

/* One pixel, from the counts of differing bits. */
static inline void store_numbers(const conv_tile *t, size_t pixel, __m512i low, __m512i high) {
    const onebit_epilogue *epilogue = t->epilogue;
    const size_t n = t->n;
    const int32_t *bases = t->bases + t->classes[pixel];
    const uint32_t live = onebit_tail_mask(t->count);
    char *out = t->out + pixel * t->out_stride;
    const __m512i base0 = _mm512_load_si512(bases), base1 = _mm512_load_si512(bases + LANES);
    const __mmask16 live0 = (__mmask16)live, live1 = (__mmask16)(live >> LANES);
    low = _mm512_sub_epi32(base0, _mm512_slli_epi32(low, 1));
    high = _mm512_sub_epi32(base1, _mm512_slli_epi32(high, 1));
    if (epilogue->kind == ONEBIT_EPILOGUE_F32) {
        const float *scale = epilogue->scale + n, *bias = epilogue->bias + n;
        low =
            _mm512_castps_si512(_mm512_fmadd_ps(_mm512_cvtepi32_ps(low), _mm512_maskz_loadu_ps(live0, scale),
                                                _mm512_maskz_loadu_ps(live0, bias)));
        high = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_cvtepi32_ps(high),
                                                   _mm512_maskz_loadu_ps(live1, scale + LANES),
                                                   _mm512_maskz_loadu_ps(live1, bias + LANES)));
    }
    int32_t *to = (int32_t *)(void *)out + n;
    if (live == UINT32_MAX) {
        _mm512_storeu_si512(to, low);
        _mm512_storeu_si512(to + LANES, high);
    } else {
        _mm512_mask_storeu_epi32(to, live0, low);
        _mm512_mask_storeu_epi32(to + LANES, live1, high);
    }
}

/* Pixel p of a tile and one word of K; p is a constant once inlined, odd[i] = (2 * i + 1) * bytes from pixel
 * to pixel. */
static inline __attribute__((always_inline)) void count_pixel(bool first, size_t p, const char *a,
                                                              const size_t *odd, const __m512i *weights,
                                                              __m512i *low, __m512i *high) {
    const int e = p ? __builtin_ctzl(p) : 0;
    const size_t index = p ? odd[(p >> e) / 2] : 0;
    low[p] = count(first, low[p], weights[0], a, index, 1 << e);
    high[p] = count(first, high[p], weights[1], a, index, 1 << e);
}

/* `pixels` is a constant once inlined. Pixels are finished in between the counts of the last word, so that
 * the compares, which only half of the units can do, do not come in a row. */
static inline __attribute__((always_inline)) void tile(const conv_tile *t, size_t pixels) {
    __m512i low[PIXELS], high[PIXELS], weights[2];
    size_t odd[PIXELS / 2];
#pragma GCC unroll 7
    for (size_t i = 0; i < PIXELS / 2; ++i)
        odd[i] = (2 * i + 1) * t->a_stride;
    const uint32_t *next = t->weights;
    const size_t *offset = t->offsets, *last = offset + t->words - 1;
    const char *a = t->a;
    if (offset == last) {
#pragma GCC unroll 14
        for (size_t p = 0; p < pixels; ++p)
            low[p] = high[p] = _mm512_setzero_si512();
    } else {
        weights[0] = _mm512_load_si512(next), weights[1] = _mm512_load_si512(next + LANES);
#pragma GCC unroll 14
        for (size_t p = 0; p < pixels; ++p)
            count_pixel(true, p, a + *offset, odd, weights, low, high);
        for (++offset, next += N_TILE; offset < last; ++offset, next += N_TILE) {
            weights[0] = _mm512_load_si512(next), weights[1] = _mm512_load_si512(next + LANES);
#pragma GCC unroll 14
            for (size_t p = 0; p < pixels; ++p)
                count_pixel(false, p, a + *offset, odd, weights, low, high);
        }
    }
    weights[0] = _mm512_load_si512(next), weights[1] = _mm512_load_si512(next + LANES);
    a += *offset;
    if (t->epilogue->kind == ONEBIT_EPILOGUE_BITS) {
        const uint32_t flip = t->epilogue->flip[t->n / N_TILE], live = onebit_tail_mask(t->count);
        char *out = t->out + t->n / N_TILE * sizeof(uint32_t);
#pragma GCC unroll 14
        for (size_t p = 0; p < pixels; ++p) {
            count_pixel(false, p, a, odd, weights, low, high);
            store_bits(t->bases + t->classes[p], low[p], high[p], flip, live, out);
            out += t->out_stride;
        }
    } else {
#pragma GCC unroll 14
        for (size_t p = 0; p < pixels; ++p) {
            count_pixel(false, p, a, odd, weights, low, high);
            store_numbers(t, p, low[p], high[p]);
        }
    }
}

#define TILE_OF(pixels)                                                                                      \
    static __attribute__((noinline)) void tile##pixels(const conv_tile *t) {                                 \
        tile(t, pixels);                                                                                     \
    }
TILE_OF(1)
TILE_OF(2)
TILE_OF(3)
TILE_OF(4)
TILE_OF(5)
TILE_OF(6)
TILE_OF(7)
TILE_OF(8)
TILE_OF(9)
TILE_OF(10)
TILE_OF(11)
TILE_OF(12)
TILE_OF(13)
TILE_OF(14)

static void run_tile(const conv_tile *t, size_t pixels) {
    static void (*const tiles[PIXELS + 1])(const conv_tile *) = {NULL,   tile1,  tile2,  tile3,  tile4,
                                                                 tile5,  tile6,  tile7,  tile8,  tile9,
                                                                 tile10, tile11, tile12, tile13, tile14};
    tiles[pixels](t);
}

static const conv_kernel kernel = {
    .n_tile = N_TILE, .pixels = PIXELS, .word_bytes = sizeof(uint32_t), .tile = run_tile};

static size_t packed_size(const onebit_conv_shape *shape) {
    return packed_bytes(shape, N_TILE);
}

static void prepack(const onebit_conv_shape *shape, const void *weights, void *packed) {
    prepack_panels(shape, N_TILE, weights, packed);
}

static size_t scratch_size(const onebit_conv_shape *shape) {
    return conv_scratch_size(&kernel, shape);
}

static void run(const onebit_conv_args *args) {
    conv_run(&kernel, args);
}

const onebit_conv_variant onebit_binary_conv_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "binary_conv/avx512",
    .n_tile = N_TILE,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
