/* NEON counts the bits of bytes: three instructions (eor, cnt, add) for 128 products.
 *
 * The tile is 4 rows x 16 channels, half a panel: 16 byte accumulators, 4 vectors of weights, and a word of
 * activations that is loaded into all lanes. A 32-bit lane is a channel, as in the generic variant.
 *
 * Ranges: a byte gains at most 8 a word, 8 * FLUSH = 248 <= 255; pairs of bytes are at most 496, and a 32-bit
 * total is at most k <= INT32_MAX. */
#include "kernels/binary_gemm/binary_gemm.h"
#include "kernels/binary_gemm/panels.h"

#include <arm_neon.h>
#include <string.h>

enum { M_TILE = 4, VECTORS = 4, LANES = 4, FLUSH = 31 };

static size_t scratch_size(size_t m, size_t k) {
    (void)m, (void)k;
    return 0;
}

/* different[row][lane] = how many bits of the row differ from channel `lane` of the half panel; rows <=
 * M_TILE is a constant once inlined. */
static inline __attribute__((always_inline)) void count(size_t rows, size_t words, const char *a,
                                                        size_t a_stride, const uint32_t *weights,
                                                        uint32x4_t (*different)[VECTORS]) {
    for (size_t row = 0; row < rows; ++row)
        for (size_t i = 0; i < VECTORS; ++i)
            different[row][i] = vdupq_n_u32(0);
    for (size_t word = 0; word < words;) {
        const size_t stop = word + FLUSH < words ? word + FLUSH : words;
        uint8x16_t bytes[M_TILE][VECTORS];
        for (size_t row = 0; row < rows; ++row)
            for (size_t i = 0; i < VECTORS; ++i)
                bytes[row][i] = vdupq_n_u8(0);
        for (; word < stop; ++word) {
            uint8x16_t w[VECTORS];
            for (size_t i = 0; i < VECTORS; ++i)
                w[i] = vreinterpretq_u8_u32(vld1q_u32(weights + word * N_TILE + i * LANES));
            for (size_t row = 0; row < rows; ++row) {
                const uint32_t *x = (const uint32_t *)(const void *)(a + row * a_stride) + word;
                const uint8x16_t all = vreinterpretq_u8_u32(vld1q_dup_u32(x));
                for (size_t i = 0; i < VECTORS; ++i)
                    bytes[row][i] = vaddq_u8(bytes[row][i], vcntq_u8(veorq_u8(all, w[i])));
            }
        }
        for (size_t row = 0; row < rows; ++row)
            for (size_t i = 0; i < VECTORS; ++i)
                different[row][i] = vpadalq_u16(different[row][i], vpaddlq_u8(bytes[row][i]));
    }
}

/* All channels of the panel that begins at n, of one row. */
static inline void store_panel(const onebit_epilogue *epilogue, size_t n, const int32_t *v, char *out) {
    static const uint32_t first_bits[LANES] = {1, 2, 4, 8};
    uint32x4_t bits = vdupq_n_u32(0), lane_bits = vld1q_u32(first_bits);
    for (size_t i = 0; i < N_TILE; i += LANES, lane_bits = vshlq_n_u32(lane_bits, LANES)) {
        const int32x4_t x = vld1q_s32(v + i);
        if (epilogue->kind == ONEBIT_EPILOGUE_I32)
            vst1q_s32((int32_t *)(void *)out + n + i, x);
        else if (epilogue->kind == ONEBIT_EPILOGUE_F32)
            vst1q_f32((float *)(void *)out + n + i,
                      vfmaq_f32(vld1q_f32(epilogue->bias + n + i), vcvtq_f32_s32(x),
                                vld1q_f32(epilogue->scale + n + i)));
        else
            bits =
                vorrq_u32(bits, vandq_u32(vcgeq_s32(x, vld1q_s32(epilogue->threshold + n + i)), lane_bits));
    }
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS)
        ((uint32_t *)(void *)out)[n / N_TILE] = vaddvq_u32(bits) ^ epilogue->flip[n / N_TILE];
}

/* rows x one panel over all of K; `m` and `n` are where it begins. */
static inline __attribute__((always_inline)) void tile(const onebit_gemm_args *args, size_t rows, size_t m,
                                                       size_t n) {
    const size_t words = onebit_words(args->k), left = args->n_end - n;
    const char *a = (const char *)args->a + m * args->a_stride;
    const uint32_t *panel = (const uint32_t *)args->weights + n * words;
    const int32x4_t k = vdupq_n_s32((int32_t)args->k);
    int32_t v[M_TILE][N_TILE];
    for (size_t half = 0; half < N_TILE; half += VECTORS * LANES) {
        uint32x4_t different[M_TILE][VECTORS];
        count(rows, words, a, args->a_stride, panel + half, different);
        for (size_t row = 0; row < rows; ++row)
            for (size_t i = 0; i < VECTORS; ++i)
                vst1q_s32(v[row] + half + i * LANES,
                          vsubq_s32(k, vreinterpretq_s32_u32(vshlq_n_u32(different[row][i], 1))));
    }
    for (size_t row = 0; row < rows; ++row) {
        char *out = (char *)args->out + (m + row) * args->out_stride;
        if (left >= N_TILE)
            store_panel(args->epilogue, n, v[row], out);
        else
            panels_store(args->epilogue, n, left, v[row], out);
    }
}

/* A panel stays in the first-level cache while all rows pass. */
static void run(const onebit_gemm_args *args) {
    for (size_t n = args->n_begin; n < args->n_end; n += N_TILE) {
        size_t m = 0;
        for (; m + M_TILE <= args->m; m += M_TILE)
            tile(args, M_TILE, m, n);
        for (; m < args->m; ++m)
            tile(args, 1, m, n);
    }
}

const onebit_gemm_variant onebit_binary_gemm_neon = {
    .isa = ONEBIT_ISA_NEON,
    .name = "binary_gemm/neon",
    .m_tile = M_TILE,
    .n_tile = N_TILE,
    .packed_size = panels_size,
    .prepack = panels_prepack,
    .scratch_size = scratch_size,
    .run = run,
};
