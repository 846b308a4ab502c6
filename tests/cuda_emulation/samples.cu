/* Kernels for tests of the emulator. `defect` 0 is a correct kernel; other numbers leave something out. */
#include "cuda/base/ptx.cuh"

/* out[block] = the sum of a block's part of x. Defect 1: no barrier in the loop. */
extern "C" __global__ void block_sum(const int *x, int n, int *out, int defect) {
    int *sums = reinterpret_cast<int *>(dynamic_shared());
    int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), t = static_cast<int>(threadIdx.x);
    sums[t] = i < n || defect == 2 ? x[i] : 0; /* defect 2: reads beyond x */
    __syncthreads();
    for (int step = static_cast<int>(blockDim.x) / 2; step > 0; step /= 2) {
        if (t < step)
            sums[t] += sums[t + step];
        if (defect != 1)
            __syncthreads();
    }
    if (t == 0)
        out[blockIdx.x] = sums[0];
}

/* One warp: lane l gets, in order: x of lane l ^ 1, x of lane 0 of its 8 lanes, x of lane l + 1 (of 32), the
 * votes for x > 0, and popcounts. */
extern "C" __global__ void warp_operations(const int *x, int *out) {
    int lane = static_cast<int>(threadIdx.x), mine = x[lane];
    out[lane] = __shfl_xor_sync(0xFFFFFFFFu, mine, 1);
    out[32 + lane] = __shfl_sync(0xFFFFFFFFu, mine, 0, 8);
    out[64 + lane] = __shfl_down_sync(0xFFFFFFFFu, mine, 1);
    out[96 + lane] = static_cast<int>(__ballot_sync(0xFFFFFFFFu, mine > 0));
    out[128 + lane] = __popc(static_cast<unsigned>(mine));
}

/* A misaligned access: 16 bytes at 4. */
extern "C" __global__ void misaligned(const int *x, int *out) {
    uint4 value = *reinterpret_cast<const uint4 *>(x + 1);
    out[0] = static_cast<int>(value.x + value.y + value.z + value.w);
}

/* Waits that never end. 0: half of the threads of a named barrier; 1: an mbarrier one arrival short; 2: a
 * shuffle that one lane does not come to; 3: a shuffle and a vote. */
extern "C" __global__ void deadlock(int kind) {
    u32 barrier = shared_address(dynamic_shared());
    if (kind == 0 && threadIdx.x < 32)
        named_barrier_sync(1, 64);
    if (kind == 1) {
        if (threadIdx.x == 0)
            mbarrier_init(barrier, 2);
        __syncthreads();
        if (threadIdx.x == 0)
            mbarrier_arrive(barrier);
        mbarrier_wait(barrier, 0);
    }
    if (kind == 2 && threadIdx.x != 5)
        __shfl_sync(0xFFFFFFFFu, 1, 0);
    if (kind == 3)
        threadIdx.x < 16 ? __shfl_sync(0xFFFFFFFFu, 1, 0) : __ballot_sync(0xFFFFFFFFu, 1);
}

/* out = x, 16 bytes a thread, through cp.async; each thread stores what its neighbour copied. Defect 1: no
 * wait; 2: no barrier; 3: the next copy overwrites what may not be read yet. */
extern "C" __global__ void copy_async(const uint4 *x, uint4 *out, int rounds, int defect) {
    const uint4 *mine = reinterpret_cast<const uint4 *>(dynamic_shared());
    int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
    for (int round = 0; round < rounds; round++) {
        cp_async_16(shared_address(mine + t), x + round * n + t, true);
        cp_async_commit();
        if (defect != 1)
            cp_async_wait<0>();
        if (defect != 2)
            __syncthreads();
        out[round * n + t] = mine[n - 1 - t];
        if (defect != 3)
            __syncthreads();
    }
}

/* out = popcount(a and b) of 16 × 256 and 8 × 256 bits, or a · b of 16 × 32 uint8 and 8 × 32 int8 (rows of 32
 * bytes either way), by ldmatrix and one mma. */
extern "C" __global__ void mma_product(const u32 *a, const u32 *b, int *out, int int8) {
    u32 *shared = reinterpret_cast<u32 *>(dynamic_shared());
    int lane = static_cast<int>(threadIdx.x);
    for (int i = lane; i < 128; i += 32)
        shared[i] = a[i];
    for (int i = lane; i < 64; i += 32)
        shared[128 + i] = b[i];
    __syncwarp();
    /* Matrices of 8 rows × 16 bytes, a row of a or b being 32 bytes. Lane l addresses row l % 8 of matrix l
     * / 8. */
    u32 left[4], right[4];
    int row = lane % 8, matrix = lane / 8;
    ldmatrix_x4(left, shared_address(shared + (row + matrix % 2 * 8) * 8 + matrix / 2 * 4));
    ldmatrix_x4(right, shared_address(shared + 128 + row * 8 + matrix % 2 * 4));
    int d[4] = {};
    const u32 columns[2] = {right[0], right[1]};
    if (int8)
        ::onebit_emulation::mma_int8(d, left, columns, false, true);
    else
        mma_b1(d, left, columns);
    for (int i = 0; i < 4; i++)
        out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

/* out = the box at (row, byte) as it lies in shared memory. Defect 1: fewer bytes expected than come; 2:
 * nobody waits; 3: no fence after mbarrier_init; 4: twice into the same place, unordered. */
extern "C" __global__ void load_box(const __grid_constant__ TensorMap map, int row, int byte, int bytes,
                                    u8 *out, int defect) {
    u8 *box = dynamic_shared();
    u32 barrier = shared_address(box + bytes);
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        if (defect != 3)
            mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int times = defect == 4 ? 2 : 1;
        mbarrier_arrive_expect(barrier, static_cast<u32>(defect == 1 ? bytes - 16 : times * bytes));
        for (int i = 0; i < times; i++)
            tma_load(shared_address(box), map, byte, row, barrier);
    }
    if (defect != 2)
        mbarrier_wait(barrier, 0);
    for (int i = static_cast<int>(threadIdx.x); i < bytes; i += static_cast<int>(blockDim.x))
        out[i] = box[i];
}

/* out[block] = the second block's box in both blocks of a cluster. Defect 1: the first block does not expect
 * it; 2: it may end before the second has arrived at a barrier of it. */
extern "C" __global__ void __cluster_dims__(2, 1, 1)
    multicast(const __grid_constant__ TensorMap map, int bytes, u8 *out, int defect) {
    u8 *box = dynamic_shared();
    u32 barrier = shared_address(box + bytes);
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init(barrier + 8, 1);
        mbarrier_init_fence();
    }
    cluster_sync();
    if (threadIdx.x == 0 && (defect != 1 || cluster_rank() == 1))
        mbarrier_arrive_expect(barrier, static_cast<u32>(bytes));
    if (threadIdx.x == 0 && cluster_rank() == 1)
        tma_load_multicast(shared_address(box), map, 0, 8, barrier, 3);
    mbarrier_wait(barrier, 0);
    for (int i = static_cast<int>(threadIdx.x); i < bytes; i += static_cast<int>(blockDim.x))
        out[static_cast<int>(blockIdx.x) * bytes + i] = box[i];
    if (threadIdx.x == 0 && cluster_rank() == 1)
        mbarrier_arrive_at(barrier + 8, 0);
    if (defect != 2)
        cluster_sync();
}

/* out = popcount(a and b), 64 × 1024 and 64 × 1024 bits (128 bytes a row): TMA, four wgmma. Defect 1: no wait
 * for the result; 2: no wgmma_fence; 3: a is written by threads, without fence_async_proxy; 4: the next box
 * comes before the wait for wgmma; 5: accumulators changed between, without a fence; 6: as 3, with the fence.
 */
extern "C" __global__ void wgmma_product(const __grid_constant__ TensorMap a_map,
                                         const __grid_constant__ TensorMap b_map, int *out, int defect) {
    u8 *shared = dynamic_shared();
    u32 a = shared_address(shared), b = a + 64 * 128, barrier = b + 64 * 128;
    int t = static_cast<int>(threadIdx.x);
    if (t == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
    }
    __syncthreads();
    if (t == 0) {
        mbarrier_arrive_expect(barrier, 2 * 64 * 128);
        tma_load(a, a_map, 0, 0, barrier);
        tma_load(b, b_map, 0, 0, barrier);
    }
    mbarrier_wait(barrier, 0);
    if (defect == 3 || defect == 6) {
        for (int i = 0; i < 64; i++)
            shared[64 * t + i] += static_cast<u8>(defect & 8);
        if (defect == 6)
            fence_async_proxy();
        __syncthreads();
    }
    int d[32];
    if (defect != 2)
        wgmma_fence();
    for (int k = 0; k < 4; k++) {
        wgmma_b1<64>(d, wgmma_descriptor(a + 32 * static_cast<u32>(k)),
                     wgmma_descriptor(b + 32 * static_cast<u32>(k)), k);
        wgmma_commit();
        if (defect == 5 && k == 1) {
            wgmma_wait<0>();
            d[3]++;
        }
    }
    if (defect == 4) {
        __syncthreads();
        if (t == 0) {
            mbarrier_arrive_expect(barrier, 64 * 128);
            tma_load(a, b_map, 0, 0, barrier);
        }
        mbarrier_wait(barrier, 1);
    }
    if (defect == 1)
        wgmma_wait<1>();
    else
        wgmma_wait<0>();
    int row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    for (int i = 0; i < 32; i++)
        out[(row + i / 2 % 2 * 8) * 64 + column + i / 4 * 8 + i % 2] = d[i];
}
