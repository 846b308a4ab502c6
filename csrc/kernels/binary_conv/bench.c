/* Times every variant that this machine can run and prints JSON lines:
 *   {"what": "machine", ...}   the bounds: register-only loops of the kernels' own instruction mix
 *   {"what": "conv", ...}      a convolution, threshold to bits; `fraction` is MAC/cycle over the bound
 *   {"what": "conv_prepack", ...}
 * bench_binary_conv [--isa NAME]
 *
 * MACs are counted as others count them, kernel_h * kernel_w * channels * out_height * out_width * n, taps
 * outside the image included; tap rows outside are not computed, which is why a small image may exceed the
 * bound. base/benching.h says what a cycle is. Run it on one idle core: others disturb the caches. */
#include "base/benching.h"
#include "base/testing.h"

#include "base/bits.h"
#include "kernels/families.h"

typedef struct {
    const char *name;
    size_t size, channels, n, kernel, stride, pad;
} layer;

static const layer layers[] = {
    {"3x3", 56, 64, 64, 3, 1, 1},
    {"3x3", 28, 128, 128, 3, 1, 1},
    {"3x3", 14, 256, 256, 3, 1, 1},
    {"3x3", 7, 512, 512, 3, 1, 1},
    {"3x3 stride 2", 28, 128, 256, 3, 2, 1},
    {"1x1", 14, 256, 256, 1, 1, 0},
    {"1x1 stride 2", 56, 64, 128, 1, 2, 0},
    {"whole image", 6, 256, 1024, 6, 1, 0},
    {"one pixel", 1, 1024, 1024, 1, 1, 0},
};

typedef struct {
    const onebit_conv_variant *variant;
    onebit_conv_shape shape;
    onebit_conv_args args;
    const uint32_t *rows; /* of weights, for prepack */
    void *packed;
} convolution;

static void run_convolution(void *context) {
    const convolution *c = context;
    c->variant->run(&c->args);
}

static void run_prepack(void *context) {
    const convolution *c = context;
    c->variant->prepack(&c->shape, c->rows, c->packed);
}

static void *filled(size_t size) {
    void *memory = test_alloc_input(size);
    test_random random = {size};
    test_fill(&random, memory, size);
    return memory;
}

static void print(const convolution *c, const layer *l, bench_timing t) {
    const onebit_conv_shape *s = &c->shape;
    double macs =
        (double)(s->kernel_h * s->kernel_w * s->channels) * (double)(s->out_height * s->out_width * s->n);
    printf("{\"what\": \"conv\", \"variant\": \"%s\", \"layer\": \"%s\", \"image\": \"%zux%zux%zu\", "
           "\"n\": %zu, \"padding_value\": %d, \"seconds\": %.4g, \"clock_ghz\": %.3f, \"mac_per_cycle\": "
           "%.1f, \"gmac_per_second\": %.1f",
           c->variant->name, l->name, s->height, s->width, s->channels, s->n, (int)s->padding_value,
           t.seconds, t.clock * 1e-9, macs / t.cycles, macs / t.seconds * 1e-9);
    if (c->variant->isa == ONEBIT_ISA_AVX512)
        printf(", \"bound_mac_per_cycle\": %.1f, \"fraction\": %.3f, \"fraction_lower_quartile\": %.3f",
               bench_avx512_bound, macs / t.cycles / bench_avx512_bound,
               macs / t.low_cycles / bench_avx512_bound);
    if (c->variant->isa == ONEBIT_ISA_AVX2)
        printf(", \"times_f32_fma_peak\": %.2f", macs / t.cycles / bench_avx2_fma);
    printf("}\n");
    fflush(stdout);
}

static void bench_layer(const onebit_conv_variant *v, const layer *l, int32_t padding_value) {
    const size_t out = (l->size + 2 * l->pad - l->kernel) / l->stride + 1;
    convolution c = {.variant = v,
                     .shape = {.height = l->size,
                               .width = l->size,
                               .channels = l->channels,
                               .out_height = out,
                               .out_width = out,
                               .n = l->n,
                               .kernel_h = l->kernel,
                               .kernel_w = l->kernel,
                               .stride_h = l->stride,
                               .stride_w = l->stride,
                               .dilation_h = 1,
                               .dilation_w = 1,
                               .pad_top = l->pad,
                               .pad_left = l->pad,
                               .groups = 1,
                               .padding_value = padding_value}};
    const size_t words = onebit_words(l->channels), taps = l->kernel * l->kernel;
    c.rows = filled(l->n * taps * words * 4);
    c.packed = filled(v->packed_size(&c.shape));
    void *input = filled(l->size * l->size * words * 4), *scratch = filled(v->scratch_size(&c.shape));
    void *output = filled(out * out * onebit_words(l->n) * 4);
    int32_t *thresholds = calloc(l->n, sizeof *thresholds);
    uint32_t *flips = calloc(onebit_words(l->n), sizeof *flips);
    if (!thresholds || !flips)
        abort();
    const onebit_epilogue epilogue = {ONEBIT_EPILOGUE_BITS, NULL, NULL, thresholds, flips};
    c.args = (onebit_conv_args){.shape = &c.shape,
                                .row_end = out,
                                .n_end = l->n,
                                .input = input,
                                .weights = c.packed,
                                .out = output,
                                .epilogue = &epilogue,
                                .scratch = scratch};
    bench_timing t = bench_measure(run_prepack, &c);
    printf("{\"what\": \"conv_prepack\", \"variant\": \"%s\", \"layer\": \"%s\", \"channels\": %zu, \"n\": "
           "%zu, \"seconds\": %.4g, \"bytes\": %zu}\n",
           v->name, l->name, l->channels, l->n, t.seconds, v->packed_size(&c.shape));
    print(&c, l, bench_measure(run_convolution, &c));
    void *const all[] = {(void *)c.rows, c.packed, input, scratch, output, thresholds, flips};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
}

int main(int argc, char **argv) {
    onebit_isas isas = onebit_isas_here();
    if (argc == 3 && strcmp(argv[1], "--isa") == 0 && onebit_isa_from_name(argv[2])) {
        isas &= onebit_isa_from_name(argv[2]);
    } else if (argc > 1) {
        fprintf(stderr, "usage: %s [--isa NAME]\n", argv[0]);
        return 2;
    }
    bench_bounds();
    printf("{\"what\": \"machine\", \"isa\": \"%s\", \"clock_ghz\": %.3f, "
           "\"avx512_xor_popcnt_add_mac_per_cycle\": %.1f, "
           "\"avx512_f32_fma_mac_per_cycle\": %.1f, \"avx2_f32_fma_mac_per_cycle\": %.1f}\n",
           onebit_isa_name(onebit_isa_best(onebit_isas_here())), bench_clock() * 1e-9, bench_avx512_bound,
           bench_avx512_fma, bench_avx2_fma);
    for (; isas; isas &= isas - 1) {
        const onebit_conv_variant *v = onebit_binary_conv_variant(onebit_isa_best(isas));
        if (!v)
            continue;
        for (size_t i = 0; i < sizeof layers / sizeof *layers; ++i)
            for (int32_t value = layers[i].pad ? -1 : 0; value <= 0; ++value)
                bench_layer(v, layers + i, value);
    }
    return 0;
}
