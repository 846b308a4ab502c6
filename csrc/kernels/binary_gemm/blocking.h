/* How the vector variants cut a product into pieces: blocks of rows whose activations are copied into scratch
 * and stay in the second-level cache, and in a block tiles of rows whose accumulators stay in registers. */
#ifndef ONEBIT_KERNELS_BINARY_GEMM_BLOCKING_H
#define ONEBIT_KERNELS_BINARY_GEMM_BLOCKING_H

#include <stdbool.h>

#include "kernels/gemm.h"

enum {
    BLOCK_BYTES = 256 * 1024, /* of activations in a block */
    STREAM_BYTES = 8 << 20    /* outputs larger than this bypass the caches */
};

/* Rows of a block, of row_bytes in scratch each: whole tiles, at least one. */
static inline size_t block_rows(size_t row_bytes, size_t m_tile) {
    size_t tiles = BLOCK_BYTES / (row_bytes * m_tile + 1);
    return (tiles ? tiles : 1) * m_tile;
}

/* Rows of the next tile: as even as possible; with tiles of 12, 13 rows are 7 and 6. */
static inline size_t tile_rows(size_t rows_left, size_t m_tile) {
    size_t tiles_left = (rows_left + m_tile - 1) / m_tile;
    return (rows_left + tiles_left - 1) / tiles_left;
}

/* Whether to store past the caches: the output is large, and every row aligned to a vector. */
static inline bool stream_output(const onebit_gemm_args *args, size_t vector) {
    size_t bytes = args->m * (args->n_end - args->n_begin) * sizeof(int32_t);
    return bytes > STREAM_BYTES && ((uintptr_t)args->out | args->out_stride) % vector == 0;
}

#endif
