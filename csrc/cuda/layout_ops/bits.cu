/* Layout ops on packed bits, where bits cross words. (Whole words, and other types, are copied by PyTorch.)
 *
 * Each word of the output is made by a warp, a bit a lane: the lane finds where its bit comes from. No
 * macros. Launch: 256 threads, no shared memory, any number of blocks. Range: 32·words of input and output
 * below 2^31. */
#include "cuda/base/bits.cuh"

namespace {

__device__ __forceinline__ u32 bit_at(const u32 *bits, int row, int stride, int channel) {
    return bits[row * stride + channel / 32] >> channel % 32 & 1;
}

/* Calls find(row, channel) for each bit of out [rows, padded_words(channels)] and stores the words. */
template <class Find>
__device__ __forceinline__ void make_words(u32 *out, int rows, int channels, Find find) {
    const u32 stride = padded_words(channels);
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 w = (blockIdx.x * blockDim.x + threadIdx.x) / 32; w < rows * stride; w += warps) {
        const int row = w / stride;
        const int channel = (w - row * stride) * 32 + lane_id();
        const u32 word = __ballot_sync(0xFFFFFFFFu, channel < channels && find(row, channel));
        if (lane_id() == 0)
            out[w] = word;
    }
}

} // namespace

/* The same bits in the same order in rows of another length: in [·, from_channels] → out [rows, channels]. */
extern "C" __global__ void __launch_bounds__(256)
    reshape(const u32 *in, u32 *out, int rows, int channels, int from_channels) {
    const int stride = padded_words(from_channels);
    make_words(out, rows, channels, [=](int row, int channel) {
        const int i = row * channels + channel;
        const int from = i / from_channels;
        return bit_at(in, from, stride, i - from * from_channels);
    });
}

/* Axes in another order. `axes` holds, for each axis of the output from the last to the first (below the
 * batch), its size and how far a step along it goes in the input, counted in bits of one sample as if there
 * were no padding. A sample has `sample` bits, in_channels of them a row of the input. */
extern "C" __global__ void __launch_bounds__(256)
    permute(const u32 *in, u32 *out, const int *axes, int rank, int rows, int channels, int in_channels,
            int sample) {
    const int stride = padded_words(in_channels);
    make_words(out, rows, channels, [=](int row, int channel) {
        const int i = row * channels + channel;
        int rest = i % sample;
        int from = i - rest;
        for (int axis = 0; axis < rank; axis++) {
            const int size = axes[2 * axis];
            from += rest % size * axes[2 * axis + 1];
            rest /= size;
        }
        const int from_row = from / in_channels;
        return bit_at(in, from_row, stride, from - from_row * in_channels);
    });
}

/* Puts in [rows, in_channels] into out [rows, channels], the channels from `first` on, and leaves the other
 * bits. A word that two parts share is made by two launches, so the parts must come one after another from
 * the first; the first clears the rows to their end. */
extern "C" __global__ void __launch_bounds__(256)
    place(const u32 *in, u32 *out, int rows, int channels, int in_channels, int first) {
    const u32 stride = padded_words(channels);
    const int from_stride = padded_words(in_channels);
    const u32 begin = first / 32;
    const u32 count = stride - begin; /* words from the first that changes to the end of the row */
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 w = (blockIdx.x * blockDim.x + threadIdx.x) / 32; w < rows * count; w += warps) {
        const int row = w / count;
        const u32 at = row * stride + begin + (w - row * count);
        const int channel = (begin + (w - row * count)) * 32 + lane_id() - first;
        u32 word = __ballot_sync(0xFFFFFFFFu, channel >= 0 && channel < in_channels &&
                                                  bit_at(in, row, from_stride, channel));
        if (lane_id() == 0) {
            if (first % 32 != 0 && w - row * count == 0)
                word |= out[at];
            out[at] = word;
        }
    }
}
