/* What the benches of the convolution families share. Each prints JSON lines:
 *   {"what": "machine", "isa": ..., "fma_gmacs": ...}  the peak of float32 multiply-adds in registers
 *   {"what": "conv", "variant": ..., "shape": "H x W x C -> N kernel k stride s", "us": ..., "gmacs": ...,
 *    "share": ...}                                     share of that peak
 * bench_<family> [--isa NAME] [--shape H,W,C,N,K,STRIDE,PAD,GROUPS]
 * Times are of this thread alone (a shared machine disturbs less), the best of many calls. */
#ifndef ONEBIT_KERNELS_BENCH_CONV_H
#define ONEBIT_KERNELS_BENCH_CONV_H

#include <time.h>

#include "base/testing.h"
#include "kernels/conv.h"
#include "kernels/testing_conv.h"

static inline double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The least seconds of a call: 0.3 s of calls in samples of about 0.2 ms. */
static inline double bench_best(void (*call)(void *), void *context) {
    call(context);
    double begin = bench_now(), best = 1e9;
    call(context);
    const double once = bench_now() - begin + 1e-9;
    const long repeat = once < 2e-4 ? (long)(2e-4 / once) + 1 : 1;
    for (double start = bench_now(); bench_now() - start < 0.3;) {
        begin = bench_now();
        for (long i = 0; i < repeat; ++i)
            call(context);
        const double seconds = (bench_now() - begin) / (double)repeat;
        best = seconds < best ? seconds : best;
    }
    return best;
}

enum { BENCH_FMAS = 10000 * 12 };

#if defined(__x86_64__)
#define BENCH_FMA_LOOP(name, isa, r)                                                                         \
    __attribute__((target(isa))) static void name(void *unused) {                                            \
        (void)unused;                                                                                        \
        for (int i = 0; i < BENCH_FMAS / 12; ++i)                                                            \
            __asm__ volatile("vxorps %%" r "15, %%" r "15, %%" r                                             \
                             "15\n\t" BENCH_FMA(r, 0) BENCH_FMA(r, 1) BENCH_FMA(r, 2) BENCH_FMA(r, 3)        \
                                 BENCH_FMA(r, 4) BENCH_FMA(r, 5) BENCH_FMA(r, 6) BENCH_FMA(r, 7)             \
                                     BENCH_FMA(r, 8) BENCH_FMA(r, 9) BENCH_FMA(r, 10) BENCH_FMA(r, 11)::     \
                                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",   \
                                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm15");                       \
    }
#define BENCH_FMA(r, i) "vfmadd231ps %%" r "15, %%" r "15, %%" r #i "\n\t"
BENCH_FMA_LOOP(bench_fma_avx2, "avx2,fma", "ymm")
BENCH_FMA_LOOP(bench_fma_avx512, "avx512f,avx512dq", "zmm")
#endif

/* GMAC/s of multiply-adds alone; of what a compiler makes of plain C nothing is known: 0. */
static inline double bench_peak(onebit_isa isa) {
#if defined(__x86_64__)
    if (isa == ONEBIT_ISA_AVX2)
        return BENCH_FMAS * 8 / bench_best(bench_fma_avx2, NULL) * 1e-9;
    if (isa == ONEBIT_ISA_AVX512)
        return BENCH_FMAS * 16 / bench_best(bench_fma_avx512, NULL) * 1e-9;
#endif
    (void)isa;
    return 0;
}

typedef struct {
    const onebit_conv_variant *variant;
    onebit_conv_args args;
} bench_conv_call;

static inline void bench_conv_run(void *context) {
    const bench_conv_call *call = context;
    call->variant->run(&call->args);
}

/* One image. `element` and `weight`: bytes of an input element, and of the weights of one tap and channel
 * (4), or 0 where those are bits. */
static inline void bench_conv(const onebit_conv_variant *variant, const onebit_conv_shape *s, size_t element,
                              size_t weight, onebit_epilogue_kind kind, double peak) {
    test_random random = {1};
    const size_t k = test_conv_k(s), words = (s->channels / s->groups + 31) / 32 * s->kernel_h * s->kernel_w;
    const size_t outputs = test_conv_outputs(s, 1), inputs = test_conv_inputs(s, 1);
    void *x = test_alloc_input(inputs * element);
    void *w = test_alloc_input(s->n * (weight ? k : words) * 4);
    float *scale = test_alloc_input(s->n * 4), *bias = test_alloc_input(s->n * 4);
    int32_t *threshold = test_alloc_input(s->n * 4);
    uint32_t *flip = test_alloc_input((s->n + 31) / 32 * 4), *out = test_alloc_input(outputs * 4);
    test_fill(&random, x, inputs * element);
    for (size_t i = 0; element == 4 && i < inputs; ++i)
        ((float *)x)[i] = test_float(&random);
    if (weight)
        for (size_t i = 0; i < s->n * k; ++i)
            ((float *)w)[i] = test_float(&random);
    else
        test_fill_bits(&random, w, s->n * s->kernel_h * s->kernel_w, s->channels / s->groups);
    for (size_t n = 0; n < s->n; ++n)
        scale[n] = 1.0f, bias[n] = -0.0f, threshold[n] = 0, flip[n / 32] = 0;
    void *packed = test_alloc_input(variant->packed_size(s)),
         *scratch = test_alloc_input(variant->scratch_size(s));
    const onebit_epilogue epilogue = {kind, scale, bias, threshold, flip};
    bench_conv_call call = {variant, {s, 0, s->out_height, 0, s->n, x, packed, out, &epilogue, scratch}};
    variant->prepack(s, w, packed);
    const double seconds = bench_best(bench_conv_run, &call);
    const double rate = (double)outputs * (double)k / seconds * 1e-9;
    printf("{\"what\": \"conv\", \"variant\": \"%s\", \"shape\": \"%zux%zux%zu -> %zu kernel %zu stride %zu "
           "pad %zu "
           "groups %zu\", \"us\": %.2f, \"gmacs\": %.1f",
           variant->name, s->height, s->width, s->channels, s->n, s->kernel_h, s->stride_h, s->pad_top,
           s->groups, seconds * 1e6, rate);
    if (peak > 0)
        printf(", \"share\": %.3f", rate / peak);
    printf("}\n");
    fflush(stdout);
    free(x), free(w), free(scale), free(bias), free(threshold), free(flip), free(out), free(packed),
        free(scratch);
}

/* height, width, channels, n, kernel, stride, padding, groups */
typedef size_t bench_shape[8];

static inline onebit_conv_shape bench_conv_shape(const bench_shape s) {
    return (onebit_conv_shape){.height = s[0],
                               .width = s[1],
                               .channels = s[2],
                               .n = s[3],
                               .out_height = test_conv_out(s[0], s[6], s[6], s[4], s[5], 1),
                               .out_width = test_conv_out(s[1], s[6], s[6], s[4], s[5], 1),
                               .kernel_h = s[4],
                               .kernel_w = s[4],
                               .stride_h = s[5],
                               .stride_w = s[5],
                               .dilation_h = 1,
                               .dilation_w = 1,
                               .pad_top = s[6],
                               .pad_left = s[6],
                               .groups = s[7],
                               .multiplier = 2,
                               .offset = -255};
}

/* Every shape on every variant that this machine can run, or what the command line asks for. */
static inline int bench_conv_main(int argc, char **argv, const onebit_conv_variant *(*family)(onebit_isas),
                                  const bench_shape *shapes, size_t count, size_t element, size_t weight,
                                  onebit_epilogue_kind kind) {
    bench_shape own;
    onebit_isas isas = onebit_isas_here();
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--isa") == 0)
            isas &= onebit_isa_from_name(argv[i + 1]);
        size_t *o = own;
        if (strcmp(argv[i], "--shape") == 0 && sscanf(argv[i + 1], "%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu", o,
                                                      o + 1, o + 2, o + 3, o + 4, o + 5, o + 6, o + 7) == 8)
            shapes = &own, count = 1;
    }
    for (; isas; isas &= isas - 1) {
        const onebit_isa isa = onebit_isa_best(isas);
        const onebit_conv_variant *variant = family(isa);
        if (!variant)
            continue;
        const double peak = bench_peak(isa);
        printf("{\"what\": \"machine\", \"isa\": \"%s\", \"fma_gmacs\": %.1f}\n", onebit_isa_name(isa), peak);
        for (size_t i = 0; i < count; ++i) {
            const onebit_conv_shape s = bench_conv_shape(shapes[i]);
            bench_conv(variant, &s, element, weight, kind, peak);
        }
    }
    return 0;
}

#endif
