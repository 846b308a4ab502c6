#include "base/isa.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

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

static int has_avx2(void) {
    uint32_t eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && has(ecx, bit_OSXSAVE | bit_AVX | bit_FMA | bit_POPCNT) &&
           has(saved_by_os(), XCR0_YMM) && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           has(ebx, bit_AVX2 | bit_BMI | bit_BMI2);
}

static int has_avx512(void) {
    uint32_t eax, ebx, ecx, edx;
    return has_avx2() && has(saved_by_os(), XCR0_ZMM) && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           has(ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) &&
           has(ecx, bit_AVX512VPOPCNTDQ | bit_AVX512VNNI);
}
#endif

onebit_isas onebit_isas_native(void) {
#define ONEBIT_ISA(NAME, name, ARCHITECTURE, features, here) ONEBIT_ON_##ARCHITECTURE(ONEBIT_ISA_##NAME |)
    return
#include "base/isas.inc"
        0;
#undef ONEBIT_ISA
}

static onebit_isas detect(void) {
    onebit_isas here = 0;
#define ONEBIT_ISA(NAME, name, ARCHITECTURE, features, here_)                                                \
    ONEBIT_ON_##ARCHITECTURE(if (here_) here |= ONEBIT_ISA_##NAME;)
#include "base/isas.inc"
#undef ONEBIT_ISA
    return here;
}

/* A virtual machine takes over at every CPUID, which costs some 10 us: ask once. */
onebit_isas onebit_isas_here(void) {
    static _Atomic onebit_isas known; /* the generic one is always there, so 0 is not yet known */
    onebit_isas here = atomic_load_explicit(&known, memory_order_relaxed);
    if (!here)
        atomic_store_explicit(&known, here = detect(), memory_order_relaxed);
    return here;
}

onebit_isas onebit_isas_from(onebit_isa isa) {
    return onebit_isas_here() & ~((onebit_isas)isa - 1);
}

typedef struct {
    const char *name, *architecture, *features;
} description;

#define NAME_OF_ANY     "any"
#define NAME_OF_X86_64  "x86-64"
#define NAME_OF_AARCH64 "AArch64"

static const description *describe(onebit_isa isa) {
    static const description list[ONEBIT_ISA_COUNT] = {
#define ONEBIT_ISA(NAME, name, ARCHITECTURE, features, here) {#name, NAME_OF_##ARCHITECTURE, features},
#include "base/isas.inc"
#undef ONEBIT_ISA
    };
    static const description none = {"unknown", "unknown", "unknown"};
    for (int at = 0; at < ONEBIT_ISA_COUNT; ++at)
        if ((onebit_isas)isa == UINT32_C(1) << at)
            return &list[at];
    return &none;
}

const char *onebit_isa_name(onebit_isa isa) {
    return describe(isa)->name;
}

const char *onebit_isa_architecture(onebit_isa isa) {
    return describe(isa)->architecture;
}

const char *onebit_isa_features(onebit_isa isa) {
    return describe(isa)->features;
}

onebit_isa onebit_isa_from_name(const char *name) {
    for (onebit_isas isa = 1; isa < UINT32_C(1) << ONEBIT_ISA_COUNT; isa <<= 1)
        if (name && strcmp(name, onebit_isa_name((onebit_isa)isa)) == 0)
            return (onebit_isa)isa;
    return ONEBIT_ISA_NONE;
}
