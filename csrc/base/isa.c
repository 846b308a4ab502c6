#include "base/isa.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdatomic.h>
#include <stdint.h>

/* XCR0: which register files the operating system saves across a context switch. Without the right
 * bits an instruction faults, or its registers are silently lost, whatever CPUID promises. */
enum { XCR0_YMM = 0x06, XCR0_ZMM = 0xE6 };

static uint32_t saved_by_os(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

static int has(uint32_t word, uint32_t bits) {
    return (word & bits) == bits;
}

static onebit_isa detect(void) {
    uint32_t eax, ebx, ecx, edx, ecx1;
    if (!__get_cpuid(1, &eax, &ebx, &ecx1, &edx) || !has(ecx1, bit_OSXSAVE | bit_AVX | bit_FMA | bit_POPCNT))
        return ONEBIT_ISA_GENERIC;
    uint32_t saved = saved_by_os();
    if (!has(saved, XCR0_YMM) || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return ONEBIT_ISA_GENERIC;
    if (!has(ebx, bit_AVX2 | bit_BMI | bit_BMI2))
        return ONEBIT_ISA_GENERIC;
    if (!has(saved, XCR0_ZMM) || !has(ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) ||
        !has(ecx, bit_AVX512VPOPCNTDQ | bit_AVX512VNNI))
        return ONEBIT_ISA_AVX2;
    return ONEBIT_ISA_AVX512;
}

/* A virtual machine takes over at every CPUID, which costs some 10 us: ask once. */
onebit_isa onebit_isa_detect(void) {
    static _Atomic int known = -1;
    int isa = atomic_load_explicit(&known, memory_order_relaxed);
    if (isa < 0)
        atomic_store_explicit(&known, isa = (int)detect(), memory_order_relaxed);
    return (onebit_isa)isa;
}

#else

onebit_isa onebit_isa_detect(void) {
    return ONEBIT_ISA_GENERIC;
}

#endif

static const char *const names[ONEBIT_ISA_COUNT] = {"generic", "avx2", "avx512"};

const char *onebit_isa_name(onebit_isa isa) {
    return (unsigned)isa < ONEBIT_ISA_COUNT ? names[isa] : "unknown";
}

int onebit_isa_from_name(const char *name) {
    for (int isa = 0; isa < ONEBIT_ISA_COUNT; ++isa)
        if (name && strcmp(name, names[isa]) == 0)
            return isa;
    return -1;
}
