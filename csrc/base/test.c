/* Bits and ISA detection, and that the test helpers themselves can fail. */
#include "base/testing.h"

#include "base/bits.h"
#include "base/isa.h"
#include "base/threads.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

static void test_bits(void) {
    CHECK_EQ(onebit_words(0), 0, "no channels");
    CHECK_EQ(onebit_words(1), 1, "1 channel");
    CHECK_EQ(onebit_words(32), 1, "32 channels");
    CHECK_EQ(onebit_words(33), 2, "33 channels");
    CHECK_EQ(onebit_tail_mask(1), 1, "1 channel");
    CHECK_EQ(onebit_tail_mask(31), 0x7FFFFFFF, "31 channels");
    CHECK_EQ(onebit_tail_mask(32), 0xFFFFFFFF, "32 channels");
    CHECK_EQ(onebit_tail_mask(65), 1, "65 channels");
    CHECK_EQ(onebit_popcount32(0xF0F00001), 9, "9 bits");
}

static void test_isa(void) {
    for (int at = 0; at < ONEBIT_ISA_COUNT; ++at) {
        const onebit_isa isa = (onebit_isa)(UINT32_C(1) << at);
        CHECK_EQ(onebit_isa_from_name(onebit_isa_name(isa)), isa, "round trip of a name");
    }
    CHECK_EQ(onebit_isa_from_name("AVX2"), ONEBIT_ISA_NONE, "names are lower case");
    CHECK_EQ(onebit_isa_from_name("unknown"), ONEBIT_ISA_NONE, "no instruction set");
    CHECK_EQ(onebit_isa_from_name(""), ONEBIT_ISA_NONE, "no name");
    CHECK_EQ(onebit_isa_from_name(NULL), ONEBIT_ISA_NONE, "NULL");
    CHECK(strcmp(onebit_isa_name(ONEBIT_ISA_NONE), "unknown") == 0, "none has no name");
    CHECK_EQ(onebit_isa_best(0), ONEBIT_ISA_NONE, "the best of nothing");
    CHECK_EQ(onebit_isas_from(ONEBIT_ISA_NONE), 0, "the wish for nothing");
    CHECK_EQ(onebit_isas_from(ONEBIT_ISA_GENERIC), ONEBIT_ISA_GENERIC, "the plainest");
}

/* What this machine has, best first: as the compiler's own detection says, which shares no code with ours. */
static void test_detection(void) {
    onebit_isas want[8], count = 0, left = onebit_isas_here();
#if defined(__x86_64__)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") &&
               __builtin_cpu_supports("bmi2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni"))
        want[count++] = ONEBIT_ISA_AVX512;
    if (avx2)
        want[count++] = ONEBIT_ISA_AVX2;
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMD)
        want[count++] = ONEBIT_ISA_NEON;
#endif
    want[count++] = ONEBIT_ISA_GENERIC;
    for (onebit_isas i = 0; i < count; ++i, left &= left - 1) {
        CHECK_EQ(onebit_isa_best(left), want[i], "instruction set %u of this machine", i);
        CHECK_EQ(onebit_isas_from((onebit_isa)want[i]), left, "it and the plainer ones");
        printf("has: %s\n", onebit_isa_name(onebit_isa_best(left)));
    }
    CHECK_EQ(left, 0, "no others");
}

static void test_helpers(void) {
    test_random first = test_seed(1), second = first;
    CHECK(test_u64(&first) == test_u64(&second), "the same seed gives the same numbers");
    unsigned char *memory = test_alloc(5);
    CHECK(test_guards(memory), "fresh guards");
    CHECK_EQ((uintptr_t)memory % 64, 0, "alignment");
    memory[5] ^= 1;
    CHECK(!test_guards(memory), "a byte written behind the end is seen");
    memory[5] ^= 1;
    memory[-1] ^= 1;
    CHECK(!test_guards(memory), "a byte written before the start is seen");
    test_free(memory);
    uint32_t row[3];
    test_fill_bits(&first, row, 1, 65);
    CHECK_EQ(row[2] >> 1, 0, "padding bits are zero");
}

static void test_a_lock_is_free_in_a_forked_child(void) {
    onebit_lock *lock = onebit_lock_create();
    for (int held = 0; held < 2; ++held) {
        if (held)
            onebit_lock_acquire(lock);
        pid_t child = fork();
        if (child == 0) {
            alarm(60); /* a child that hangs dies of it */
            for (int i = 0; i < 2; ++i) {
                onebit_lock_acquire(lock);
                onebit_lock_release(lock);
            }
            _exit(0);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0, "held %d: status %d", held, status);
        if (held)
            onebit_lock_release(lock);
    }
    onebit_lock_acquire(lock); /* the parent's is as it was */
    onebit_lock_release(lock);
    onebit_lock_destroy(lock);
}

int main(void) {
    test_a_lock_is_free_in_a_forked_child();
    test_bits();
    test_isa();
    test_detection();
    test_helpers();
    return test_finish();
}
