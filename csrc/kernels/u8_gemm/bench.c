/* GMAC/s of every variant: the first layer of the MNIST MLP, and the caller's own with `bench m n k`. */
#include "kernels/bench_gemm.h"
#include "kernels/families.h"

/* Best seconds of a call. */
static double measure(const onebit_gemm_variant *variant, size_t m, size_t n, size_t k) {
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
    const double seconds = bench_gemm_time(variant, &args);
    free(a), free(w), free(threshold), free(flip), free(packed), free(scratch), free(out);
    return seconds;
}

int main(int argc, char **argv) {
    static const bench_gemm_layer layers[] = {{1, 4096, 784}, {4, 4096, 784}, {256, 4096, 784}};
    return bench_gemm_main(argc, argv, onebit_u8_gemm_variant, measure, layers,
                           sizeof layers / sizeof *layers);
}
