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

typedef enum {
    ONEBIT_ADD = 0,
    ONEBIT_SUB = 1,
    ONEBIT_MUL = 2,
    ONEBIT_DIV = 3,
    ONEBIT_ARITHMETIC_COUNT = 4
} onebit_arithmetic;

/* Element i is data[i % period]: period is the count for a value, 1 for a scalar, C for a constant along the
 * last axis; any other broadcast constant is expanded by the caller to one sample and has that sample's size.
 */
typedef struct {
    const float *data;
    size_t period;
} onebit_operand;

typedef struct {
    onebit_isa isa;
    const char *name; /* "elementwise/<isa>" */

    /* out = fma(x, scale[c], shift[c]), one rounding. */
    void (*affine)(size_t rows, size_t channels, const float *x, const float *scale, const float *shift,
                   float *out);
    /* out[i] = a[i] op b[i]. At least one operand has period `count`; the other's period divides `count`. */
    void (*arithmetic)(onebit_arithmetic op, size_t count, onebit_operand a, onebit_operand b, float *out);
    /* out = x < 0 ? 0 : x. */
    void (*relu)(size_t count, const float *x, float *out);
    /* out = x >= 0 ? x : slope[c] * x. slopes is `channels`, or 1 for one slope of all. */
    void (*prelu)(size_t rows, size_t channels, const float *x, const float *slope, size_t slopes,
                  float *out);
    /* out = x clamped to [low, high]. */
    void (*hardtanh)(size_t count, const float *x, float low, float high, float *out);

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

    /* Whether any element is a NaN. */
    bool (*has_nan)(size_t count, const float *x);
} onebit_elementwise;

/* The table for exactly this ISA, or NULL. */
const onebit_elementwise *onebit_elementwise_variant(onebit_isa isa);

#endif
