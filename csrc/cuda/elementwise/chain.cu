/* A chain of elementwise ops in one pass: numbers are read once, go through every step in registers, and are stored
 * once, as float32 or, by their signs, as packed bits.
 *
 * Memory is the limit: a float read and a float written are 8 bytes, in whose time an SM has some 40 instructions for
 * them. So the steps are data, not code: all threads take the same branches, and the chain, a kernel parameter, is
 * read from the constant bank.
 *
 * Macros: SOURCE 0 float32, 1 int32, 2 uint8, 3 packed bits (which count as -1 and +1).
 *         TARGET 0 float32 [rows, channels], 1 packed bits [rows, padded_words(channels)].
 * Launch: 256 threads, no shared memory, any number of blocks (each takes every gridDim.x-th piece).
 * Range: rows·channels and 32·rows·padded_words(channels) below 2^31 (a flat index fits an int32). */
#include "cuda/base/bits.cuh"

#define SOURCE_F32 0
#define SOURCE_I32 1
#define SOURCE_U8 2
#define SOURCE_BITS 3

enum Code { FMA, ADD, SUBTRACT, SUBTRACT_FROM, MULTIPLY, DIVIDE, DIVIDE_INTO, ABS, RELU, PRELU, CLAMP };

/* Where the operand of an element comes from: one number, one a channel, one an element, one an element of a sample
 * (the same for every sample), one a row. */
enum Mode { NUMBER, CHANNEL, ELEMENT, SAMPLE, ROW };

struct Step {
    int code;
    int mode;
    const float *a; /* the operand; of FMA the factor */
    const float *b; /* of FMA the summand, in the same mode */
    float x;        /* NUMBER: the operand or the factor; CLAMP: the smallest */
    float y;        /* NUMBER: the summand; CLAMP: the largest */
};

constexpr int MAX_STEPS = 12;

struct Chain {
    int rows;
    int channels;
    int sample; /* elements of a sample */
    int count;
    Step step[MAX_STEPS];
};

namespace {

__device__ __forceinline__ float read(const void *source, int i, int row, int channel, int channels) {
#if SOURCE == SOURCE_F32
    return static_cast<const float *>(source)[i];
#elif SOURCE == SOURCE_I32
    return static_cast<float>(static_cast<const int *>(source)[i]);
#elif SOURCE == SOURCE_U8
    return static_cast<float>(static_cast<const u8 *>(source)[i]);
#else
    const u32 word = static_cast<const u32 *>(source)[row * padded_words(channels) + channel / 32];
    return word >> channel % 32 & 1 ? 1.0f : -1.0f;
#endif
}

__device__ __forceinline__ float apply(const Step &step, float v, float a, float b) {
    switch (step.code) {
    case FMA:
        return fmaf(v, a, b);
    case ADD:
        return v + a;
    case SUBTRACT:
        return v - a;
    case SUBTRACT_FROM:
        return a - v;
    case MULTIPLY:
        return v * a;
    case DIVIDE:
        return v / a;
    case DIVIDE_INTO:
        return a / v;
    case ABS:
        return __int_as_float(__float_as_int(v) & 0x7FFFFFFF);
    case RELU:
        return v < 0.0f ? 0.0f : v;
    case PRELU:
        return v >= 0.0f ? v : v * a;
    default:
        return v < step.x ? step.x : v > step.y ? step.y : v;
    }
}

/* The number that the chain makes of element i = row·channels + channel. */
__device__ __forceinline__ float run(const Chain &chain, const void *source, int i, int row, int channel) {
    float v = read(source, i, row, channel, chain.channels);
    for (int s = 0; s < chain.count; s++) {
        const Step &step = chain.step[s];
        float a = step.x;
        float b = step.y;
        if (step.mode != NUMBER) {
            const int at = step.mode == CHANNEL   ? channel
                           : step.mode == ELEMENT ? i
                           : step.mode == SAMPLE  ? i % chain.sample
                                                  : row;
            a = step.a[at];
            b = step.b != nullptr ? step.b[at] : 0.0f;
        }
        v = apply(step, v, a, b);
    }
    return v;
}

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    chain(const void *source, void *out, const __grid_constant__ Chain chain) {
#if TARGET == 0
    const u32 elements = static_cast<u32>(chain.rows) * chain.channels;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < elements; i += gridDim.x * blockDim.x) {
        const u32 row = i / chain.channels;
        static_cast<float *>(out)[i] = run(chain, source, i, row, i - row * chain.channels);
    }
#else
    /* A warp makes a word, a channel a lane. */
    const u32 stride = padded_words(chain.channels);
    const u32 words = chain.rows * stride;
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 w = (blockIdx.x * blockDim.x + threadIdx.x) / 32; w < words; w += warps) {
        const int row = w / stride;
        const int channel = (w - row * stride) * 32 + lane_id();
        bool positive = false;
        if (channel < chain.channels)
            positive = run(chain, source, row * chain.channels + channel, row, channel) >= 0.0f;
        const u32 word = __ballot_sync(0xFFFFFFFFu, positive);
        if (lane_id() == 0)
            static_cast<u32 *>(out)[w] = word;
    }
#endif
}
