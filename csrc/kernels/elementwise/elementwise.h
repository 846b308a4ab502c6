/* Elementwise ops of the Program. Everything is contiguous: a tensor [..., C] with its batch is `rows` rows
 * of `channels` elements (rows of ceil(channels/32) words for bits), or `count` elements in one.
 *
 * Unless it says otherwise, `out` may be the very same buffer as a float input (in place), but may not
 * overlap an input in any other way. Floats need 4-byte alignment only. Every op rounds as written: one
 * float32 operation, or one fma. NaN inputs give NaN outputs. */
#ifndef ONEBIT_KERNELS_ELEMENTWISE_H
#define ONEBIT_KERNELS_ELEMENTWISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/isa.h"
#include "onebit_ops.h"

/* Element i is data[i % period]: period is the count for a value, 1 for a scalar, C for a constant along the
 * last axis; any other broadcast constant is expanded by the caller to one sample and has that sample's size.
 */
typedef struct {
    const float *data;
    size_t period;
} onebit_operand;

/* A value [..., channels] that is to be joined to others. */
typedef struct {
    const void *data;
    size_t channels;
} onebit_part;

/* Of `samples` arrays [sizes[0]]...[sizes[rank - 1]], one after the other, axis j of each output array is
 * axis axes[j] of the input. 1 <= rank <= ONEBIT_MAX_AXES; no size is 0. */
typedef struct {
    size_t samples, rank;
    const size_t *sizes, *axes;
} onebit_permutation;

typedef struct {
    onebit_isa isa;
    const char *name; /* "elementwise/<isa>" */

    /* out = fma(x, scale[c], shift[c]), one rounding. */
    void (*affine)(size_t rows, size_t channels, const float *x, const float *scale, const float *shift,
                   float *out);
    /* By onebit_unary: out = the function of x; parameters: as many as it has. */
    void (*unary[ONEBIT_UNARY_COUNT])(size_t count, const float *x, const float *parameters, float *out);
    /* By onebit_binary: out[i] = a[i] op b[i]. At least one operand has period `count`; the other's period
     * divides `count`. */
    void (*binary[ONEBIT_BINARY_COUNT])(size_t count, onebit_operand a, onebit_operand b, float *out);
    /* out[row][c] = a op b, where a is [rows][a_channels] and b [rows][b_channels]; each of these is
     * `channels` or 1 (one value for the whole row), and not both are 1 unless channels is. out may be an
     * input that has `channels`. */
    void (*binary_rows[ONEBIT_BINARY_COUNT])(size_t rows, size_t channels, const float *a, size_t a_channels,
                                             const float *b, size_t b_channels, float *out);

    /* Exact conversions; i32 beyond 2^24 rounds to nearest even. Bits become +1 and -1. Here out may not be
     * the input, except in i32_to_float. */
    void (*i32_to_float)(size_t count, const int32_t *x, float *out);
    void (*u8_to_float)(size_t count, const uint8_t *x, float *out);
    void (*bits_to_float)(size_t rows, size_t channels, const uint32_t *x, float *out);
    /* out = (2x - 255) / 256, exact. */
    void (*scale_pixels)(size_t count, const uint8_t *x, float *out);

    /* Bit c of a row = (x[c] >= threshold[c]) xor flip bit c; padding bits of the last word are zero. flip is
     * ceil(channels/32) words, never NULL. */
    void (*threshold)(size_t rows, size_t channels, const int32_t *x, const int32_t *threshold,
                      const uint32_t *flip, uint32_t *out);

    /* out [rows][sum of channels] = the parts side by side, `element` bytes each (1 or 4). out may not
     * overlap a part. */
    void (*concat)(size_t rows, size_t parts, const onebit_part *part, size_t element, void *out);
    /* The same of bits: part p is rows of ceil(channels / 32) words with zero padding bits, and so is out. */
    void (*concat_bits)(size_t rows, size_t parts, const onebit_part *part, uint32_t *out);

    /* Transposes elements of `element` bytes (a multiple of 4, or 1). out may not overlap x. */
    void (*permute)(const onebit_permutation *permutation, size_t element, const void *x, void *out);
    /* The same of bits: rows along the last axis, of the input and of the output alike, are ceil(size / 32)
     * words with zero padding bits. Fast where the last axis stays the last. */
    void (*permute_bits)(const onebit_permutation *permutation, const uint32_t *x, uint32_t *out);

    /* Whether any element is a NaN. */
    bool (*has_nan)(size_t count, const float *x);
} onebit_elementwise;

#endif
