/* What the paper compares with (arXiv 1602.02830, section 5): a matrix product that nobody has optimised.
 *
 * c = a · b, float32, row-major: a [m, k], b [k, n], c [m, n]. No macros. */

/* One thread an output element, and a plain loop. Launch: blocks of 16 × 16 threads given as 256, ⌈n/16⌉ ×
 * ⌈m/16⌉. */
extern "C" __global__ void unoptimized(const float *__restrict__ a, const float *__restrict__ b,
                                       float *__restrict__ c, int m, int n, int k) {
    const int column = static_cast<int>(blockIdx.x * 16 + threadIdx.x % 16);
    const int row = static_cast<int>(blockIdx.y * 16 + threadIdx.x / 16);
    if (row >= m || column >= n)
        return;
    float sum = 0;
    for (int i = 0; i < k; i++)
        sum = fmaf(a[static_cast<long long>(row) * k + i], b[static_cast<long long>(i) * n + column], sum);
    c[static_cast<long long>(row) * n + column] = sum;
}
