/* What the benchmarks of GEMM families share: GMAC/s of every variant, on some layers or on the caller's own
 * with `bench m n k`. A family's bench.c says how to make operands of its types and calls bench_gemm_main. */
#ifndef ONEBIT_KERNELS_BENCH_GEMM_H
#define ONEBIT_KERNELS_BENCH_GEMM_H

#include <time.h>

#include "base/testing.h"
#include "kernels/gemm.h"

typedef const onebit_gemm_variant *(*bench_gemm_family)(onebit_isas set);
/* Best seconds of a call: makes the operands, prepacks, and hands over to bench_gemm_time. */
typedef double (*bench_gemm_measure)(const onebit_gemm_variant *variant, size_t m, size_t n, size_t k);

typedef struct {
    size_t m, n, k;
} bench_gemm_layer;

static inline double bench_gemm_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best seconds of a call with these arguments, of 31 samples. */
static inline double bench_gemm_time(const onebit_gemm_variant *variant, const onebit_gemm_args *args) {
    enum { SAMPLES = 31 };
    double best = 0;
    const size_t calls = 1 + (size_t)(2e7 / ((double)args->m * (double)args->n * (double)args->k));
    for (int sample = 0; sample < SAMPLES; ++sample) {
        const double start = bench_gemm_now();
        for (size_t call = 0; call < calls; ++call)
            variant->run(args);
        const double seconds = (bench_gemm_now() - start) / (double)calls;
        best = sample == 0 || seconds < best ? seconds : best;
    }
    return best;
}

static inline void bench_gemm_report(bench_gemm_family family, bench_gemm_measure measure,
                                     bench_gemm_layer layer) {
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_gemm_variant *variant = family(onebit_isa_best(left));
        if (!variant)
            continue;
        const double seconds = measure(variant, layer.m, layer.n, layer.k);
        printf("%-24s m=%-4zu n=%-5zu k=%-5zu %10.1f us %8.1f GMAC/s\n", variant->name, layer.m, layer.n,
               layer.k, seconds * 1e6, (double)layer.m * (double)layer.n * (double)layer.k / seconds * 1e-9);
    }
}

static inline int bench_gemm_main(int argc, char **argv, bench_gemm_family family, bench_gemm_measure measure,
                                  const bench_gemm_layer *layers, size_t count) {
    if (argc == 4) {
        const bench_gemm_layer own = {strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10),
                                      strtoul(argv[3], NULL, 10)};
        bench_gemm_report(family, measure, own);
        return 0;
    }
    for (size_t i = 0; i < count; ++i)
        bench_gemm_report(family, measure, layers[i]);
    return 0;
}

#endif
