/* GMAC/s of every variant: the first layer of the MNIST MLP, and the caller's own with `bench m n k`. */
#include <time.h>

#include "base/testing.h"
#include "kernels/u8_gemm/u8_gemm.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Best seconds of a call. */
static double measure(const onebit_gemm_variant *variant, size_t m, size_t n, size_t k) {
    enum { SAMPLES = 31 };
    test_random random = {1};
    const size_t words = (k + 31) / 32;
    uint8_t *a = test_alloc_input(m * k);
    uint32_t *w = test_alloc_input(n * words * 4);
    int32_t *threshold = test_alloc_input(n * 4);
    uint32_t *flip = test_alloc_input((n + 31) / 32 * 4);
    test_fill(&random, a, m * k);
    test_fill_bits(&random, w, n, k);
    test_fill(&random, threshold, n * 4);
    memset(flip, 0, (n + 31) / 32 * 4);
    void *packed = test_alloc_input(variant->packed_size(n, k));
    void *scratch = test_alloc_input(variant->scratch_size(m, k));
    void *out = test_alloc_input(m * ((n + 31) / 32 * 4));
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_BITS, NULL, NULL, threshold, flip};
    const onebit_gemm_args args = {m,         n, k,    0,      n, a, k, packed, out, (n + 31) / 32 * 4,
                                   &epilogue, 2, -255, scratch};
    variant->prepack(n, k, w, packed);
    double seconds[SAMPLES];
    const size_t calls = 1 + (size_t)(2e7 / ((double)m * (double)n * (double)k));
    for (int sample = 0; sample < SAMPLES; ++sample) {
        const double start = now();
        for (size_t call = 0; call < calls; ++call)
            variant->run(&args);
        seconds[sample] = (now() - start) / (double)calls;
    }
    qsort(seconds, SAMPLES, sizeof *seconds, ascending);
    free(a), free(w), free(threshold), free(flip), free(packed), free(scratch), free(out);
    return seconds[0];
}

static void report(size_t m, size_t n, size_t k) {
    for (int isa = 0; isa <= (int)onebit_isa_detect(); ++isa) {
        const onebit_gemm_variant *variant = onebit_u8_gemm_variant((onebit_isa)isa);
        if (!variant)
            continue;
        const double seconds = measure(variant, m, n, k);
        printf("%-24s m=%-4zu n=%-5zu k=%-5zu %10.1f us %8.1f GMAC/s\n", variant->name, m, n, k,
               seconds * 1e6, (double)m * (double)n * (double)k / seconds * 1e-9);
    }
}

int main(int argc, char **argv) {
    if (argc == 4) {
        report(strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10));
        return 0;
    }
    report(1, 4096, 784);
    report(4, 4096, 784);
    report(256, 4096, 784);

    return 0;
}
