/* The windows of a convolution over the images of a batch, NHWC; output pixels are numbered through the
 * batch, image by image and row by row. A tap is a place in the window. */
#pragma once

#include "cuda/base/bits.cuh"

struct Windows {
    int height;
    int width;
    int kernel_h;
    int kernel_w;
    int stride_h;
    int stride_w;
    int dilation_h;
    int dilation_w;
    int top; /* padding above, and */
    int left;
    int out_h;
    int out_w;
};

/* Where the window of an output pixel begins: its tap (0, 0), which may lie outside the image. */
struct Corner {
    int row;
    int column;
    u32 pixel; /* number of the input pixel there within the batch, modulo 2^32 */
};

__device__ __forceinline__ Corner corner_of(const Windows &w, int output) {
    const u32 line = static_cast<u32>(output) / w.out_w;
    const u32 image = line / w.out_h;
    const int row = static_cast<int>(line - image * w.out_h) * w.stride_h - w.top;
    const int column = static_cast<int>(output - line * w.out_w) * w.stride_w - w.left;
    return {row, column, (image * w.height + row) * w.width + column};
}

/* The constants of an output pixel. Which taps lie inside depends on the output's row and column each; pixels
 * with the same taps share a row of constants, and its place is border[row] + border[out_h + column]. */
__device__ __forceinline__ int border_of(const Windows &w, const int *border, int output) {
    const u32 line = static_cast<u32>(output) / w.out_w;
    return __ldg(border + line % w.out_h) + __ldg(border + w.out_h + (output - line * w.out_w));
}

/* Tap (row, column) of the window at a corner, and whether it lies inside the image. In unsigned numbers a
 * place before the first is beyond the last. */
__device__ __forceinline__ bool is_inside(const Windows &w, const Corner &corner, u32 row, u32 column) {
    return corner.row + row < w.height && corner.column + column < w.width;
}

/* The group of a tile's columns. Columns beyond the last one belong to no group: their weights are zeros. */
__device__ __forceinline__ int group_of(int column, int columns, int groups) {
    return groups == 1 ? 0 : min(column / (columns / groups), groups - 1);
}
