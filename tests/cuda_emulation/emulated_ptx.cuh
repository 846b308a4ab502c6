// The twin of csrc/cuda/base/ptx.cuh: the same functions, done by the emulator. ptx.cuh includes it under
// ONEBIT_EMULATE, after its types.
#pragma once

// Every function takes, hidden, where it was called from, for the emulator's reports.

inline u8 *dynamic_shared() {
    return static_cast<u8 *>(::onebit_emulation::dynamic_shared());
}
inline u32 shared_address(const void *pointer, ONEBIT_HERE) {
    return ::onebit_emulation::shared_address(pointer, where);
}
inline void named_barrier_sync(int id, int threads, ONEBIT_HERE) {
    ::onebit_emulation::barrier_sync(id, threads, where);
}

inline int dot_u8(u32 a, u32 b, int sum) {
    for (int i = 0; i < 4; i++)
        sum += static_cast<int>(a >> (8 * i) & 0xff) * static_cast<signed char>(b >> (8 * i) & 0xff);
    return sum;
}

// ---- sm_80 ----
#if __CUDA_ARCH__ >= 800
inline void mma_b1(int (&d)[4], const u32 (&a)[4], const u32 (&b)[2], ONEBIT_HERE) {
    ::onebit_emulation::mma_b1(d, a, b, where);
}
inline void mma_u8(int (&d)[4], const u32 (&a)[4], const u32 (&b)[2], ONEBIT_HERE) {
    ::onebit_emulation::mma_int8(d, a, b, false, true, where);
}
inline void ldmatrix_x4(u32 (&r)[4], u32 address, ONEBIT_HERE) {
    ::onebit_emulation::load_matrix(r, 4, address, where);
}
inline void cp_async_16(u32 shared, const void *global, bool valid, ONEBIT_HERE) {
    ::onebit_emulation::copy_async(shared, global, 16, valid ? 16 : 0, where);
}
inline void cp_async_commit() {
    ::onebit_emulation::copy_async_commit();
}
template <int N> inline void cp_async_wait() {
    ::onebit_emulation::copy_async_wait(N);
}
#endif

// ---- sm_90 ----
#if __CUDA_ARCH__ >= 900
inline u32 cluster_rank() {
    return ::onebit_emulation::cluster_rank();
}
inline void cluster_sync(ONEBIT_HERE) {
    ::onebit_emulation::cluster_sync(where);
}
inline bool elect_one(ONEBIT_HERE) {
    return ::onebit_emulation::elect(where);
}
template <int N> inline void registers_increase() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256);
}
template <int N> inline void registers_decrease() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256);
}

inline void mbarrier_init(u32 barrier, int arrivals, ONEBIT_HERE) {
    ::onebit_emulation::mbarrier_init(barrier, arrivals, where);
}
inline void mbarrier_init_fence() {
    ::onebit_emulation::mbarrier_init_fence();
}
inline void mbarrier_arrive(u32 barrier, ONEBIT_HERE) {
    ::onebit_emulation::mbarrier_arrive(barrier, ::onebit_emulation::cluster_rank(), 0, where);
}
inline void mbarrier_arrive_at(u32 barrier, u32 rank, ONEBIT_HERE) {
    ::onebit_emulation::mbarrier_arrive(barrier, rank, 0, where);
}
inline void mbarrier_arrive_expect(u32 barrier, u32 bytes, ONEBIT_HERE) {
    ::onebit_emulation::mbarrier_arrive(barrier, ::onebit_emulation::cluster_rank(), bytes, where);
}
inline void mbarrier_wait(u32 barrier, u32 parity, ONEBIT_HERE) {
    ::onebit_emulation::mbarrier_wait(barrier, parity, where);
}

inline void tma_prefetch(const TensorMap &) {
}
inline void tma_load(u32 shared, const TensorMap &map, int byte, int row, u32 barrier, ONEBIT_HERE) {
    ::onebit_emulation::tensor_load(shared, &map, byte, row, barrier,
                                    1u << ::onebit_emulation::cluster_rank(), where);
}
inline void tma_load_multicast(u32 shared, const TensorMap &map, int byte, int row, u32 barrier, u16 blocks,
                               ONEBIT_HERE) {
    ::onebit_emulation::tensor_load(shared, &map, byte, row, barrier, blocks, where);
}
inline void fence_async_proxy() {
    ::onebit_emulation::proxy_fence();
}
#endif

// ---- sm_90a ----
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// The 128-byte swizzle, K-major: eight rows of 128 bytes repeat every 1024 bytes.
inline u64 wgmma_descriptor(u32 address) {
    return (address >> 4 & 0x3fff) | u64(1) << 16 | u64(1024 / 16) << 32 | u64(1) << 62;
}
inline void wgmma_fence(ONEBIT_HERE) {
    ::onebit_emulation::wgmma_fence(where);
}
inline void wgmma_commit(ONEBIT_HERE) {
    ::onebit_emulation::wgmma_commit(where);
}
template <int N> inline void wgmma_wait(ONEBIT_HERE) {
    ::onebit_emulation::wgmma_wait(N, where);
}
template <int N> inline void wgmma_b1(int (&d)[N / 2], u64 a, u64 b, int accumulate, ONEBIT_HERE) {
    static_assert(N == 64 || N == 128 || N == 256);
    ::onebit_emulation::wgmma_b1(d, N, a, b, accumulate != 0, where);
}
#endif
