/* Bits and ISA detection, and that the test helpers themselves can fail. */
#include "base/testing.h"

#include "base/bits.h"
#include "base/isa.h"
#include "base/threads.h"

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
    for (int isa = 0; isa < ONEBIT_ISA_COUNT; ++isa)
        CHECK_EQ(onebit_isa_from_name(onebit_isa_name((onebit_isa)isa)), isa, "round trip of a name");
    CHECK_EQ(onebit_isa_from_name("AVX2"), -1, "names are lower case");
    CHECK_EQ(onebit_isa_from_name(""), -1, "no name");
    CHECK_EQ(onebit_isa_from_name(NULL), -1, "NULL");
    onebit_isa isa = onebit_isa_detect();
    printf("detected: %s\n", onebit_isa_name(isa));
    CHECK(isa >= ONEBIT_ISA_GENERIC && isa < ONEBIT_ISA_COUNT, "tier %d", (int)isa);
#if defined(__x86_64__)
    /* The compiler's own detection asks CPUID and the OS too; it shares no code with ours. */
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") &&
               __builtin_cpu_supports("bmi2");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni");
    CHECK_EQ(isa,
             avx512 ? ONEBIT_ISA_AVX512
             : avx2 ? ONEBIT_ISA_AVX2
                    : ONEBIT_ISA_GENERIC,
             "as the compiler");
#endif
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
    test_helpers();
    return test_finish();
}
