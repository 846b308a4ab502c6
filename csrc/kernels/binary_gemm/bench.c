/* Times every variant that this machine can run and prints JSON lines:
 *   {"what": "machine", ...}   the bounds: register-only loops of the kernels' own instruction mix
 *   {"what": "gemm", ...}      a product; `fraction` is MAC/cycle over the variant's bound
 *   {"what": "pack_sign" | "prepack", ...}
 * bench_binary_gemm [--isa NAME] [--size MxNxK]
 *
 * A cycle is a step of a chain of dependent additions, timed beside every single run, so that a changing
 * clock cancels. Figures are medians, bounds lower quartiles. Run it on one idle core: others disturb the
 * caches. */
#include "base/testing.h"

#include "base/bits.h"
#include "kernels/binary_gemm/binary_gemm.h"
#include "kernels/pack/pack.h"

#include <time.h>

#define ONEBIT_KERNEL(isa, variant) extern const onebit_gemm_variant variant;
#include "kernels/binary_gemm/kernels.inc"
#undef ONEBIT_KERNEL

enum { MAX_RUNS = 401 };
static const double BUDGET = 0.4; /* seconds a figure, at least MIN_RUNS runs */
enum { MIN_RUNS = 5 };

typedef struct {
    double seconds, cycles, clock; /* medians; clock in Hz */
    double low_cycles;             /* the lower quartile */
} timing;

/* Seconds that this thread has run: on an idle core the wall clock's, on a shared one without the others'. */
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Cycles a second, from a chain of dependent one-cycle additions. */
static double measure_clock(void) {
    enum { ROUNDS = 100000, ADDS = 8 };
    double best = 0;
    for (int attempt = 0; attempt < 3; ++attempt) {
        uint64_t sum = 0;
        double start = now();
        for (int round = 0; round < ROUNDS; ++round)
            for (int i = 0; i < ADDS; ++i)
#if defined(__x86_64__)
                __asm__ volatile("add $1, %0" : "+r"(sum));
#else
                __asm__ volatile("add %0, %0, #1" : "+r"(sum));
#endif
        double rate = ROUNDS * ADDS / (now() - start);
        best = rate > best ? rate : best; /* an interruption can only slow it */
    }
    return best;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

/* Medians over repeated calls, each beside a measurement of the clock. */
static timing measure(void (*work)(void *), void *context) {
    static double seconds[MAX_RUNS], cycles[MAX_RUNS], clocks[MAX_RUNS];
    double start = now(), once;
    work(context);
    once = now() - start;
    long repeat = once < 2e-4 ? (long)(2e-4 / (once + 1e-9)) + 1 : 1;
    int runs = 0;
    for (start = now(); runs < MAX_RUNS && (runs < MIN_RUNS || now() - start < BUDGET); ++runs) {
        clocks[runs] = measure_clock();
        double begin = now();
        for (long i = 0; i < repeat; ++i)
            work(context);
        seconds[runs] = (now() - begin) / (double)repeat;
        cycles[runs] = seconds[runs] * clocks[runs];
    }
    timing result = {median(seconds, runs), median(cycles, runs), median(clocks, runs), 0};
    result.low_cycles = cycles[runs / 4]; /* median() sorted them */
    return result;
}

/* ---- bounds: what the execution units can do when nothing else is in the way ---- */

enum { BOUND_ROUNDS = 10000 };
static double avx512_bound, avx512_fma, avx2_fma; /* MAC/cycle; 0 where the machine cannot */

#if defined(__x86_64__)

#define TIMES4(x)  x(0) x(1) x(2) x(3)
#define TIMES8(x)  TIMES4(x) x(4) x(5) x(6) x(7)
#define TIMES12(x) TIMES8(x) x(8) x(9) x(10) x(11)

/* xor, popcount and add into 8 accumulators, 4 times: 32 * 512 MAC a round. */
__attribute__((target("avx512f"))) static void mix_avx512(void *unused) {
    (void)unused;
    for (int i = 0; i < BOUND_ROUNDS; ++i)
#define MIX(r)                                                                                               \
    "vpxord %%zmm30, %%zmm31, %%zmm1" #r "\n\tvpopcntd %%zmm1" #r ", %%zmm1" #r "\n\tvpaddd %%zmm1" #r       \
    ", %%zmm2" #r ", %%zmm2" #r "\n\t"
        __asm__ volatile(TIMES8(MIX) TIMES8(MIX) TIMES8(MIX) TIMES8(MIX)::
                             : "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",
                               "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27");
#undef MIX
}

__attribute__((target("avx512f"))) static void fma_avx512(void *unused) {
    (void)unused;
    for (int i = 0; i < BOUND_ROUNDS; ++i)
#define FMA(r) "vfmadd231ps %%zmm31, %%zmm31, %%zmm" #r "\n\t"
        __asm__ volatile("vpxord %%zmm31, %%zmm31, %%zmm31\n\t" TIMES12(FMA)::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                               "xmm10", "xmm11", "xmm31");
#undef FMA
}

__attribute__((target("avx2,fma"))) static void fma_avx2(void *unused) {
    (void)unused;
    for (int i = 0; i < BOUND_ROUNDS; ++i)
#define FMA(r) "vfmadd231ps %%ymm15, %%ymm15, %%ymm" #r "\n\t"
        __asm__ volatile("vpxor %%ymm15, %%ymm15, %%ymm15\n\t" TIMES12(FMA)::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                               "xmm10", "xmm11", "xmm15");
#undef FMA
}

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
    double a = measure(isa == ONEBIT_ISA_AVX512 ? read_avx512_2 : read_avx2_2, &s).cycles;
    double b = measure(isa == ONEBIT_ISA_AVX512 ? read_avx512_8 : read_avx2_8, &s).cycles;
    return a < b ? a : b;
}

static void measure_bounds(void) {
    onebit_isa isa = onebit_isa_detect();
    if (isa >= ONEBIT_ISA_AVX2)
        avx2_fma = 12 * 8.0 * BOUND_ROUNDS / measure(fma_avx2, NULL).low_cycles;
    if (isa >= ONEBIT_ISA_AVX512) {
        avx512_fma = 12 * 16.0 * BOUND_ROUNDS / measure(fma_avx512, NULL).low_cycles;
        avx512_bound = 32 * 512.0 * BOUND_ROUNDS / measure(mix_avx512, NULL).low_cycles;
    }
}

#else

static double read_cycles(onebit_isa isa, const void *memory, size_t size) {
    (void)isa, (void)memory, (void)size;
    return 0;
}

static void measure_bounds(void) {
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

static void print_product(const product *p, timing t, double read) {
    static const char *const kinds[] = {"i32", "f32", "bits"};
    double macs = (double)p->args.m * (double)p->args.n * (double)p->args.k;
    onebit_isa isa = p->variant->isa;
    printf(
        "{\"what\": \"gemm\", \"variant\": \"%s\", \"m\": %zu, \"n\": %zu, \"k\": %zu, \"epilogue\": \"%s\", "
        "\"seconds\": %.4g, \"clock_ghz\": %.3f, \"mac_per_cycle\": %.1f, \"gmac_per_second\": %.1f",
        p->variant->name, p->args.m, p->args.n, p->args.k, kinds[p->args.epilogue->kind], t.seconds,
        t.clock * 1e-9, macs / t.cycles, macs / t.seconds * 1e-9);
    if (isa == ONEBIT_ISA_AVX512)
        printf(", \"bound_mac_per_cycle\": %.1f, \"fraction\": %.3f", avx512_bound,
               macs / t.cycles / avx512_bound);
    if (isa == ONEBIT_ISA_AVX2)
        printf(", \"times_f32_fma_peak\": %.2f", macs / t.cycles / avx2_fma);
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
    timing t = measure(run_prepack, &p);
    printf("{\"what\": \"prepack\", \"variant\": \"%s\", \"n\": %zu, \"k\": %zu, \"seconds\": %.4g}\n",
           v->name, n, k, t.seconds);
    double read =
        m == 1 && v->isa > ONEBIT_ISA_GENERIC ? read_cycles(v->isa, p.packed, v->packed_size(n, k)) : 0;
    for (onebit_epilogue_kind kind = ONEBIT_EPILOGUE_I32; kind <= ONEBIT_EPILOGUE_BITS; ++kind) {
        onebit_epilogue epilogue = {kind, floats, floats, thresholds, flips};
        p.args.epilogue = &epilogue;
        p.args.out_stride = kind == ONEBIT_EPILOGUE_BITS ? onebit_words(n) * 4 : n * 4;
        print_product(&p, measure(run_product, &p), read);
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
    packing p = {onebit_pack_variant(isa), filled(rows * channels * 4),
                 filled(rows * onebit_words(channels) * 4), rows, channels};
    timing t = measure(run_sign, &p);
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
    const char *isa = NULL;
    size_t m = 0, n = 0, k = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--isa") == 0 && onebit_isa_from_name(argv[i + 1]) >= 0)
            isa = argv[i + 1];
        else if (i + 1 == argc || strcmp(argv[i], "--size") != 0 ||
                 sscanf(argv[i + 1], "%zux%zux%zu", &m, &n, &k) != 3 || !m || !n || !k) {
            fprintf(stderr, "usage: %s [--isa generic|avx2|avx512] [--size MxNxK]\n", argv[0]);
            return 2;
        }
    }
    measure_bounds();
    printf("{\"what\": \"machine\", \"isa\": \"%s\", \"clock_ghz\": %.3f, "
           "\"avx512_xor_popcnt_add_mac_per_cycle\": %.1f, "
           "\"avx512_f32_fma_mac_per_cycle\": %.1f, \"avx2_f32_fma_mac_per_cycle\": %.1f}\n",
           onebit_isa_name(onebit_isa_detect()), measure_clock() * 1e-9, avx512_bound, avx512_fma, avx2_fma);
    for (int tier = ONEBIT_ISA_COUNT - 1; tier >= 0; --tier) {
        const onebit_gemm_variant *v = onebit_binary_gemm_variant((onebit_isa)tier);
        if (!v || tier > (int)onebit_isa_detect() || (isa && tier != onebit_isa_from_name(isa)))
            continue;
        bench_sign((onebit_isa)tier, m ? m : 4096, k ? k : 4096);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i)
            if (m)
                bench_product(v, m, n, k), i = sizeof shapes / sizeof *shapes;
            else
                bench_product(v, shapes[i][0], shapes[i][1], shapes[i][2]);
    }
    return 0;
}
