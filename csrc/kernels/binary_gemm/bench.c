/* Times every variant that this machine can run and prints JSON lines:
 *   {"what": "machine", ...}   the bounds: register-only loops of the kernels' own instruction mix
 *   {"what": "gemm", ...}      a product; `fraction` is MAC/cycle over the variant's bound
 *   {"what": "pack_sign" | "prepack", ...}
 * bench_binary_gemm [--isa NAME] [--size MxNxK]
 *
 * base/benching.h says what a cycle is. Figures are medians, bounds lower quartiles. Run it on one idle core:
 * others disturb the caches. */
#include "base/benching.h"
#include "base/testing.h"

#include "base/bits.h"
#include "kernels/families.h"

/* ---- the speed of memory ---- */

#if defined(__x86_64__)

typedef struct {
    const char *begin, *end; /* a multiple of 512 bytes */
} span;

#define READ_LOOP(name, isa, load, bytes)                                                                    \
    __attribute__((target(isa))) static void name(void *context) {                                           \
        const span *s = context;                                                                             \
        for (const char *p = s->begin; p < s->end; p += (bytes))                                             \
            __asm__ volatile(load::"r"(p)                                                                    \
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "memory");    \
    }
READ_LOOP(read_avx512_2, "avx512f", "vmovdqa64 (%0), %%zmm0\n\tvmovdqa64 64(%0), %%zmm1", 128)
READ_LOOP(read_avx512_8, "avx512f",
          "vmovdqa64 (%0), %%zmm0\n\tvmovdqa64 64(%0), %%zmm1\n\tvmovdqa64 128(%0), %%zmm2\n\t"
          "vmovdqa64 192(%0), %%zmm3\n\tvmovdqa64 256(%0), %%zmm4\n\tvmovdqa64 320(%0), %%zmm5\n\t"
          "vmovdqa64 384(%0), %%zmm6\n\tvmovdqa64 448(%0), %%zmm7",
          512)
READ_LOOP(read_avx2_2, "avx2", "vmovdqa (%0), %%ymm0\n\tvmovdqa 32(%0), %%ymm1", 64)
READ_LOOP(read_avx2_8, "avx2",
          "vmovdqa (%0), %%ymm0\n\tvmovdqa 32(%0), %%ymm1\n\tvmovdqa 64(%0), %%ymm2\n\t"
          "vmovdqa 96(%0), %%ymm3\n\tvmovdqa 128(%0), %%ymm4\n\tvmovdqa 160(%0), %%ymm5\n\t"
          "vmovdqa 192(%0), %%ymm6\n\tvmovdqa 224(%0), %%ymm7",
          256)

/* Cycles to read `size` bytes with vectors of this ISA, the best of two unrollings. */
static double read_cycles(onebit_isa isa, const void *memory, size_t size) {
    span s = {memory, (const char *)memory + size / 512 * 512};
    double a = bench_measure(isa == ONEBIT_ISA_AVX512 ? read_avx512_2 : read_avx2_2, &s).cycles;
    double b = bench_measure(isa == ONEBIT_ISA_AVX512 ? read_avx512_8 : read_avx2_8, &s).cycles;
    return a < b ? a : b;
}

#else

static double read_cycles(onebit_isa isa, const void *memory, size_t size) {
    (void)isa, (void)memory, (void)size;
    return 0;
}

#endif

/* ---- products ---- */

typedef struct {
    const onebit_gemm_variant *variant;
    onebit_gemm_args args;
    const uint32_t *rows; /* of weights, for prepack */
    void *packed;
} product;

static void run_product(void *context) {
    const product *p = context;
    p->variant->run(&p->args);
}

static void run_prepack(void *context) {
    const product *p = context;
    p->variant->prepack(p->args.n, p->args.k, p->rows, p->packed);
}

static void *filled(size_t size) {
    void *memory = test_alloc_input((size + 511) / 512 * 512);
    test_random random = {size};
    test_fill(&random, memory, (size + 511) / 512 * 512);
    return memory;
}

static void print_product(const product *p, bench_timing t, double read) {
    static const char *const kinds[] = {"i32", "f32", "bits"};
    double macs = (double)p->args.m * (double)p->args.n * (double)p->args.k;
    onebit_isa isa = p->variant->isa;
    printf(
        "{\"what\": \"gemm\", \"variant\": \"%s\", \"m\": %zu, \"n\": %zu, \"k\": %zu, \"epilogue\": \"%s\", "
        "\"seconds\": %.4g, \"clock_ghz\": %.3f, \"mac_per_cycle\": %.1f, \"gmac_per_second\": %.1f",
        p->variant->name, p->args.m, p->args.n, p->args.k, kinds[p->args.epilogue->kind], t.seconds,
        t.clock * 1e-9, macs / t.cycles, macs / t.seconds * 1e-9);
    if (isa == ONEBIT_ISA_AVX512)
        printf(", \"bound_mac_per_cycle\": %.1f, \"fraction\": %.3f", bench_avx512_bound,
               macs / t.cycles / bench_avx512_bound);
    if (isa == ONEBIT_ISA_AVX2)
        printf(", \"times_f32_fma_peak\": %.2f", macs / t.cycles / bench_avx2_fma);
    if (read > 0) {
        double bytes = (double)p->variant->packed_size(p->args.n, p->args.k);
        printf(", \"read_bytes_per_cycle\": %.2f, \"fraction_of_read\": %.3f", bytes / read, read / t.cycles);
    }
    printf("}\n");
    fflush(stdout);
}

static void bench_product(const onebit_gemm_variant *v, size_t m, size_t n, size_t k) {
    size_t words = onebit_words(k);
    product p = {.variant = v, .rows = filled(n * words * 4), .packed = filled(v->packed_size(n, k))};
    void *a = filled(m * words * 4), *out = filled(m * n * 4), *scratch = filled(v->scratch_size(m, k));
    float *floats = calloc(n, sizeof *floats);
    int32_t *thresholds = calloc(n, sizeof *thresholds);
    uint32_t *flips = calloc(onebit_words(n), sizeof *flips);
    if (!floats || !thresholds || !flips)
        abort();
    p.args = (onebit_gemm_args){.m = m,
                                .n = n,
                                .k = k,
                                .n_end = n,
                                .a = a,
                                .a_stride = words * 4,
                                .weights = p.packed,
                                .out = out,
                                .scratch = scratch};
    bench_timing t = bench_measure(run_prepack, &p);
    printf("{\"what\": \"prepack\", \"variant\": \"%s\", \"n\": %zu, \"k\": %zu, \"seconds\": %.4g}\n",
           v->name, n, k, t.seconds);
    double read =
        m == 1 && v->isa != ONEBIT_ISA_GENERIC ? read_cycles(v->isa, p.packed, v->packed_size(n, k)) : 0;
    for (onebit_epilogue_kind kind = ONEBIT_EPILOGUE_I32; kind <= ONEBIT_EPILOGUE_BITS; ++kind) {
        onebit_epilogue epilogue = {kind, floats, floats, thresholds, flips};
        p.args.epilogue = &epilogue;
        p.args.out_stride = kind == ONEBIT_EPILOGUE_BITS ? onebit_words(n) * 4 : n * 4;
        print_product(&p, bench_measure(run_product, &p), read);
    }
    void *const all[] = {(void *)p.rows, p.packed, a, out, scratch, floats, thresholds, flips};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
}

typedef struct {
    const onebit_pack *pack;
    const float *x;
    uint32_t *bits;
    size_t rows, channels;
} packing;

static void run_sign(void *context) {
    const packing *p = context;
    p->pack->sign(p->rows, p->channels, p->x, p->bits);
}

static void bench_sign(onebit_isa isa, size_t rows, size_t channels) {
    packing p = {onebit_pack_variant(onebit_isas_from(isa)), filled(rows * channels * 4),
                 filled(rows * onebit_words(channels) * 4), rows, channels};
    bench_timing t = bench_measure(run_sign, &p);
    printf(
        "{\"what\": \"pack_sign\", \"variant\": \"%s\", \"rows\": %zu, \"channels\": %zu, \"seconds\": %.4g, "
        "\"values_per_cycle\": %.2f}\n",
        p.pack->name, rows, channels, t.seconds, (double)(rows * channels) / t.cycles);
    free((void *)p.x);
    free(p.bits);
}

int main(int argc, char **argv) {
    static const size_t shapes[][3] = {
        {4096, 4096, 4096}, {1024, 1024, 1024}, {1, 4096, 4096}, {256, 4096, 4096}};
    onebit_isas isas = onebit_isas_here();
    size_t m = 0, n = 0, k = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--isa") == 0 && onebit_isa_from_name(argv[i + 1]))
            isas &= onebit_isa_from_name(argv[i + 1]);
        else if (i + 1 == argc || strcmp(argv[i], "--size") != 0 ||
                 sscanf(argv[i + 1], "%zux%zux%zu", &m, &n, &k) != 3 || !m || !n || !k) {
            fprintf(stderr, "usage: %s [--isa NAME] [--size MxNxK]\n", argv[0]);
            return 2;
        }
    }
    bench_bounds();
    printf("{\"what\": \"machine\", \"isa\": \"%s\", \"clock_ghz\": %.3f, "
           "\"avx512_xor_popcnt_add_mac_per_cycle\": %.1f, "
           "\"avx512_f32_fma_mac_per_cycle\": %.1f, \"avx2_f32_fma_mac_per_cycle\": %.1f}\n",
           onebit_isa_name(onebit_isa_best(onebit_isas_here())), bench_clock() * 1e-9, bench_avx512_bound,
           bench_avx512_fma, bench_avx2_fma);
    for (; isas; isas &= isas - 1) {
        const onebit_isa isa = onebit_isa_best(isas);
        const onebit_gemm_variant *v = onebit_binary_gemm_variant(isa);
        if (!v)
            continue;
        bench_sign(isa, m ? m : 4096, k ? k : 4096);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i)
            if (m)
                bench_product(v, m, n, k), i = sizeof shapes / sizeof *shapes;
            else
                bench_product(v, shapes[i][0], shapes[i][1], shapes[i][2]);
    }
    return 0;
}
