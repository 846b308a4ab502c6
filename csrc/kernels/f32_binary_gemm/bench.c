/* GMAC/s of every variant: layers of BinaryConnect's MNIST MLP, and the caller's own with `bench m n k`. */
#include "kernels/bench_gemm.h"
#include "kernels/families.h"

/* Best seconds of a call. */
static double measure(const onebit_gemm_variant *variant, size_t m, size_t n, size_t k) {
    test_random random = {1};
    const size_t words = (k + 31) / 32;
    float *a = test_alloc_input(m * k * sizeof(float));
    uint32_t *w = test_alloc_input(n * words * 4);
    float *scale = test_alloc_input(n * sizeof(float)), *bias = test_alloc_input(n * sizeof(float));
    for (size_t i = 0; i < m * k; ++i)
        a[i] = test_float(&random);
    for (size_t i = 0; i < n; ++i)
        scale[i] = 1.0f, bias[i] = -0.0f;
    test_fill_bits(&random, w, n, k);
    void *packed = test_alloc_input(variant->packed_size(n, k));
    void *scratch = test_alloc_input(variant->scratch_size(m, k));
    float *out = test_alloc_input(m * n * sizeof(float));
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_F32, scale, bias, NULL, NULL};
    const onebit_gemm_args args = {
        m, n, k, 0, n, a, k * sizeof(float), packed, out, n * sizeof(float), &epilogue, 0, 0, scratch};
    variant->prepack(n, k, w, packed);
    const double seconds = bench_gemm_time(variant, &args);
    free(a), free(w), free(scale), free(bias), free(packed), free(scratch), free(out);
    return seconds;
}

int main(int argc, char **argv) {
    static const bench_gemm_layer layers[] = {
        {1, 1024, 1024}, {1, 4096, 4096}, {64, 1024, 784}, {64, 4096, 4096}};
    return bench_gemm_main(argc, argv, onebit_f32_binary_gemm_variant, measure, layers,
                           sizeof layers / sizeof *layers);
}
