/* The order in which tiles of a product are computed.
 *
 * Blocks that run at the same time should share rows of both operands, so that L2 is read more often than
 * memory. Tiles are walked in bands of `band` tile rows, down each column of the band before the next: B
 * blocks at a time then cover about band × B/band tiles. */
#pragma once

#include "cuda/base/bits.cuh"

struct Tile {
    int row;
    int column;
};

__device__ __forceinline__ Tile tile_at(int index, int tile_rows, int tile_columns, int band) {
    const int first = index / (band * tile_columns) * band;
    const int height = min(band, tile_rows - first);
    const int within = index % (band * tile_columns);
    return {first + within % height, within / height};
}
