/* The repack that every variant shares: it moves 32 bits a few cycles, and vectors would not help. */
#ifndef ONEBIT_KERNELS_PACK_REPACK_H
#define ONEBIT_KERNELS_PACK_REPACK_H

#include <stddef.h>
#include <stdint.h>

void onebit_pack_repack(size_t samples, size_t rows, size_t channels, const uint32_t *bits, size_t out_rows,
                        size_t out_channels, uint32_t *out);

#endif
