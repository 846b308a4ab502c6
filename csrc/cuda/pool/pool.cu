/* Pools: the largest or the mean of the taps of a window that lie inside the image, and the mean over
 * channels.
 *
 * Images are [batch, height, width, channels]. Output (o, q) reads rows o·stride_h + i·dilation_h − top, i
 * below kernel_h, and columns likewise; each window has a tap inside (the Program's rule).
 *
 * Macro of max_pool: TYPE 0 float32, 1 int32, 2 uint8, 3 words of packed bits (`channels` counts words, the
 * largest is their OR, and flip, if not null, is xored afterwards). Launch: 256 threads, no shared memory,
 * any number of blocks. Range: elements of the output below 2^31. */
#include "cuda/base/bits.cuh"

struct Window {
    int height, width;
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int dilation_h, dilation_w;
    int top, left;
    int out_h, out_w;
};

namespace {

/* The taps along one axis that lie inside: begin … end. */
struct Taps {
    int begin, end;

    /* ceil(distance / step); unsigned, for the sum of the two may be beyond an int32. */
    static __device__ __forceinline__ int steps(int distance, int step) {
        return (static_cast<u32>(distance) + static_cast<u32>(step) - 1) / static_cast<u32>(step);
    }

    __device__ __forceinline__ Taps(int origin, int size, int kernel, int dilation) {
        begin = origin < 0 ? steps(-origin, dilation) : 0;
        end = min(kernel, steps(size - origin, dilation));
    }
};

/* Calls visit(index of the tap's first channel in units of pixels) for each tap inside; returns their number.
 */
template <class Visit> __device__ __forceinline__ int visit_taps(const Window &w, int pixel, Visit visit) {
    const int image = pixel / (w.out_h * w.out_w);
    const int o = pixel / w.out_w % w.out_h;
    const int q = pixel % w.out_w;
    const int row = o * w.stride_h - w.top;
    const int column = q * w.stride_w - w.left;
    const Taps rows(row, w.height, w.kernel_h, w.dilation_h);
    const Taps columns(column, w.width, w.kernel_w, w.dilation_w);
    for (int i = rows.begin; i < rows.end; i++)
        for (int j = columns.begin; j < columns.end; j++)
            visit((static_cast<u64>(image) * w.height + row + i * w.dilation_h) * w.width + column +
                  j * w.dilation_w);
    return (rows.end - rows.begin) * (columns.end - columns.begin);
}

} // namespace

#ifdef TYPE
#if TYPE == 0
using Element = float;
#elif TYPE == 1
using Element = int;
#elif TYPE == 2
using Element = u8;
#else
using Element = u32;
#endif

extern "C" __global__ void __launch_bounds__(256)
    max_pool(const Element *x, Element *out, const u32 *flip, int outputs, int channels, int height,
             int width, int kernel_h, int kernel_w, int stride_h, int stride_w, int dilation_h,
             int dilation_w, int top, int left, int out_h, int out_w) {
    const Window w = {height,     width,      kernel_h, kernel_w, stride_h, stride_w,
                      dilation_h, dilation_w, top,      left,     out_h,    out_w};
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < outputs; i += gridDim.x * blockDim.x) {
        const int pixel = i / channels;
        const int c = i - pixel * channels;
        bool first = true;
        Element best = 0;
        visit_taps(w, pixel, [&](u64 tap) {
            const Element v = x[tap * channels + c];
#if TYPE == 3
            best |= v;
#else
            if (first || v > best || v != v) /* a NaN stays: nothing is larger */
                best = v;
#endif
            first = false;
        });
#if TYPE == 3
        if (flip != nullptr)
            best ^= flip[c];
#endif
        out[i] = best;
    }
}

#else

/* The sum over the taps inside, divided once: by their number, or by kernel_h·kernel_w if include_padding. */
extern "C" __global__ void __launch_bounds__(256)
    mean_pool(const float *x, float *out, int include_padding, int outputs, int channels, int height,
              int width, int kernel_h, int kernel_w, int stride_h, int stride_w, int dilation_h,
              int dilation_w, int top, int left, int out_h, int out_w) {
    const Window w = {height,     width,      kernel_h, kernel_w, stride_h, stride_w,
                      dilation_h, dilation_w, top,      left,     out_h,    out_w};
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < outputs; i += gridDim.x * blockDim.x) {
        const int pixel = i / channels;
        const int c = i - pixel * channels;
        float sum = 0.0f;
        int taps = visit_taps(w, pixel, [&](u64 tap) { sum += x[tap * channels + c]; });
        if (include_padding)
            taps = kernel_h * kernel_w;
        out[i] = sum / static_cast<float>(taps);
    }
}

/* x [rows, channels] → out [rows]: a warp sums a row, then divides once. */
extern "C" __global__ void __launch_bounds__(256)
    channel_mean(const float *x, float *out, int rows, int channels) {
    const int warps = gridDim.x * (blockDim.x / 32);
    for (int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32; row < rows; row += warps) {
        float sum = 0.0f;
        for (int c = lane_id(); c < channels; c += 32)
            sum += x[static_cast<u64>(row) * channels + c];
        for (int mask = 16; mask > 0; mask /= 2)
            sum += __int_as_float(__shfl_xor_sync(0xFFFFFFFFu, __float_as_int(sum), mask));
        if (lane_id() == 0)
            out[row] = sum / static_cast<float>(channels);
    }
}
#endif
