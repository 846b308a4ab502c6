/* Helpers of the bench.c that report cycles. Not part of the library.
 *
 * A cycle is a step of a chain of dependent additions, timed beside every single run, so that a changing
 * clock cancels. Figures are medians, bounds lower quartiles. */
#ifndef ONEBIT_BASE_BENCHING_H
#define ONEBIT_BASE_BENCHING_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "base/isa.h"

enum { BENCH_MIN_RUNS = 5, BENCH_MAX_RUNS = 401 };
static const double BENCH_BUDGET = 0.4; /* seconds a figure */

typedef struct {
    double seconds, cycles, clock; /* medians; clock in Hz */
    double low_cycles;             /* the lower quartile */
} bench_timing;

/* Seconds that this thread has run: on an idle core the wall clock's, on a shared one without the others'. */
static double bench_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Cycles a second, from a chain of dependent one-cycle additions. */
static double bench_clock(void) {
    enum { ROUNDS = 100000, ADDS = 8 };
    double best = 0;
    for (int attempt = 0; attempt < 3; ++attempt) {
        uint64_t sum = 0;
        double start = bench_now();
        for (int round = 0; round < ROUNDS; ++round)
            for (int i = 0; i < ADDS; ++i)
#if defined(__x86_64__)
                __asm__ volatile("add $1, %0" : "+r"(sum));
#else
                __asm__ volatile("add %0, %0, #1" : "+r"(sum));
#endif
        double rate = ROUNDS * ADDS / (bench_now() - start);
        best = rate > best ? rate : best; /* an interruption can only slow it */
    }
    return best;
}

static int bench_ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double bench_median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, bench_ascending);
    return values[count / 2];
}

/* Medians over repeated calls, each beside a measurement of the clock. */
static bench_timing bench_measure(void (*work)(void *), void *context) {
    static double seconds[BENCH_MAX_RUNS], cycles[BENCH_MAX_RUNS], clocks[BENCH_MAX_RUNS];
    double start = bench_now(), once;
    work(context);
    once = bench_now() - start;
    long repeat = once < 2e-4 ? (long)(2e-4 / (once + 1e-9)) + 1 : 1;
    int runs = 0;
    for (start = bench_now();
         runs < BENCH_MAX_RUNS && (runs < BENCH_MIN_RUNS || bench_now() - start < BENCH_BUDGET); ++runs) {
        clocks[runs] = bench_clock();
        double begin = bench_now();
        for (long i = 0; i < repeat; ++i)
            work(context);
        seconds[runs] = (bench_now() - begin) / (double)repeat;
        cycles[runs] = seconds[runs] * clocks[runs];
    }
    bench_timing result = {bench_median(seconds, runs), bench_median(cycles, runs),
                           bench_median(clocks, runs), 0};
    result.low_cycles = cycles[runs / 4]; /* bench_median() sorted them */
    return result;
}

/* ---- bounds: what the execution units can do when nothing else is in the way ---- */

enum { BENCH_BOUND_ROUNDS = 10000 };
/* MAC/cycle; 0 where the machine cannot. The first is xor, popcount and add. */
static double bench_avx512_bound, bench_avx512_fma, bench_avx2_fma;

#if defined(__x86_64__)

#define BENCH_TIMES4(x)  x(0) x(1) x(2) x(3)
#define BENCH_TIMES8(x)  BENCH_TIMES4(x) x(4) x(5) x(6) x(7)
#define BENCH_TIMES12(x) BENCH_TIMES8(x) x(8) x(9) x(10) x(11)

/* xor, popcount and add into 8 accumulators, 4 times: 32 * 512 MAC a round. */
__attribute__((target("avx512f"))) static void bench_mix_avx512(void *unused) {
    (void)unused;
    for (int i = 0; i < BENCH_BOUND_ROUNDS; ++i)
#define MIX(r)                                                                                               \
    "vpxord %%zmm30, %%zmm31, %%zmm1" #r "\n\tvpopcntd %%zmm1" #r ", %%zmm1" #r "\n\tvpaddd %%zmm1" #r       \
    ", %%zmm2" #r ", %%zmm2" #r "\n\t"
        __asm__ volatile(BENCH_TIMES8(MIX) BENCH_TIMES8(MIX) BENCH_TIMES8(MIX) BENCH_TIMES8(MIX)::
                             : "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",
                               "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27");
#undef MIX
}

__attribute__((target("avx512f"))) static void bench_fma_avx512(void *unused) {
    (void)unused;
    for (int i = 0; i < BENCH_BOUND_ROUNDS; ++i)
#define FMA(r) "vfmadd231ps %%zmm31, %%zmm31, %%zmm" #r "\n\t"
        __asm__ volatile("vpxord %%zmm31, %%zmm31, %%zmm31\n\t" BENCH_TIMES12(FMA)::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                               "xmm10", "xmm11", "xmm31");
#undef FMA
}

__attribute__((target("avx2,fma"))) static void bench_fma_avx2(void *unused) {
    (void)unused;
    for (int i = 0; i < BENCH_BOUND_ROUNDS; ++i)
#define FMA(r) "vfmadd231ps %%ymm15, %%ymm15, %%ymm" #r "\n\t"
        __asm__ volatile("vpxor %%ymm15, %%ymm15, %%ymm15\n\t" BENCH_TIMES12(FMA)::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                               "xmm10", "xmm11", "xmm15");
#undef FMA
}

static void bench_bounds(void) {
    const onebit_isas isas = onebit_isas_here();
    if (isas & ONEBIT_ISA_AVX2)
        bench_avx2_fma = 12 * 8.0 * BENCH_BOUND_ROUNDS / bench_measure(bench_fma_avx2, NULL).low_cycles;
    if (isas & ONEBIT_ISA_AVX512) {
        bench_avx512_fma = 12 * 16.0 * BENCH_BOUND_ROUNDS / bench_measure(bench_fma_avx512, NULL).low_cycles;
        bench_avx512_bound =
            32 * 512.0 * BENCH_BOUND_ROUNDS / bench_measure(bench_mix_avx512, NULL).low_cycles;
    }
}

#else

static void bench_bounds(void) {
}

#endif

#endif
