/* Products of one-bit weights by the definition: a thread an output. For shapes that no fast kernel takes.
 *
 * x [batch, height, width, channels] (packed bits, uint8 or float32), w packed bits [n, kernel_h, kernel_w,
 * channels / groups] with words() words a row, as in a Program → out [batch, out_h, out_w, n], int32 or
 * float32. A matrix product is the convolution of a batch of images of one pixel.
 *
 *   bits   Σ w·x over ±1; a tap outside adds padding_value·w
 *   uint8  Σ w·(multiplier·x + offset) over the taps inside
 *   float  Σ w·x over the taps inside, one float32 sum in the order of the taps
 *
 * Macro: INPUT 0 bits, 1 uint8, 2 float32.
 * Launch: 256 threads, no shared memory, any number of blocks. Range: outputs below 2^31; the Program's rule
 * keeps integer sums within int32. */
#include "cuda/base/bits.cuh"

#if INPUT == 0
using Element = u32;
#elif INPUT == 1
using Element = u8;
#else
using Element = float;
#endif
#if INPUT == 2
using Sum = float;
#else
using Sum = int;
#endif

namespace {

#if INPUT == 0
/* 32 bits of a row from bit `first` on; those beyond the row's last word are zero. */
__device__ __forceinline__ u32 word_from(const u32 *row, int first, int words) {
    const int at = first / 32;
    const u32 low = row[at];
    const u32 high = at + 1 < words ? row[at + 1] : 0;
    return first % 32 == 0 ? low : low >> first % 32 | high << (32 - first % 32);
}

__device__ __forceinline__ u32 mask_of(int bits) {
    return bits >= 32 ? 0xFFFFFFFFu : (1u << bits) - 1;
}
#endif

/* Adds what one tap inside the image gives: `count` channels from `first` on. */
__device__ __forceinline__ Sum add_tap(Sum sum, const Element *pixel, const u32 *weights, int first,
                                       int count, int channels, int multiplier, int offset) {
#if INPUT == 0
    for (int c = 0; c < count; c += 32) {
        const u32 mask = mask_of(count - c);
        const u32 differ = (word_from(pixel, first + c, padded_words(channels)) ^ weights[c / 32]) & mask;
        sum += __popc(mask) - 2 * __popc(differ);
    }
#else
    for (int c = 0; c < count; c++) {
        const bool positive = weights[c / 32] >> c % 32 & 1;
#if INPUT == 1
        const int x = multiplier * static_cast<int>(pixel[first + c]) + offset;
#else
        const float x = pixel[first + c];
#endif
        sum = positive ? sum + x : sum - x;
    }
#endif
    return sum;
}

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    direct(const Element *x, const u32 *weights, Sum *out, int outputs, int height, int width, int channels,
           int n, int groups, int kernel_h, int kernel_w, int stride_h, int stride_w, int dilation_h,
           int dilation_w, int top, int left, int out_h, int out_w, int padding_value, int multiplier,
           int offset) {
    const int count = channels / groups;
    const int words = ceil_div(count, 32);
    const int pixel_elements = INPUT == 0 ? padded_words(channels) : channels;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < outputs; i += gridDim.x * blockDim.x) {
        const int channel = i % n;
        const int pixel = i / n;
        const int image = pixel / (out_h * out_w);
        const int row = pixel / out_w % out_h * stride_h - top;
        const int column = pixel % out_w * stride_w - left;
        const int first = static_cast<int>(static_cast<u64>(channel) * groups / n) * count;
        Sum sum = 0;
        for (int tap = 0; tap < kernel_h * kernel_w; tap++) {
            const int r = row + tap / kernel_w * dilation_h;
            const int c = column + tap % kernel_w * dilation_w;
            const u32 *w = weights + (static_cast<u64>(channel) * kernel_h * kernel_w + tap) * words;
            if (r >= 0 && r < height && c >= 0 && c < width) {
                const u64 at = (static_cast<u64>(image) * height + r) * width + c;
                sum = add_tap(sum, x + at * pixel_elements, w, first, count, channels, multiplier, offset);
            } else if (INPUT == 0 && padding_value != 0) {
                int ones = 0;
                for (int k = 0; k < words; k++)
                    ones += __popc(w[k]);
                sum += padding_value * (2 * ones - count);
            }
        }
        out[i] = sum;
    }
}
