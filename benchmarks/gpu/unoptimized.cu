/* What the paper compares with (arXiv 1602.02830, section 5): a float32 product as a textbook has it. The
 * kernel that its authors published is the shared-memory example of the CUDA programming guide, tiles of 16 ×
 * 16, one output element a thread; so is this one, with a guard for sizes that are no multiple of a tile.
 *
 * c = a · b, row-major: a [m, k], b [k, n], c [m, n]. No macros. */
#include "cuda/base/ptx.cuh"

constexpr int TILE = 16;

/* Blocks of 16 × 16 threads given as 256, ⌈n/16⌉ × ⌈m/16⌉ of them, each with the two tiles in shared memory.
 */
extern "C" __global__ void unoptimized(const float *__restrict__ a, const float *__restrict__ b,
                                       float *__restrict__ c, int m, int n, int k) {
    auto *rows = reinterpret_cast<float (*)[TILE]>(dynamic_shared()), *columns = rows + TILE;
    const int x = static_cast<int>(threadIdx.x) % TILE, y = static_cast<int>(threadIdx.x) / TILE;
    const int column = static_cast<int>(blockIdx.x) * TILE + x, row = static_cast<int>(blockIdx.y) * TILE + y;
    float sum = 0;
    for (int start = 0; start < k; start += TILE) {
        const bool in_a = row < m && start + x < k, in_b = column < n && start + y < k;
        rows[y][x] = in_a ? a[static_cast<long long>(row) * k + start + x] : 0;
        columns[y][x] = in_b ? b[static_cast<long long>(start + y) * n + column] : 0;
        __syncthreads();
        for (int i = 0; i < TILE; i++)
            sum = fmaf(rows[y][i], columns[i][x], sum);
        __syncthreads();
    }
    if (row < m && column < n)
        c[static_cast<long long>(row) * n + column] = sum;
}
