// The built-ins of CUDA C++ that kernels use, for g++. Included before a kernel's source.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/interface.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __align__(n)    __attribute__((aligned(n)))
#define __launch_bounds__(...)
#ifndef ONEBIT_READ_CLUSTER // compile.py reads the arguments from the preprocessed source
#define __cluster_dims__(...)
#endif

#define threadIdx (::onebit_emulation::current->thread)
#define blockIdx  (::onebit_emulation::current->block)
#define blockDim  (::onebit_emulation::block_size)
#define gridDim   (::onebit_emulation::grid_size)
constexpr int warpSize = 32;
using dim3 = ::onebit_emulation::Dim3;

// ---- vectors ----
#define ONEBIT_VECTORS(T, name, align)                                                                       \
    struct alignas(2 * align) name##2 {                                                                      \
        T x, y;                                                                                              \
    };                                                                                                       \
    struct alignas(4 * align > 16 ? 16 : 4 * align) name##4 {                                                \
        T x, y, z, w;                                                                                        \
    };                                                                                                       \
    static inline name##2 make_##name##2(T x, T y) {                                                         \
        return {x, y};                                                                                       \
    }                                                                                                        \
    static inline name##4 make_##name##4(T x, T y, T z, T w) {                                               \
        return {x, y, z, w};                                                                                 \
    }
ONEBIT_VECTORS(signed char, char, 1)
ONEBIT_VECTORS(unsigned char, uchar, 1)
ONEBIT_VECTORS(short, short, 2)
ONEBIT_VECTORS(unsigned short, ushort, 2)
ONEBIT_VECTORS(int, int, 4)
ONEBIT_VECTORS(unsigned, uint, 4)
ONEBIT_VECTORS(float, float, 4)
#undef ONEBIT_VECTORS
struct alignas(16) longlong2 {
    long long x, y;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) {
    return {x, y};
}

// ---- integers ----
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++)
        y |= (x >> i & 1u) << (31 - i);
    return y;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned long long bytes = static_cast<unsigned long long>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i);
        unsigned byte = static_cast<unsigned>(bytes >> (8 * (s & 7))) & 0xff;
        if (s & 8)
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31));
}
// Sum of four products of bytes, and c.
#define ONEBIT_DP4A(A, B, R)                                                                                 \
    static inline R __dp4a(A a, B b, R c) {                                                                  \
        for (int i = 0; i < 4; i++)                                                                          \
            c += static_cast<R>(static_cast<decltype(onebit_byte(a))>(a >> (8 * i))) *                       \
                 static_cast<R>(static_cast<decltype(onebit_byte(b))>(b >> (8 * i)));                        \
        return c;                                                                                            \
    }
signed char onebit_byte(int);
unsigned char onebit_byte(unsigned);
ONEBIT_DP4A(int, int, int)
ONEBIT_DP4A(unsigned, unsigned, unsigned)
#undef ONEBIT_DP4A

#define ONEBIT_MIN_MAX(T)                                                                                    \
    static inline T min(T a, T b) {                                                                          \
        return b < a ? b : a;                                                                                \
    }                                                                                                        \
    static inline T max(T a, T b) {                                                                          \
        return a < b ? b : a;                                                                                \
    }
ONEBIT_MIN_MAX(int)
ONEBIT_MIN_MAX(unsigned)
ONEBIT_MIN_MAX(long long)
ONEBIT_MIN_MAX(unsigned long long)
#undef ONEBIT_MIN_MAX
static inline float min(float a, float b) {
    return fminf(a, b);
}
static inline float max(float a, float b) {
    return fmaxf(a, b);
}

// ---- floats: every one of these rounds once, to nearest ----
template <class To, class From> static inline To onebit_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) {
    return onebit_bits<int>(x);
}
static inline unsigned __float_as_uint(float x) {
    return onebit_bits<unsigned>(x);
}
static inline float __int_as_float(int x) {
    return onebit_bits<float>(x);
}
static inline float __uint_as_float(unsigned x) {
    return onebit_bits<float>(x);
}
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fsub_rn(float a, float b) {
    return a - b;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fdiv_rn(float a, float b) {
    return a / b;
}
static inline float __int2float_rn(int x) {
    return static_cast<float>(x);
}
static inline float __uint2float_rn(unsigned x) {
    return static_cast<float>(x);
}
static inline int __float2int_rn(float x) {
    return static_cast<int>(lrintf(x));
}

// ---- memory ----
template <class T> static inline T __ldg(const T *p) {
    return *p;
}
template <class T> static inline T __ldcs(const T *p) {
    return *p;
}
template <class T> static inline void __stcs(T *p, T value) {
    *p = value;
}
template <class T> static inline void __stcg(T *p, T value) {
    *p = value;
}
static inline void __threadfence() {
}
static inline void __threadfence_block() {
}

// Fibers change only where they wait, so a plain update is atomic.
template <class T, class F> __attribute__((no_sanitize("thread"), noinline)) T onebit_atomic(T *p, F update) {
    ::onebit_emulation::atomic_access(p, sizeof(T));
    T old = *p;
    *p = update(old);
    return old;
}
#define ONEBIT_ATOMIC(name, expression)                                                                      \
    template <class T> static inline T name(T *p, decltype(*p + T()) value) {                                \
        return onebit_atomic(p, [=](T old) { return static_cast<T>(expression); });                          \
    }
ONEBIT_ATOMIC(atomicAdd, old + value)
ONEBIT_ATOMIC(atomicSub, old - value)
ONEBIT_ATOMIC(atomicMin, value < old ? value : old)
ONEBIT_ATOMIC(atomicMax, value > old ? value : old)
ONEBIT_ATOMIC(atomicExch, value)
template <class T> static inline T atomicAnd(T *p, T value) {
    return onebit_atomic(p, [=](T old) { return old & value; });
}
template <class T> static inline T atomicOr(T *p, T value) {
    return onebit_atomic(p, [=](T old) { return old | value; });
}
template <class T> static inline T atomicXor(T *p, T value) {
    return onebit_atomic(p, [=](T old) { return old ^ value; });
}
template <class T> static inline T atomicCAS(T *p, T expected, T value) {
    return onebit_atomic(p, [=](T old) { return old == expected ? value : old; });
}
#undef ONEBIT_ATOMIC

// ---- threads ----
#define __syncthreads()        ::onebit_emulation::barrier_sync(0, 0)
#define __syncthreads_count(p) ::onebit_emulation::barrier_count(p)
#define __syncthreads_or(p)    (::onebit_emulation::barrier_count(p) != 0)
static inline void __syncwarp(unsigned mask = ~0u, ONEBIT_HERE) {
    ::onebit_emulation::warp_sync(mask, where);
}
static inline unsigned __ballot_sync(unsigned mask, int p, ONEBIT_HERE) {
    return ::onebit_emulation::ballot(mask, p, where);
}
static inline int __any_sync(unsigned mask, int p, ONEBIT_HERE) {
    return ::onebit_emulation::ballot(mask, p, where) != 0;
}
static inline int __all_sync(unsigned mask, int p, ONEBIT_HERE) {
    return ::onebit_emulation::ballot(mask, !p, where) == 0;
}

static inline int onebit_lane() {
    return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}
// A lane beyond the `width` lanes around the caller is the caller itself, as on the GPU.
template <class T>
static inline T onebit_shuffle(unsigned mask, T value, int source, bool inside,
                               ::onebit_emulation::Where where) {
    static_assert(sizeof(T) == 4, "shuffles of 4 bytes only");
    int lane = inside ? source : onebit_lane();
    return onebit_bits<T>(::onebit_emulation::shuffle(mask, onebit_bits<unsigned>(value), lane, where));
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, ONEBIT_HERE) {
    int lane = onebit_lane();
    return onebit_shuffle(mask, value, lane / width * width + (source & (width - 1)), true, where);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, ONEBIT_HERE) {
    int lane = onebit_lane(), source = lane ^ bits;
    return onebit_shuffle(mask, value, source, source / width <= lane / width, where);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32, ONEBIT_HERE) {
    int lane = onebit_lane(), source = lane + delta;
    return onebit_shuffle(mask, value, source, source / width == lane / width, where);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32, ONEBIT_HERE) {
    int lane = onebit_lane(), source = lane - delta;
    return onebit_shuffle(mask, value, source, source >= lane / width * width, where);
}
template <class T> static inline T __reduce_add_sync(unsigned mask, T value, ONEBIT_HERE) {
    T sum = 0;
    for (int lane = 0; lane < 32; lane++) {
        T other = onebit_shuffle(mask, value, lane, mask >> lane & 1, where);
        if (mask >> lane & 1)
            sum += other;
    }
    return sum;
}
static inline void __trap() {
    ::onebit_emulation::trap();
}
