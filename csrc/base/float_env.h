/* The floating-point environment of whatever computes: rounding to nearest, subnormals kept, no traps.
 *
 * A caller may flush subnormals, round otherwise or trap; a thread inherits all that from the one that starts
 * it. Results are to be the same everywhere, so each way into the library enters this environment and leaves
 * with the caller's, its exception flags included; a pool's threads enter it when they start and do nothing
 * else. A pair costs some nanoseconds. The x87 unit computes nothing here.
 *
 * A compiler does not know that arithmetic depends on the environment: between the two it may move what works
 * on values in registers out of the pair, but not accesses of memory and calls. So what computes between them
 * is a call that is not inlined. */
#ifndef ONEBIT_BASE_FLOAT_ENV_H
#define ONEBIT_BASE_FLOAT_ENV_H

#include <stdint.h>

#if defined(__x86_64__)

typedef uint32_t onebit_float_env; /* MXCSR */

static inline onebit_float_env onebit_float_env_enter(void) {
    enum { ALL_MASKED = 0x1F80 };
    const onebit_float_env before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(ALL_MASKED);
    __asm__ volatile("" ::: "memory");
    return before;
}

static inline void onebit_float_env_leave(onebit_float_env before) {
    __asm__ volatile("" ::: "memory");
    __builtin_ia32_ldmxcsr(before);
}

#elif defined(__aarch64__)

typedef struct {
    uint64_t control, status;
} onebit_float_env;

static inline onebit_float_env onebit_float_env_enter(void) {
    onebit_float_env before;
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr\n\tmsr fpcr, xzr"
                     : "=&r"(before.control), "=&r"(before.status)::"memory");
    return before;
}

static inline void onebit_float_env_leave(onebit_float_env before) {
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" ::"r"(before.control), "r"(before.status) : "memory");
}

#else

#include <fenv.h>

typedef fenv_t onebit_float_env;

static inline onebit_float_env onebit_float_env_enter(void) {
    onebit_float_env before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}

static inline void onebit_float_env_leave(onebit_float_env before) {
    fesetenv(&before);
}

#endif
#endif
