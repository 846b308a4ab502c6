/* The rows of the matrix that a binary convolution multiplies, taken from the image as they are needed.
 *
 * Row m of that matrix (im2col) is the window of output pixel m: for each tap the packed channels of one
 * pixel, chunks of 16 bytes, tap by tap. It is never stored. Each thread walks along K for a few rows at a
 * time, a chunk a step; taps outside the image give zeros, which add to no count. */
#pragma once

#include "cuda/base/windows.cuh"

namespace {

/* One thread's walk over chunk `first_chunk`, `first_chunk` + A_STEP, … of rows `first_row`, `first_row` +
 * ROWS_A_PASS, …, PASSES of them. */
template <int PASSES, int ROWS_A_PASS, int A_STEP> struct PixelWalk {
    const Windows &windows;
    Corner corner[PASSES]; /* its pixel in chunks of the tensor, from the group's first channel on */
    int passes;            /* rows of these inside the matrix */
    int pixel_chunks;
    int group_chunks;
    int tap_row = 0;
    int tap_column = 0;
    int chunk;

    __device__ __forceinline__ PixelWalk(const Windows &windows, int first_row, int rows, int first_chunk,
                                         int pixel_chunks, int group_chunks, int group)
        : windows(windows), pixel_chunks(pixel_chunks), group_chunks(group_chunks), chunk(first_chunk) {
#pragma unroll
        for (int i = 0; i < PASSES; i++) {
            corner[i] = corner_of(windows, min(first_row + i * ROWS_A_PASS, rows - 1));
            corner[i].pixel = corner[i].pixel * pixel_chunks + group * group_chunks;
        }
        passes = max(0, ceil_div(rows - first_row, ROWS_A_PASS));
        settle();
    }

    /* Calls visit(pass, chunk of the tensor, whether it is inside) for each row, and goes on by a step. */
    template <class Visit> __device__ __forceinline__ void step(Visit visit) {
        const u32 row = static_cast<u32>(tap_row) * windows.dilation_h;
        const u32 column = static_cast<u32>(tap_column) * windows.dilation_w;
        const u32 offset = (row * windows.width + column) * pixel_chunks + chunk;
        const bool taps_left = tap_row < windows.kernel_h;
#pragma unroll
        for (int i = 0; i < PASSES; i++) {
            const bool inside = taps_left && i < passes && is_inside(windows, corner[i], row, column);
            visit(i, inside ? corner[i].pixel + offset : 0u, inside);
        }
        chunk += A_STEP;
        settle();
    }

    /* Brings `chunk` into the range of a tap. */
    __device__ __forceinline__ void settle() {
        while (chunk >= group_chunks) {
            chunk -= group_chunks;
            if (++tap_column == windows.kernel_w) {
                tap_column = 0;
                tap_row++;
            }
        }
    }
};

} // namespace
