/* A register tile that counts differing bits by table lookup with VBMI: vpermi2b looks up 64 indices of 7
 * bits in a table of 128 bytes held in two registers, so vpermi2b + vpaddb do 448 multiply-accumulates.
 *
 *   cc -O3 -march=native avx512_vbmi_tile.c -o avx512_vbmi_tile && ./avx512_vbmi_tile
 *
 * For 7 activation bits `a` the table is T[a][i] = popcount(a xor i): 128 tables of 128 bytes, 16 KB.
 *   weights      [group of 7 bits of k][256 channels], a byte each: 8/7 of the memory of packed bits
 *   activations  [group][4 rows]: the offset of the table
 * The tile is 4 rows x 256 channels: 16 byte accumulators, 4 indices, a table, 4 temporaries. A byte gains at
 * most 7 a group, 7 * 36 = 252 <= 255, and is then added to 16-bit sums (so k < 65536 here).
 *
 * What it taught, on Zen 4: 356, 405 and 361 MAC/cycle at k = 252, 1022 and 4095. The limit of xor + popcnt +
 * add is 342 there, so lookups win even with their widening; at k = 4095 the 150 KB of indices come from the
 * second-level cache, and k would have to be blocked. Order matters more than count: with lookups and
 * additions alternating the units are poorly chosen (340), in groups of four they reach the limit of the
 * shuffle units (448). Not in the product: it needs VBMI, 8/7 of the memory, and figures from other machines.
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 4, VECTORS = 4, CHANNELS = 64 * VECTORS, STEPS = 36, MAX_GROUPS = 720 };

static _Alignas(64) uint8_t tables[128][128];
static _Alignas(64) uint8_t weights[MAX_GROUPS][CHANNELS];
static uint16_t activations[MAX_GROUPS][ROWS];
static _Alignas(64) uint16_t sums[ROWS][VECTORS][2][32]; /* even channels, odd channels */

/* totals += T[...][indices] for one row; four lookups, then four additions. */
static inline void step(__m512i totals[VECTORS], const __m512i indices[VECTORS], const uint8_t *table) {
    __m512i t0, t1, t2, t3;
    const __m512i low = _mm512_load_si512(table), high = _mm512_load_si512(table + 64);
    __asm__(
        "vmovdqa64 %8, %4\n\tvmovdqa64 %9, %5\n\tvmovdqa64 %10, %6\n\tvmovdqa64 %11, %7\n\t"
        "vpermi2b %13, %12, %4\n\tvpermi2b %13, %12, %5\n\tvpermi2b %13, %12, %6\n\tvpermi2b %13, %12, %7\n\t"
        "vpaddb %4, %0, %0\n\tvpaddb %5, %1, %1\n\tvpaddb %6, %2, %2\n\tvpaddb %7, %3, %3"
        : "+v"(totals[0]), "+v"(totals[1]), "+v"(totals[2]), "+v"(totals[3]), "=&v"(t0), "=&v"(t1), "=&v"(t2),
          "=&v"(t3)
        : "v"(indices[0]), "v"(indices[1]), "v"(indices[2]), "v"(indices[3]), "v"(low), "v"(high));
}

static __attribute__((noinline)) void tile(int groups) {
    const __m512i even = _mm512_set1_epi16(0xFF);
    memset(sums, 0, sizeof sums);
    for (int group = 0; group < groups;) {
        __m512i totals[ROWS][VECTORS], indices[VECTORS];
#pragma GCC unroll 4
        for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v)
                totals[row][v] = _mm512_setzero_si512();
        for (int stop = group + STEPS < groups ? group + STEPS : groups; group < stop; ++group) {
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v)
                indices[v] = _mm512_load_si512(weights[group] + 64 * v);
#pragma GCC unroll 4
            for (int row = 0; row < ROWS; ++row)
                step(totals[row], indices, tables[0] + activations[group][row]);
        }
#pragma GCC unroll 4
        for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) {
                __m512i *to = (__m512i *)(void *)sums[row][v];
                to[0] = _mm512_add_epi16(to[0], _mm512_and_si512(totals[row][v], even));
                to[1] = _mm512_add_epi16(to[1], _mm512_srli_epi16(totals[row][v], 8));
            }
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Seconds a cycle, from dependent additions. */
static double seconds_of_cycle(void) {
    enum { ADDS = 1000000 };
    uint64_t sum = 0;
    double start = now();
    for (int i = 0; i < ADDS; ++i)
        __asm__ volatile("add $1, %0" : "+r"(sum));
    return (now() - start) / ADDS;
}

static int wrong(int groups) {
    int errors = 0;
    tile(groups);
    for (int row = 0; row < ROWS; ++row)
        for (int channel = 0; channel < CHANNELS; ++channel) {
            int count = 0;
            for (int group = 0; group < groups; ++group)
                for (int bit = 0; bit < 7; ++bit)
                    count += (activations[group][row] / 128 ^ weights[group][channel]) >> bit & 1;
            errors += sums[row][channel / 64][channel % 2][channel % 64 / 2] != count;
        }
    return errors;
}

int main(void) {
    for (int a = 0; a < 128; ++a)
        for (int i = 0; i < 128; ++i)
            tables[a][i] = (uint8_t)__builtin_popcount((unsigned)(a ^ i));
    for (int group = 0; group < MAX_GROUPS; ++group) {
        for (int channel = 0; channel < CHANNELS; ++channel)
            weights[group][channel] = (uint8_t)(rand() >> 8 & 127);
        for (int row = 0; row < ROWS; ++row)
            activations[group][row] = (uint16_t)((rand() >> 8 & 127) * 128);
    }
    if (wrong(1) || wrong(37) || wrong(MAX_GROUPS)) {
        fprintf(stderr, "wrong counts\n");
        return 1;
    }
    static const int sizes[] = {36, 146, 585}; /* k = 252, 1022, 4095 */
    for (int i = 0; i < 3; ++i) {
        double best = 0;
        for (int attempt = 0; attempt < 20; ++attempt) {
            double cycle = seconds_of_cycle(), start = now();
            for (int repeat = 0; repeat < 100; ++repeat)
                tile(sizes[i]);
            double rate = 100.0 * ROWS * CHANNELS * 7 * sizes[i] / ((now() - start) / cycle);
            best = rate > best ? rate : best;
        }
        printf("k = %4d: %.1f MAC/cycle\n", 7 * sizes[i], best);
    }
    return 0;
}
