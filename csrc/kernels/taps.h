/* Which taps of a window lie inside an image, along one axis. */
#ifndef ONEBIT_KERNELS_TAPS_H
#define ONEBIT_KERNELS_TAPS_H

#include <stddef.h>

/* Taps [begin, end) are inside; none where begin == end. */
typedef struct {
    size_t begin, end;
} onebit_taps;

/* Tap i of output o stands at o * stride + i * dilation - pad, and inside is [0, size). */
static inline onebit_taps onebit_taps_inside(size_t o, size_t stride, size_t pad, size_t dilation,
                                             size_t kernel, size_t size) {
    const size_t start = o * stride, behind = pad + size; /* coordinates of the padded axis */
    onebit_taps taps = {start < pad ? (pad - start + dilation - 1) / dilation : 0, kernel};
    if (start + (kernel - 1) * dilation >=
        behind) /* else no tap is behind: the usual case needs no division */
        taps.end = start < behind ? (behind - start + dilation - 1) / dilation : 0;
    if (taps.begin > taps.end)
        taps.begin = taps.end;
    return taps;
}

#endif
