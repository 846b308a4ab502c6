/* Between numbers and packed bits, where no product or chain does it on the way. No macros.
 *
 * Launch: 256 threads, no shared memory, any number of blocks (each takes every gridDim.x-th piece).
 * Range: 32·rows·padded_words(channels) below 2^31. */
#include "cuda/base/bits.cuh"

/* in [rows, channels] → out [rows, padded_words(channels)]: (in >= thresholds[channel]) xor flip[channel]. */
extern "C" __global__ void __launch_bounds__(256)
    threshold(const int *in, const int *thresholds, const u32 *flip, u32 *out, int rows, int channels) {
    const u32 stride = padded_words(channels);
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 w = (blockIdx.x * blockDim.x + threadIdx.x) / 32; w < rows * stride; w += warps) {
        const int row = w / stride;
        const int at = w - row * stride;
        const int channel = at * 32 + lane_id();
        const bool inside = channel < channels;
        const u32 word =
            __ballot_sync(0xFFFFFFFFu, inside && in[row * channels + channel] >= thresholds[channel]);
        if (lane_id() == 0) /* flip has words(channels) words */
            out[w] = at * 32 < channels ? word ^ flip[at] : 0;
    }
}

/* bits [rows, padded_words(channels)] → out [rows, channels]: -1 and +1. */
extern "C" __global__ void __launch_bounds__(256)
    unpack(const u32 *bits, signed char *out, int rows, int channels) {
    const u32 stride = padded_words(channels);
    const u32 elements = static_cast<u32>(rows) * channels;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < elements; i += gridDim.x * blockDim.x) {
        const u32 row = i / channels;
        const u32 channel = i - row * channels;
        out[i] = bits[row * stride + channel / 32] >> channel % 32 & 1 ? 1 : -1;
    }
}

/* in [rows, channels] of -1 and +1 → out [rows, padded_words(channels)]; anything else among them sets
 * *wrong. */
extern "C" __global__ void __launch_bounds__(256)
    pack(const signed char *in, u32 *out, int *wrong, int rows, int channels) {
    const u32 stride = padded_words(channels);
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 w = (blockIdx.x * blockDim.x + threadIdx.x) / 32; w < rows * stride; w += warps) {
        const int row = w / stride;
        const int channel = (w - row * stride) * 32 + lane_id();
        const int x = channel < channels ? in[row * channels + channel] : -1;
        const u32 word = __ballot_sync(0xFFFFFFFFu, x > 0);
        if (lane_id() == 0)
            out[w] = word;
        if (x != 1 && x != -1)
            atomicAdd(wrong, 1);
    }
}

/* A NaN among x [elements] sets *wrong. */
extern "C" __global__ void __launch_bounds__(256) find_nan(const float *x, int *wrong, u64 elements) {
    bool found = false;
    for (u64 i = blockIdx.x * blockDim.x + threadIdx.x; i < elements; i += gridDim.x * blockDim.x)
        found = found || x[i] != x[i];
    if (found)
        atomicAdd(wrong, 1);
}
