/* A chain of elementwise ops in one pass: numbers are read once, go through every step in registers, and are
 * stored once: as float32, as packed bits by their signs, or as both.
 *
 * Memory is the limit: a float read and one written are 8 bytes, in whose time an SM has some 40 instructions
 * for an element. So the steps are data, not code: all threads take the same branches, the chain, a kernel
 * parameter, is read from the constant bank, and a thread takes four neighbouring channels where their number
 * allows it, which shares indices and branches among them.
 *
 * Macros: TARGET 0 float32 [rows, channels], 1 packed bits [rows, padded_words(channels)], 2 both.
 *         WIDTH 4 if channels is a multiple of 4, else 1: elements a thread takes at a time.
 *         MAX_STEPS of a chain.
 * Launch: 256 threads, no shared memory, any number of blocks (each takes every gridDim.x-th piece).
 * Range: rows·channels and 32·rows·padded_words(channels) below 2^31. */
#include "cuda/base/bits.cuh"
#include "include/onebit_ops.h"

enum Source { F32, I32, U8, BITS }; /* bits count as -1 and +1 */

/* Codes of steps: fma; then each function of one float; then each of two with the number of the chain on the
 * left, and after it the same with that number on the right. */
enum Code { FMA, UNARY, BINARY = UNARY + ONEBIT_UNARY_COUNT };

/* Where the operand of an element comes from: one number, one a channel, one an element, one an element of a
 * sample (the same for every sample), one a row. */
enum Mode { NUMBER, CHANNEL, ELEMENT, SAMPLE, ROW };

struct Step {
    int code;
    int mode;
    const float *a; /* the operand; of FMA the factor */
    const float *b; /* of FMA the summand, in the same mode */
    float x;        /* NUMBER: the operand, the factor, or the first parameter */
    float y;        /* NUMBER: the summand, or the second parameter */
};

struct Chain {
    int source;
    int rows;
    int channels;
    int sample; /* elements of a sample */
    int count;
    int unused;
    Step step[MAX_STEPS];
};

namespace {

struct Numbers {
    float v[WIDTH];
};

__device__ __forceinline__ Numbers load(const float *from) {
#if WIDTH == 4
    const float4 x = *reinterpret_cast<const float4 *>(from);
    return {{x.x, x.y, x.z, x.w}};
#else
    return {{*from}};
#endif
}

__device__ __forceinline__ Numbers same(float x) {
    Numbers n;
#pragma unroll
    for (int i = 0; i < WIDTH; i++)
        n.v[i] = x;
    return n;
}

/* The numbers from element `i` on, which is row·channels + channel. */
__device__ __forceinline__ Numbers read(const Chain &chain, const void *source, u32 i, u32 row, u32 channel) {
    if (chain.source == F32)
        return load(static_cast<const float *>(source) + i);
    Numbers n;
    if (chain.source == I32) {
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            n.v[k] = static_cast<float>(static_cast<const int *>(source)[i + k]);
    } else if (chain.source == U8) {
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            n.v[k] = static_cast<float>(static_cast<const u8 *>(source)[i + k]);
    } else {
        const u32 word = static_cast<const u32 *>(source)[row * padded_words(chain.channels) + channel / 32];
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            n.v[k] = word >> (channel % 32 + k) & 1 ? 1.0f : -1.0f;
    }
    return n;
}

#define ONEBIT_CHOOSE(condition, yes, no) ((condition) ? (yes) : (no))

__device__ __forceinline__ float apply(int code, float v, float first, float second) {
    switch (code) {
#define STEP(NAME, number, name, parameters, value)                                                          \
    case UNARY + ONEBIT_##NAME: {                                                                            \
        [[maybe_unused]] const float x = v, p = first, q = second;                                           \
        return value;                                                                                        \
    }
        ONEBIT_UNARY_OPS(STEP)
#undef STEP
#define STEP(NAME, number, name, value)                                                                      \
    case BINARY + 2 * ONEBIT_##NAME: {                                                                       \
        const float a = v, b = first;                                                                        \
        return value;                                                                                        \
    }                                                                                                        \
    case BINARY + 2 * ONEBIT_##NAME + 1: {                                                                   \
        const float a = first, b = v;                                                                        \
        return value;                                                                                        \
    }
        ONEBIT_BINARY_OPS(STEP)
#undef STEP
    default: /* FMA */
        return fmaf(v, first, second);
    }
}

/* What the chain makes of the numbers from element `i` on. */
__device__ __forceinline__ Numbers run(const Chain &chain, const void *source, u32 i, u32 row, u32 channel) {
    Numbers n = read(chain, source, i, row, channel);
    for (int s = 0; s < chain.count; s++) {
        const Step &step = chain.step[s];
        Numbers a = same(step.x);
        Numbers b = same(step.y);
        if (step.mode == ROW) {
            a = same(step.a[row]);
        } else if (step.mode != NUMBER) {
            const u32 at = step.mode == CHANNEL ? channel : step.mode == ELEMENT ? i : i % chain.sample;
            a = load(step.a + at);
            if (step.b != nullptr)
                b = load(step.b + at);
        }
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            n.v[k] = apply(step.code, n.v[k], a.v[k], b.v[k]);
    }
    return n;
}

#if TARGET != 1
__device__ __forceinline__ void store(float *out, const Numbers &n) {
#if WIDTH == 4
    *reinterpret_cast<float4 *>(out) = make_float4(n.v[0], n.v[1], n.v[2], n.v[3]);
#else
    *out = n.v[0];
#endif
}
#endif

#if TARGET != 0
constexpr int LANES_A_WORD = 32 / WIDTH;

/* The word that the bits of a group of LANES_A_WORD lanes make, WIDTH bits from each. All lanes call it. */
__device__ __forceinline__ u32 word_of(u32 bits) {
    bits <<= lane_id() % LANES_A_WORD * WIDTH;
#pragma unroll
    for (int mask = 1; mask < LANES_A_WORD; mask *= 2)
        bits |= __shfl_xor_sync(0xFFFFFFFFu, bits, mask);
    return bits;
}
#endif

} // namespace

#if TARGET == 0
extern "C" __global__ void __launch_bounds__(256)
    chain(const void *source, float *out, const __grid_constant__ Chain chain) {
    const u32 pieces = static_cast<u32>(chain.rows) * chain.channels / WIDTH;
    for (u32 p = blockIdx.x * blockDim.x + threadIdx.x; p < pieces; p += gridDim.x * blockDim.x) {
        const u32 i = p * WIDTH;
        const u32 row = i / chain.channels;
        store(out + i, run(chain, source, i, row, i - row * chain.channels));
    }
}
#else
/* A group of lanes makes a word; that of a row's last word also clears the words of padding behind it. */
extern "C" __global__ void __launch_bounds__(256)
    chain(const void *source, float *out, u32 *bits, const __grid_constant__ Chain chain) {
    const u32 stride = padded_words(chain.channels);
    const u32 row_words = ceil_div(chain.channels, 32);
    const u32 words = chain.rows * row_words;
    const u32 step = gridDim.x * (blockDim.x / LANES_A_WORD);
    const u32 group = lane_id() / LANES_A_WORD;
    const u32 lane = lane_id() % LANES_A_WORD;
    /* The bound is the same for all lanes of a warp: they meet in word_of. */
    for (u32 w = (blockIdx.x * blockDim.x + threadIdx.x) / LANES_A_WORD; w - group < words; w += step) {
        const u32 row = w / row_words;
        const u32 at = w - row * row_words;
        const u32 channel = at * 32 + lane * WIDTH;
        const bool inside = w < words && channel < chain.channels;
        u32 positive = 0;
        if (inside) {
            const u32 i = row * chain.channels + channel;
            const Numbers n = run(chain, source, i, row, channel);
#pragma unroll
            for (int k = 0; k < WIDTH; k++)
                positive |= static_cast<u32>(n.v[k] >= 0.0f) << k;
#if TARGET == 2
            store(out + i, n);
#endif
        }
        const u32 word = word_of(positive);
        if (w < words && lane == 0) {
            u32 *const to = bits + row * stride + at;
            *to = word;
            for (u32 k = 1; at + 1 == row_words && k < stride - at; k++)
                to[k] = 0;
        }
    }
}
#endif
