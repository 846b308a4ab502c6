/* Instruction-set tiers and their detection: CPUID *and* the OS (XGETBV) are asked. */
#ifndef ONEBIT_BASE_ISA_H
#define ONEBIT_BASE_ISA_H

typedef enum {
    ONEBIT_ISA_GENERIC = 0,
    ONEBIT_ISA_AVX2 = 1,   /* AVX2, FMA, POPCNT */
    ONEBIT_ISA_AVX512 = 2, /* AVX-512 F, BW, DQ, VL, VPOPCNTDQ, VNNI (Ice Lake, Zen 4 and later) */
    ONEBIT_ISA_COUNT = 3
} onebit_isa;

/* The highest tier this machine can run, whatever ONEBIT_ISA says. */
onebit_isa onebit_isa_detect(void);
/* "generic", "avx2" or "avx512". */
const char *onebit_isa_name(onebit_isa isa);
/* The tier of that name, or -1. */
int onebit_isa_from_name(const char *name);

#endif
