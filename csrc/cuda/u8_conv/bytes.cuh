/* The rows of the matrix that a convolution of bytes multiplies, gathered from the image byte by byte.
 *
 * Row m of that matrix (im2col) is the window of output pixel m: for each tap the channels of one pixel, tap
 * by tap, without gaps, zeros for taps outside. A first layer has few channels, 3 or 1, so neither taps nor
 * pixels lie at multiples of anything; but its rows are short, and a tile's are gathered once for all its
 * columns. A matrix product is the convolution of images of one pixel. */
#pragma once

#include "cuda/base/windows.cuh"

namespace {

/* What one thread gathers: 16 bytes a time of rows `first_row`, `first_row` + ROWS_A_PASS, …, PASSES of them.
 */
template <int PASSES, int ROWS_A_PASS> struct ByteGather {
    const Windows &windows;
    const u8 *images;
    Corner corner[PASSES]; /* its pixel in bytes of the tensor, from the group's first channel on */
    int passes;            /* rows of these inside the matrix */
    int channels;
    int group_channels;

    __device__ __forceinline__ ByteGather(const Windows &windows, const u8 *images, int first_row, int rows,
                                          int channels, int group_channels, int group)
        : windows(windows), images(images), channels(channels), group_channels(group_channels) {
#pragma unroll
        for (int i = 0; i < PASSES; i++) {
            corner[i] = corner_of(windows, min(first_row + i * ROWS_A_PASS, rows - 1));
            corner[i].pixel = corner[i].pixel * channels + group * group_channels;
        }
        passes = max(0, ceil_div(rows - first_row, ROWS_A_PASS));
    }

    /* Calls visit(pass, bytes k … k + 15) for each row. */
    template <class Visit> __device__ __forceinline__ void gather(int k, Visit visit) const {
        const int tap = k / group_channels;
        int channel = k - tap * group_channels;
        int tap_row = tap / windows.kernel_w;
        int tap_column = tap - tap_row * windows.kernel_w;
        u32 word[PASSES][4] = {};
#pragma unroll
        for (int byte = 0; byte < 16; byte++) {
            const u32 row = static_cast<u32>(tap_row) * windows.dilation_h;
            const u32 column = static_cast<u32>(tap_column) * windows.dilation_w;
            const u32 offset = (row * windows.width + column) * channels + channel;
#pragma unroll
            for (int i = 0; i < PASSES; i++)
                if (tap_row < windows.kernel_h && i < passes && is_inside(windows, corner[i], row, column))
                    word[i][byte / 4] |= static_cast<u32>(__ldg(images + (corner[i].pixel + offset)))
                                         << 8 * (byte % 4);
            if (++channel == group_channels) {
                channel = 0;
                if (++tap_column == windows.kernel_w) {
                    tap_column = 0;
                    tap_row++;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < PASSES; i++)
            visit(i, make_uint4(word[i][0], word[i][1], word[i][2], word[i][3]));
    }
};

} // namespace
