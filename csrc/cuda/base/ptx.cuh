/* Every instruction that a kernel needs and CUDA C++ has no function for, one small function each.
 *
 * Kernels contain no PTX. With ONEBIT_EMULATE defined the same kernels are compiled for the CPU, and
 * "emulated_ptx.cuh" gives these functions and the CUDA built-ins instead. Of the built-ins a kernel may use
 *   threadIdx, blockIdx, blockDim, gridDim (.x), uint2, uint4, int2, int4, float2, float4 and their make_…,
 *   __syncthreads, __syncwarp, __shfl_sync, __shfl_xor_sync, __shfl_down_sync, __ballot_sync, __popc, __ldg,
 *   atomicAdd (int), fmaf, min, max, __float_as_int, __int_as_float,
 * and no `__shared__` variable: shared memory is what `dynamic_shared()` returns.
 *
 * Layouts are those of the PTX ISA. In a b1 operand one 32-bit register or word holds 32 elements along K,
 * bit i being element i. Words: `lane` is the thread's place in its warp, g = lane / 4, q = lane % 4.
 */
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

/* A CUtensorMap: describes a matrix in global memory to the TMA unit. A kernel takes it as
 * `const __grid_constant__ TensorMap`, by value. */
struct alignas(128) TensorMap {
    u64 opaque[16];
};

#ifdef ONEBIT_EMULATE
#include "emulated_ptx.cuh"
#else

/* ---- shared memory ---- */

/* The dynamic shared memory of the block, aligned to 1024 bytes (a period of the 128-byte swizzle). */
__device__ __forceinline__ u8 *dynamic_shared() {
    extern __shared__ __align__(1024) u8 onebit_dynamic_shared[];
    return onebit_dynamic_shared;
}

/* The address within shared memory that PTX instructions take. */
__device__ __forceinline__ u32 shared_address(const void *pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

/* Waits for `threads` threads of the block that name the same barrier `id` (1 … 15; 0 is __syncthreads). */
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- bytes ---- */

/* sum + Σ of four products, uint8 of a by int8 of b. */
__device__ __forceinline__ int dot_u8(u32 a, u32 b, int sum) {
    int d;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
    return d;
}

#if __CUDA_ARCH__ >= 800
/* ---- sm_80: mma.sync, ldmatrix, cp.async ---- */

/* d += popcount(a and b): A is 16 × 256 bits by rows, B is 256 × 8 bits by columns, D is 16 × 8 int32.
 * As words of 32 elements along K (8 to a row of A or a column of B):
 *   a[0] A(row g, word q)      a[1] A(row g + 8, word q)
 *   a[2] A(row g, word q + 4)  a[3] A(row g + 8, word q + 4)
 *   b[0] B(word q, column g)   b[1] B(word q + 4, column g)
 *   d[0] D(g, 2q)              d[1] D(g, 2q + 1)
 *   d[2] D(g + 8, 2q)          d[3] D(g + 8, 2q + 1) */
__device__ __forceinline__ void mma_b1(int (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* d += a · b: A is 16 × 32 uint8 by rows, B is 32 × 8 int8 by columns, D is 16 × 8 int32. The words, of four
 * bytes along K, lie as those of mma_b1 do. */
__device__ __forceinline__ void mma_u8(int (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Loads four matrices of 8 rows × 16 bytes from shared memory. Lane l gives the address of row l % 8 of
 * matrix l / 8 (a multiple of 16) and gets, in r[i], word q of row g of matrix i. */
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* Begins to copy 16 bytes (both addresses multiples of 16) past L1; writes zeros, and reads nothing, unless
 * valid. The copies of a thread since its last commit form a group. */
__device__ __forceinline__ void cp_async_16(u32 shared, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most N of the thread's latest groups are under way. Others see the data after a barrier. */
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#endif

#if __CUDA_ARCH__ >= 900
/* ---- sm_90: clusters ---- */

/* The block's place in its cluster (__cluster_dims__ of the kernel; 0 without one). */
__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* Waits for every thread of every block of the cluster, and makes their writes to shared memory visible. */
__device__ __forceinline__ void cluster_sync() {
    __syncwarp(); /* .aligned: the lanes must come together */
    asm volatile("barrier.cluster.arrive.release.aligned;\n\t"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* True in one lane of the calling warp, the same each time; all 32 lanes must call it. */
__device__ __forceinline__ bool elect_one() {
    u32 elected;
    asm volatile("{\n\t.reg .pred p;\n\t"
                 "elect.sync _|p, 0xffffffff;\n\t"
                 "selp.u32 %0, 1, 0, p;\n\t}"
                 : "=r"(elected));
    return elected != 0;
}

/* Moves registers between the warps of a block: each of the four warps of an (aligned) warpgroup calls it,
 * and from then on each of its threads has N, a multiple of 8 from 24 to 256. */
template <int N> __device__ __forceinline__ void registers_increase() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> __device__ __forceinline__ void registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- sm_90: mbarriers ----
 * An mbarrier is 8 bytes of shared memory, aligned to 8. A phase ends when its pending arrivals and its
 * pending bytes are both zero; the next phase then begins with the count of arrivals given to mbarrier_init.
 *
 * Arrivals and waits have the default scope, the block, also across a cluster. They order what TMA has
 * written and what wgmma has read, which is not the threads' own memory traffic; with .cluster scope every
 * arrival would wait for the thread's stores to global memory (MEMBAR.GPU) and every wait would empty L1. So
 * they do not make ordinary writes of one block visible to another: that takes cluster_sync. */

__device__ __forceinline__ void mbarrier_init(u32 barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/* Makes initialised barriers visible to the TMA unit and the cluster; then synchronise the threads. */
__device__ __forceinline__ void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives at the barrier that the block `rank` of the cluster has at the same address. */
__device__ __forceinline__ void mbarrier_arrive_at(u32 barrier, u32 rank) {
    asm volatile("{\n\t.reg .b32 remote;\n\t"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n\t"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n\t}" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}

/* Arrives, and adds `bytes` to the bytes that the phase waits for. */
__device__ __forceinline__ void mbarrier_arrive_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* Waits until the phase of this parity has ended: parity 0 is the first phase, 1 the second, 0 the third, …
 * Before the first phase has ended, waiting for parity 1 returns at once. */
__device__ __forceinline__ void mbarrier_wait(u32 barrier, u32 parity) {
    u32 done = 0;
    while (!done) {
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    }
}

/* ---- sm_90: TMA ----
 * A tensor map describes a matrix of rows × bytes with a box of box_rows × box_bytes. A load of the box at
 * (row, byte) writes box_rows · box_bytes bytes to shared memory, row by row, zeros for what lies outside the
 * matrix, and takes that number of bytes (always the whole box) from the barrier. With the 128-byte swizzle a
 * row of the box is 128 bytes, and the 16-byte chunk at shared address s lands at s ^ ((s >> 7 & 7) << 4);
 * `shared` must be a multiple of 1024 then. Called by one thread. */

__device__ __forceinline__ void tma_prefetch(const TensorMap &map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

__device__ __forceinline__ void tma_load(u32 shared, const TensorMap &map, int byte, int row, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
                 "{%2, %3}], [%4];" ::"r"(shared),
                 "l"(&map), "r"(byte), "r"(row), "r"(barrier)
                 : "memory");
}

/* The same box to every block of the cluster whose bit of `blocks` is set: to the same address of its shared
 * memory, and its own barrier at the same address is told. */
__device__ __forceinline__ void tma_load_multicast(u32 shared, const TensorMap &map, int byte, int row,
                                                   u32 barrier, u16 blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
        "l"(&map), "r"(byte), "r"(row), "r"(barrier), "h"(blocks)
        : "memory");
}

/* Orders the thread's ordinary writes to shared memory before later reads of it by wgmma or TMA. */
__device__ __forceinline__ void fence_async_proxy() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* ---- sm_90a: wgmma ----
 * Called by the four warps of an (aligned) warpgroup; w = threadIdx.x / 32 % 4 is a warp's place in it. */

/* Describes a K-major operand of rows of 128 bytes at `address`, written by TMA with the 128-byte swizzle: to
 * the descriptor a b1 operand looks like an int8 one. Eight rows are 1024 bytes, and so is the stride to the
 * next eight. Byte b (0 … 31) of row r of a k-step stands at s ^ ((s >> 7 & 7) << 4) with s = address + 128·r
 * + b; row 0 of the operand must be at a multiple of 1024 bytes, and k-step i of the 128-byte row is
 * described by address + 32·i. Bits: 0–13 address / 16; 16–29 leading offset / 16 (unused here, 1); 32–45
 * stride / 16; 49–51 base offset, 0 as the swizzle's period begins at a multiple of 1024; 62–63 swizzle, 1 =
 * 128 bytes. */
__device__ __forceinline__ u64 wgmma_descriptor(u32 address) {
    return static_cast<u64>((address & 0x3FFFF) >> 4) | 1ull << 16 | static_cast<u64>(1024 >> 4) << 32 |
           1ull << 62;
}

/* Before the first wgmma, and wherever the warpgroup itself has written the accumulators. */
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most N of the latest committed groups are under way. */
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* d = popcount(a and b) + (accumulate ? d : 0) over one k-step of 256 bits (32 bytes): A is 64 rows, B is N
 * rows, D is 64 × N int32, N one of 64, 128, 256. It is asynchronous: d and the operands belong to it until
 * wgmma_wait. d[4j + 2h + c] is D(16w + g + 8h, 8j + 2q + c),  h, c in {0, 1},  j < N / 8 */
template <int N> __device__ __forceinline__ void wgmma_b1(int (&d)[N / 2], u64 a, u64 b, int accumulate);

#define ONEBIT_D4(i)  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define ONEBIT_D16(i) ONEBIT_D4(i), ONEBIT_D4(i + 4), ONEBIT_D4(i + 8), ONEBIT_D4(i + 12)

template <> __device__ __forceinline__ void wgmma_b1<64>(int (&d)[32], u64 a, u64 b, int accumulate) {
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %34, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n64k256.s32.b1.b1.and.popc "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, p;\n\t}"
                 : ONEBIT_D16(0), ONEBIT_D16(16)
                 : "l"(a), "l"(b), "r"(accumulate));
}

template <> __device__ __forceinline__ void wgmma_b1<128>(int (&d)[64], u64 a, u64 b, int accumulate) {
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %66, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n128k256.s32.b1.b1.and.popc "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, p;\n\t}"
                 : ONEBIT_D16(0), ONEBIT_D16(16), ONEBIT_D16(32), ONEBIT_D16(48)
                 : "l"(a), "l"(b), "r"(accumulate));
}

template <> __device__ __forceinline__ void wgmma_b1<256>(int (&d)[128], u64 a, u64 b, int accumulate) {
    asm volatile(
        "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %130, 0;\n\t"
        "wgmma.mma_async.sync.aligned.m64n256k256.s32.b1.b1.and.popc "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, p;\n\t}"
        : ONEBIT_D16(0), ONEBIT_D16(16), ONEBIT_D16(32), ONEBIT_D16(48), ONEBIT_D16(64), ONEBIT_D16(80),
          ONEBIT_D16(96), ONEBIT_D16(112)
        : "l"(a), "l"(b), "r"(accumulate));
}

#undef ONEBIT_D16
#undef ONEBIT_D4
#endif

#endif

/* Nothing at run time: the compiler, which does not know that wgmma writes the sums later than it stands, may
 * not move what reads them to before this point. To be called after wgmma_wait<0>. */
template <int COUNT> __device__ __forceinline__ void wgmma_finish(int (&d)[COUNT]) {
#ifndef ONEBIT_EMULATE
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        asm volatile("" : "+r"(d[i])::"memory");
#endif
}
