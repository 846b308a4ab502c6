/* Which instruction mix counts differing bits fastest with AVX-512? Register-only loops, MAC/cycle.
 *
 *   cc -O2 avx512_mixes.c -o avx512_mixes && ./avx512_mixes
 *
 *   xor popcnt add      3 instructions for 512 MAC: what csrc/kernels/binary_gemm/x86_avx512.c does.
 *   carry save          5 for 1024. One bit of the count stays behind in a register `o` beside each
 * accumulator: p = o ^ w1 ^ a1,  o' = p ^ w2 ^ a2   (one vpternlogd each, no xor of its own) carry =
 * majority(o, w1 ^ a1, w2 ^ a2), a function of (o, p, o') alone: table 0x74 total += 2 * popcount(carry) The
 * count needs no third input for the xor, so this is 2.5 operations a word, not 3. carry save, copies  the
 * same with the two register copies that the destructive vpternlogd asks for. vpermb add          T-MAC's
 * table lookup (arXiv 2407.00088) with 6-bit indices: 2 for 384 MAC. vpermi2b add        7-bit indices,
 * tables of two registers: a copy (in life, the load of the index) and 2 for 448 MAC.
 *
 * What it taught, on Zen 4 (512-bit operations take two passes): 342, 325, 322, 310 and 361 MAC/cycle. The
 * five operations of carry save would need 2.5 cycles if they were spread over the four units as evenly as
 * the plain mix is; they take 3.15 as written here, 3.0 in groups of six cells. In a tile of 6 rows x 32
 * channels (every accumulator has a second register) carry save reached 311 and the plain mix 339. vpermi2b
 * in groups of four reaches 448 and is worth a tile: avx512_vbmi_tile.c. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 20000, TRIES = 15 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

#define TIMES8(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7)

/* o = zmm0..7, totals = zmm1r, temporaries = zmm2r and zmm8, constants = zmm30, zmm31 */
#define PLAIN(r)                                                                                             \
    "vpxord %%zmm30, %%zmm31, %%zmm2" #r "\n\tvpopcntd %%zmm2" #r ", %%zmm2" #r "\n\tvpaddd %%zmm2" #r       \
    ", %%zmm1" #r ", %%zmm1" #r "\n\t"
#define COUNT_CARRY(r)                                                                                       \
    "vpopcntd %%zmm2" #r ", %%zmm2" #r "\n\tvpaddd %%zmm2" #r ", %%zmm1" #r ", %%zmm1" #r "\n\t"
#define ABSORB(r) "vpternlogd $0x96, %%zmm30, %%zmm31, %%zmm" #r "\n\t"
#define CARRY_SAVE(r)                                                                                        \
    ABSORB(r) ABSORB(r) "vpternlogd $0x74, %%zmm" #r ", %%zmm31, %%zmm2" #r "\n\t" COUNT_CARRY(r)
#define CARRY_SAVE_COPIES(r)                                                                                 \
    "vmovdqa64 %%zmm" #r ", %%zmm2" #r "\n\t" ABSORB(r) "vmovdqa64 %%zmm" #r ", %%zmm8\n\t" ABSORB(          \
        r) "vpternlogd $0x74, %%zmm" #r ", %%zmm8, %%zmm2" #r "\n\t" COUNT_CARRY(r)
#define PERMB(r)                                                                                             \
    "vpermb %%zmm30, %%zmm31, %%zmm2" #r "\n\tvpaddb %%zmm2" #r ", %%zmm1" #r ", %%zmm1" #r "\n\t"
#define PERMI2B(r)                                                                                           \
    "vmovdqa64 %%zmm29, %%zmm2" #r "\n\tvpermi2b %%zmm30, %%zmm31, %%zmm2" #r "\n\tvpaddb %%zmm2" #r         \
    ", %%zmm1" #r ", %%zmm1" #r "\n\t"

#define LOOP(name, cell)                                                                                     \
    __attribute__((target("avx512f"))) static void name(void) {                                              \
        for (int i = 0; i < ROUNDS; ++i)                                                                     \
            __asm__ volatile(TIMES8(cell) TIMES8(cell)::                                                     \
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",   \
                                   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",   \
                                   "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27");  \
    }
LOOP(plain, PLAIN)
LOOP(carry_save, CARRY_SAVE)
LOOP(carry_save_copies, CARRY_SAVE_COPIES)
LOOP(permb, PERMB)
LOOP(permi2b, PERMI2B)

/* Dependent one-cycle additions: as many cycles as additions. */
static void chain(void) {
    uint64_t sum = 0;
    for (int i = 0; i < 16 * ROUNDS; ++i)
        __asm__ volatile("add $1, %0" : "+r"(sum));
}

static double best(void (*work)(void)) {
    double least = 1e9;
    for (int i = 0; i < TRIES; ++i) {
        double start = now();
        work();
        double time = now() - start;
        least = time < least ? time : least;
    }
    return least;
}

static void report(const char *name, void (*work)(void), double macs) {
    double cycles = best(work) / best(chain); /* of one cell */
    printf("%-20s %5.2f cycles for %4.0f MAC: %5.1f MAC/cycle\n", name, cycles, macs, macs / cycles);
}

int main(void) {
    if (!__builtin_cpu_supports("avx512vpopcntdq")) {
        fprintf(stderr, "this machine has no AVX-512 VPOPCNTDQ\n");
        return 1;
    }
    report("xor popcnt add", plain, 512);
    report("carry save", carry_save, 1024);
    report("carry save, copies", carry_save_copies, 1024);
    if (__builtin_cpu_supports("avx512vbmi")) {
        report("vpermb add", permb, 384);
        report("vpermi2b add", permi2b, 448);
    }
    return 0;
}
