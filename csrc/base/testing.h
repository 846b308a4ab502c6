/* Helpers of every test.c and bench.c. Not part of the library.
 *
 *   int main(void) { ... CHECK_EQ(got, want, "m=%zu", m); ... return test_finish(); }
 *
 * A failed check prints its place, values and context; test_finish() prints the counts and returns
 * non-zero if a check failed or if none ran. Random numbers come from a seed that is printed by
 * test_seed(); ONEBIT_SEED=<number> replays one. */
#ifndef ONEBIT_BASE_TESTING_H
#define ONEBIT_BASE_TESTING_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long test_checks, test_failures, test_skips;

#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        ++test_checks;                                                                                       \
        if (!(condition) && ++test_failures <= 20) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s: ", __FILE__, __LINE__, #condition);                          \
            fprintf(stderr, __VA_ARGS__);                                                                    \
            fprintf(stderr, "\n");                                                                           \
        }                                                                                                    \
    } while (0)

/* Integers of any width up to 64 bits. */
#define CHECK_EQ(got, want, ...)                                                                             \
    do {                                                                                                     \
        int64_t check_got = (int64_t)(got), check_want = (int64_t)(want);                                    \
        ++test_checks;                                                                                       \
        if (check_got != check_want && ++test_failures <= 20) {                                              \
            fprintf(stderr, "%s:%d: %s is %" PRId64 ", expected %" PRId64 ": ", __FILE__, __LINE__, #got,    \
                    check_got, check_want);                                                                  \
            fprintf(stderr, __VA_ARGS__);                                                                    \
            fprintf(stderr, "\n");                                                                           \
        }                                                                                                    \
    } while (0)

/* Says what could not be tested here and why; counted and shown at the end. */
static inline void test_skip(const char *what, const char *why) {
    ++test_skips;
    printf("skipped: %s: %s\n", what, why);
}

static inline int test_finish(void) {
    printf("%ld checks, %ld failures, %ld skipped\n", test_checks, test_failures, test_skips);
    if (test_checks == 0)
        fprintf(stderr, "nothing was checked\n");
    return test_failures != 0 || test_checks == 0;
}

/* SplitMix64: the same numbers from the same seed on every machine. */
typedef struct {
    uint64_t state;
} test_random;

static inline test_random test_seed(uint64_t fixed) {
    const char *replay = getenv("ONEBIT_SEED");
    uint64_t seed = replay ? strtoull(replay, NULL, 0) : fixed;
    printf("seed: ONEBIT_SEED=%" PRIu64 "\n", seed);
    return (test_random){seed};
}

static inline uint64_t test_u64(test_random *random) {
    uint64_t z = (random->state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Uniform in 0 .. below-1 (the bias of the modulus does not matter for tests); below > 0. */
static inline uint64_t test_below(test_random *random, uint64_t below) {
    return test_u64(random) % below;
}

/* Uniform in [-1, 1), a multiple of 2^-23: exact in float32. */
static inline float test_float(test_random *random) {
    return (float)(int32_t)(test_u64(random) >> 40) * 0x1p-23f - 1.0f;
}

static inline void test_fill(test_random *random, void *bytes, size_t size) {
    unsigned char *next = bytes;
    while (size--)
        *next++ = (unsigned char)(test_u64(random) >> 56);
}

/* Packed rows of `channels` bits with zero padding bits; `words` per row as onebit_words(channels). */
static inline void test_fill_bits(test_random *random, uint32_t *rows, size_t count, size_t channels) {
    size_t words = (channels + 31) / 32;
    uint32_t tail = channels % 32 ? (UINT32_C(1) << (channels % 32)) - 1 : UINT32_MAX;
    for (size_t row = 0; row < count; ++row)
        for (size_t word = 0; word < words; ++word)
            rows[row * words + word] = (uint32_t)test_u64(random) & (word + 1 == words ? tail : UINT32_MAX);
}

/* 64-byte aligned memory of exactly `size` bytes between two guards of 64 bytes; aborts when memory is
 * out. test_guards() is 1 while the guards are untouched. Free with test_free(). The contents start as
 * 0xA5, so that a byte never written shows. */
enum { TEST_GUARD = 64, TEST_GUARD_BYTE = 0x5C };

static inline void *test_alloc(size_t size) {
    size_t whole = TEST_GUARD + size + TEST_GUARD + 2 * sizeof(size_t);
    unsigned char *base = aligned_alloc(64, (whole + 63 + 64) / 64 * 64);
    if (!base)
        abort();
    memcpy(base, &size, sizeof size);
    memset(base + sizeof size, TEST_GUARD_BYTE, TEST_GUARD - sizeof size);
    memset(base + TEST_GUARD, 0xA5, size);
    memset(base + TEST_GUARD + size, TEST_GUARD_BYTE, TEST_GUARD);
    return base + TEST_GUARD;
}

static inline int test_guards(const void *memory) {
    const unsigned char *start = (const unsigned char *)memory - TEST_GUARD;
    size_t size;
    memcpy(&size, start, sizeof size);
    for (size_t i = sizeof size; i < TEST_GUARD; ++i)
        if (start[i] != TEST_GUARD_BYTE)
            return 0;
    const unsigned char *after = start + TEST_GUARD + size;
    for (size_t i = 0; i < TEST_GUARD; ++i)
        if (after[i] != TEST_GUARD_BYTE)
            return 0;
    return 1;
}

static inline void test_free(void *memory) {
    free((unsigned char *)memory - TEST_GUARD);
}

/* 64-byte aligned memory for inputs, without guards, so that AddressSanitizer sees a read past its exact
 * end. Free with free(). */
static inline void *test_alloc_input(size_t size) {
    void *memory;
    if (posix_memalign(&memory, 64, size ? size : 1))
        abort();
    return memory;
}

#endif
