/* Packing to bits, unpacking, and changing the rows of packed bits.
 *
 * Everything is contiguous: [rows][channels] with rows of ceil(channels/32) words for bits. Outputs may not
 * overlap inputs. Padding bits are zero, in inputs and in outputs. Nothing needs more than the alignment of
 * its element. */
#ifndef ONEBIT_KERNELS_PACK_H
#define ONEBIT_KERNELS_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/isa.h"

typedef struct {
    onebit_isa isa;
    const char *name; /* "pack/<isa>" */

    /* bits[r] bit c = x[r][c] >= 0: -0.0 gives 1. A NaN gives 0; callers refuse it before. */
    void (*sign)(size_t rows, size_t channels, const float *x, uint32_t *bits);

    /* The same from planes, x: [images][channels][pixels], to bits: [images][pixels] rows of channels. */
    void (*sign_planes)(size_t images, size_t channels, size_t pixels, const float *x, uint32_t *bits);

    /* out[r][c] = +1 or -1. */
    void (*unpack)(size_t rows, size_t channels, const uint32_t *bits, int8_t *out);

    /* Reshape: each sample's rows * channels bits, in row-major order, become its out_rows rows of
     * out_channels; rows * channels == out_rows * out_channels. */
    void (*repack)(size_t samples, size_t rows, size_t channels, const uint32_t *bits, size_t out_rows,
                   size_t out_channels, uint32_t *out);
} onebit_pack;

#endif
