/* The interface that every GEMM family shares: out[m][n] = epilogue(sum over k of a[m][k] * w[n][k]).
 *
 * A family is a folder; `<family>.h` says what it computes, kernels/families.inc lists its variants, and
 * kernels/families.h declares their choice. Kernels allocate nothing, start no threads and touch no files:
 * the caller supplies aligned buffers. */
#ifndef ONEBIT_KERNELS_GEMM_H
#define ONEBIT_KERNELS_GEMM_H

#include <stddef.h>
#include <stdint.h>

#include "base/isa.h"
#include "kernels/epilogue.h"

enum { ONEBIT_ALIGN = 64 }; /* of packed weights, scratch and every arena buffer */

typedef struct {
    size_t m, n, k; /* the whole problem; k counts true channels */
    /* The columns this call computes: begin is a multiple of n_tile; end is one too, or n. Threads split
     * columns or rows; for rows the caller moves a and out and lowers m. */
    size_t n_begin, n_end;
    const void *a;       /* [m] rows: bits (packed words), u8 or f32, as the family says */
    size_t a_stride;     /* bytes from row to row */
    const void *weights; /* what prepack wrote */
    void *out;           /* row 0, column 0 of the whole output */
    size_t out_stride;   /* bytes from row to row */
    const onebit_epilogue *epilogue;
    /* u8 family: v = multiplier * dot + offset * (sum of the weights of row n). Others ignore them. */
    int32_t multiplier, offset;
    void *scratch; /* scratch_size(m, k) bytes, one buffer a thread */
} onebit_gemm_args;

typedef struct {
    onebit_isa isa;
    const char *name;      /* "<family>/<isa>": what profile() and the dispatch test see */
    size_t m_tile, n_tile; /* n_tile is a multiple of 32, so that threads never share a word of bits */
    size_t (*packed_size)(size_t n, size_t k);
    /* weights: the Program's layout, [n] rows of ceil(k/32) words (or of k floats in f32_gemm).
     * packed: packed_size(n, k) bytes, 64-byte aligned. */
    void (*prepack)(size_t n, size_t k, const void *weights, void *packed);
    size_t (*scratch_size)(size_t m, size_t k);
    void (*run)(const onebit_gemm_args *args);
} onebit_gemm_variant;

#endif
