/* A tile of a product by mma.sync, fed by cp.async: what all kernels for sm_80 and later share.
 *
 * A block computes the sums of ROWS × TILE_COLUMNS outputs, from rows of A and of B that it copies to shared
 * memory step by step; both operands are bytes along K, 32 to an mma, of bits (mma_b1) or of numbers
 * (mma_u8): their layout is the same. Who includes this says how rows are copied and what an mma does.
 *
 * Macros
 *   WARPS_DOWN    warps below each other, and
 *   WARPS_ACROSS  beside each other in a tile; a warp computes 16·FRAGMENTS rows × 64 columns
 *   FRAGMENTS     1, 2 or 4
 *   STAGES        K steps of 64 bytes in shared memory
 *
 * Launch: 32·WARPS_DOWN·WARPS_ACROSS threads, shared memory STAGES·64·(tile rows + tile columns) bytes.
 *
 * Shared memory: a row of a stage is four chunks of 16 bytes, chunk c of row r stands at place c ^ (r / 2 %
 * 4). The eight rows that an ldmatrix reads at once are 512 bytes apart in sum, four lines of 128; rows 2i
 * and 2i + 1 take the two halves of line i, and the xor sends lines to different banks: no conflicts.
 *
 * Pipeline: while the products of half a step are computed, the operands of the next half are read; in the
 * second half of step k that is the first half of step k + 1, so the wait for it and the only barrier stand
 * before. The barrier also says that all warps have read step k, whose place step k + STAGES takes in the
 * next round. */
#pragma once

#include "cuda/base/bits.cuh"

namespace {

constexpr int STEP = 64; /* bytes along K in one stage */
constexpr int CHUNKS = STEP / 16;
constexpr int THREADS = 32 * WARPS_DOWN * WARPS_ACROSS;
constexpr int WARP_ROWS = 16 * FRAGMENTS;
constexpr int WARP_COLUMNS = 64;
constexpr int ROWS = WARPS_DOWN * WARP_ROWS;
constexpr int TILE_COLUMNS = WARPS_ACROSS * WARP_COLUMNS;
constexpr int STAGE_BYTES = (ROWS + TILE_COLUMNS) * STEP;
constexpr int ROWS_A_PASS = THREADS / CHUNKS; /* rows that all threads together copy at a time */
static_assert(ROWS_A_PASS % 8 == 0, "the swizzle must repeat every pass");

/* The place of a chunk within the rows of a stage. */
__device__ __forceinline__ u32 place(int row, int chunk) {
    return row * STEP + ((chunk ^ (row / 2 % CHUNKS)) << 4);
}

/* One thread's part in copying ROWS_HERE rows of a matrix: chunk threadIdx.x % 4 of every ROWS_A_PASS-th row.
 */
template <int ROWS_HERE> struct Copy {
    static constexpr int PASSES = ROWS_HERE / ROWS_A_PASS;
    static_assert(ROWS_HERE % ROWS_A_PASS == 0, "every thread copies as many rows");

    const u8 *source;
    u64 pass_bytes;
    u32 target;
    int passes; /* passes whose row lies inside the matrix */
    int byte;
    int row_bytes;

    __device__ __forceinline__ Copy(const u8 *matrix, int first_row, int rows, int row_bytes, u32 shared)
        : row_bytes(row_bytes) {
        const int row = static_cast<int>(threadIdx.x) / CHUNKS,
                  chunk = static_cast<int>(threadIdx.x) % CHUNKS;
        byte = chunk * 16;
        source = matrix + static_cast<u64>(first_row + row) * row_bytes + byte;
        pass_bytes = static_cast<u64>(ROWS_A_PASS) * row_bytes;
        target = shared + place(row, chunk);
        passes = max(0, ceil_div(rows - first_row - row, ROWS_A_PASS));
    }

    /* Begins to copy a step; zeros where it lies beyond a row, or the row beyond the matrix. */
    __device__ __forceinline__ void start(int stage, int step) const {
        const bool inside = byte + step * STEP < row_bytes;
#pragma unroll
        for (int i = 0; i < PASSES; i++) {
            const bool valid = inside && i < passes;
            const u8 *from = valid ? source + i * pass_bytes + step * STEP : source;
            cp_async_16(target + stage * STAGE_BYTES + i * ROWS_A_PASS * STEP, from, valid);
        }
    }
};

/* A warp's operands for 32 bytes of K: FRAGMENTS × 16 rows of A, 8 × 8 columns of B. */
struct Operands {
    u32 a[FRAGMENTS][4];
    u32 b[WARP_COLUMNS / 16][4]; /* two neighbouring groups of 8 columns, two registers each */

    /* From half a step of the stage at this shared address; a_row and b_row are the warp's first rows in it.
     */
    __device__ __forceinline__ void load(u32 stage, int half, int a_row, int b_row) {
        const int lane = lane_id();
#pragma unroll
        for (int i = 0; i < FRAGMENTS;
             i++) /* matrices: rows 0–7 and 8–15 of the low 16 bytes, then of the high */
            ldmatrix_x4(a[i], stage + place(a_row + 16 * i + lane % 16, 2 * half + lane / 16));
#pragma unroll
        for (int j = 0; j < WARP_COLUMNS / 16; j++) /* low and high 16 bytes of columns 0–7, then of 8–15 */
            ldmatrix_x4(b[j], stage + ROWS * STEP +
                                  place(b_row + 16 * j + lane / 16 * 8 + lane % 8, 2 * half + lane / 8 % 2));
    }
};

/* The sums of a warp: [fragment of 16 rows][group of 8 columns][as in D of an mma]. */
using Sums = int[FRAGMENTS][WARP_COLUMNS / 8][4];

/* What an mma multiplies: bits, counting the ones in both … */
struct BitMma {
    static __device__ __forceinline__ void add(int (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
        mma_b1(d, a, b);
    }
};

/* … or bytes, uint8 of A by int8 of B. */
struct ByteMma {
    static __device__ __forceinline__ void add(int (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
        mma_u8(d, a, b);
    }
};

template <class Mma> struct Product {
    __device__ __forceinline__ void add(Sums &sums, const Operands &x) const {
#pragma unroll
        for (int i = 0; i < FRAGMENTS; i++)
#pragma unroll
            for (int j = 0; j < WARP_COLUMNS / 8; j++) {
                const u32 b[2] = {x.b[j / 2][2 * (j % 2)], x.b[j / 2][2 * (j % 2) + 1]};
                Mma::add(sums[i][j], x.a[i], b);
            }
    }
};

/* The calling warp's place in the tile. */
struct WarpPlace {
    int row;
    int column;
};

__device__ __forceinline__ WarpPlace warp_place() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    return {warp / WARPS_ACROSS * WARP_ROWS, warp % WARPS_ACROSS * WARP_COLUMNS};
}

/* Adds all steps of the tile to the warp's sums. The copies' `start` is called for step 0, 1, 2, … in order,
 * and for STAGES − 1 steps beyond the last, which are zeros. A copy may also write at once what it reads.
 *
 * READ_AHEAD reads the operands of the next half step before the products of this one. Without it a warp
 * takes 4·FRAGMENTS + 16 registers less, and leaves it to the other warps to fill the time. */
template <bool READ_AHEAD, class CopyA, class CopyB, class Multiply>
__device__ __forceinline__ void compute_tile(Sums &sums, u32 shared, int steps, CopyA &copy_a, CopyB &copy_b,
                                             Multiply &product) {
    const WarpPlace warp = warp_place();
    /* A group is committed for every step, also past the last, so that a count of groups is a count of steps.
     */
    for (int step = 0; step < STAGES - 1; step++) {
        copy_a.start(step, step);
        copy_b.start(step, step);
        cp_async_commit();
    }
    Operands now, next;
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    if (READ_AHEAD)
        now.load(shared, 0, warp.row, warp.column);
    int stage = 0;
    for (int k = 0; k < steps; k++) {
        const int filled =
            stage == 0 ? STAGES - 1 : stage - 1; /* the place of step k - 1 and of k + STAGES - 1 */
        const int following = stage + 1 == STAGES ? 0 : stage + 1;
        if (READ_AHEAD)
            next.load(shared + stage * STAGE_BYTES, 1, warp.row, warp.column);
        else
            now.load(shared + stage * STAGE_BYTES, 0, warp.row, warp.column);
        copy_a.start(filled, k + STAGES - 1);
        copy_b.start(filled, k + STAGES - 1);
        cp_async_commit();
        product.add(sums, now);
        if (!READ_AHEAD) {
            next.load(shared + stage * STAGE_BYTES, 1, warp.row, warp.column);
            product.add(sums, next);
        }
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        if (READ_AHEAD) {
            now.load(shared + following * STAGE_BYTES, 0, warp.row, warp.column);
            product.add(sums, next);
        }
        stage = following;
    }
    cp_async_wait<0>();
}

/* A fragment's sums as store_sums takes them. */
__device__ __forceinline__ int (&flat(int (&fragment)[WARP_COLUMNS / 8][4]))
    [WARP_COLUMNS / 2] { return reinterpret_cast<int (&)[WARP_COLUMNS / 2]>(fragment); }

__device__ __forceinline__ void scale_sums(int (&fragment)[WARP_COLUMNS / 8][4], int factor) {
#pragma unroll
    for (int j = 0; j < WARP_COLUMNS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            fragment[j][i] *= factor;
}

} // namespace
