/* Prints, for each variant of the families that add floats, a digest of what it computes from fixed inputs.
 * Every variant defines an order of its operations and no compiler may change it, so the builds of two
 * compilers print the same: `make test-c` compares them. */
#include "base/testing.h"

#include "kernels/families.h"

enum { M = 7, N = 37, K = 301, SIDE = 9, CHANNELS = 13, OUT = 21 };

static test_random rng;

/* Floats of many exponents, so that an order of summation shows. */
static float *floats(size_t count) {
    float *x = test_alloc_input(count * sizeof *x);
    for (size_t i = 0; i < count; ++i) {
        const float value = test_float(&rng);
        x[i] = value * (float)(1 << test_below(&rng, 12));
    }
    return x;
}

/* FNV-1a. */
static void print_digest(const char *name, const char *what, const void *bytes, size_t size) {
    uint64_t digest = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < size; ++i)
        digest = (digest ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001B3);
    printf("%s %s %016" PRIx64 "\n", name, what, digest);
}

static void digest_gemm(const onebit_gemm_variant *v, const void *weights) {
    float *a = floats(M * K), *scale = floats(N), *bias = floats(N), *out = test_alloc_input(M * N * 4);
    void *packed = test_alloc_input(v->packed_size(N, K)), *scratch = test_alloc_input(v->scratch_size(M, K));
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_F32, scale, bias, NULL, NULL};
    const onebit_gemm_args args = {.m = M,
                                   .n = N,
                                   .k = K,
                                   .n_end = N,
                                   .a = a,
                                   .a_stride = K * sizeof *a,
                                   .weights = packed,
                                   .out = out,
                                   .out_stride = N * sizeof *out,
                                   .epilogue = &epilogue,
                                   .scratch = scratch};
    v->prepack(N, K, weights, packed);
    v->run(&args);
    print_digest(v->name, "product", out, M * N * sizeof *out);
    free(a), free(scale), free(bias), free(out), free(packed), free(scratch);
}

static void digest_conv(const onebit_conv_variant *v, const void *weights) {
    const onebit_conv_shape shape = {.height = SIDE,
                                     .width = SIDE,
                                     .channels = CHANNELS,
                                     .out_height = SIDE,
                                     .out_width = SIDE,
                                     .n = OUT,
                                     .kernel_h = 3,
                                     .kernel_w = 3,
                                     .stride_h = 1,
                                     .stride_w = 1,
                                     .dilation_h = 1,
                                     .dilation_w = 1,
                                     .pad_top = 1,
                                     .pad_left = 1,
                                     .groups = 1};
    const size_t count = SIDE * SIDE * OUT;
    float *x = floats(SIDE * SIDE * CHANNELS), *scale = floats(OUT), *bias = floats(OUT);
    float *out = test_alloc_input(count * sizeof *out);
    void *packed = test_alloc_input(v->packed_size(&shape)),
         *scratch = test_alloc_input(v->scratch_size(&shape));
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_F32, scale, bias, NULL, NULL};
    const onebit_conv_args args = {&shape, 0, SIDE, 0, OUT, x, packed, out, &epilogue, scratch};
    v->prepack(&shape, weights, packed);
    v->run(&args);
    print_digest(v->name, "convolution", out, count * sizeof *out);
    free(x), free(scale), free(bias), free(out), free(packed), free(scratch);
}

static void digest_pool(const onebit_pool *v) {
    const onebit_pool_shape shape = {SIDE, SIDE, CHANNELS, SIDE, SIDE, 3, 3, 1, 1, 1, 1, 1, 1};
    const size_t count = SIDE * SIDE * CHANNELS;
    float *x = floats(count), *out = test_alloc_input(count * sizeof *out);
    v->average_f32(&(onebit_pool_args){&shape, 0, SIDE, x, out}, 0);
    print_digest(v->name, "average", out, count * sizeof *out);
    v->channel_mean(SIDE * SIDE, CHANNELS, x, out);
    print_digest(v->name, "channel mean", out, SIDE * SIDE * sizeof *out);
    free(x), free(out);
}

static void digest_affine(const onebit_elementwise *v) {
    float *x = floats(M * N), *scale = floats(N), *shift = floats(N);
    v->affine(M, N, x, scale, shift, x);
    print_digest(v->name, "affine", x, M * N * sizeof *x);
    free(x), free(scale), free(shift);
}

int main(void) {
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_isas set = onebit_isas_from(onebit_isa_best(left));
        rng = (test_random){2016};
        uint32_t *bits = test_alloc_input(N * ((K + 31) / 32) * 4), *taps = test_alloc_input(OUT * 9 * 4);
        float *weights = floats(N * K + OUT * 9 * CHANNELS);
        test_fill_bits(&rng, bits, N, K);
        test_fill_bits(&rng, taps, OUT * 9, CHANNELS);
        digest_gemm(onebit_f32_gemm_variant(set), weights);
        digest_gemm(onebit_f32_binary_gemm_variant(set), bits);
        digest_conv(onebit_f32_conv_variant(set), weights);
        digest_conv(onebit_f32_binary_conv_variant(set), taps);
        digest_pool(onebit_pool_variant(set));
        digest_affine(onebit_elementwise_variant(set));
        free(bits), free(taps), free(weights);
    }
    return 0;
}
