/* Instruction sets: a bit each, so that what a machine has, and what a family of kernels has, is a set.
 *
 * Bits follow base/isas.inc, which lists the instruction sets of each architecture from best to plainest: the
 * lowest bit of a set is the best of it. */
#ifndef ONEBIT_BASE_ISA_H
#define ONEBIT_BASE_ISA_H

#include <stdint.h>

/* Code of one architecture: its argument there, nothing elsewhere. */
#define ONEBIT_ON_ANY(...) __VA_ARGS__
#if defined(__x86_64__)
#define ONEBIT_ON_X86_64(...) __VA_ARGS__
#else
#define ONEBIT_ON_X86_64(...)
#endif
#if defined(__aarch64__)
#define ONEBIT_ON_AARCH64(...) __VA_ARGS__
#else
#define ONEBIT_ON_AARCH64(...)
#endif

/* The place in the list: ONEBIT_ISA_AT_avx2 and so on. */
enum {
#define ONEBIT_ISA(NAME, name, ARCHITECTURE, features, here) ONEBIT_ISA_AT_##name,
#include "base/isas.inc"
#undef ONEBIT_ISA
    ONEBIT_ISA_COUNT
};

typedef enum {
    ONEBIT_ISA_NONE = 0,
#define ONEBIT_ISA(NAME, name, ARCHITECTURE, features, here) ONEBIT_ISA_##NAME = 1 << ONEBIT_ISA_AT_##name,
#include "base/isas.inc"
#undef ONEBIT_ISA
} onebit_isa;

typedef uint32_t onebit_isas; /* a set */

/* Those of the architecture that this is compiled for. */
onebit_isas onebit_isas_native(void);
/* What this machine can run, whatever ONEBIT_ISA says: the CPU and the operating system are asked. */
onebit_isas onebit_isas_here(void);

/* The best of a set, or NONE. To visit all, best first:
 *   for (onebit_isas left = set; left; left &= left - 1) { onebit_isa isa = onebit_isa_best(left); ... } */
static inline onebit_isa onebit_isa_best(onebit_isas set) {
    return (onebit_isa)(set & (0 - set));
}

/* What the wish for `isa` allows here: it and the plainer ones, for families that lack it. */
onebit_isas onebit_isas_from(onebit_isa isa);

/* "avx2"; "x86-64" or "any"; what the CPU must have. "unknown" for what is no single instruction set. */
const char *onebit_isa_name(onebit_isa isa);
const char *onebit_isa_architecture(onebit_isa isa);
const char *onebit_isa_features(onebit_isa isa);
/* The instruction set of that name, of whatever architecture, or NONE. */
onebit_isa onebit_isa_from_name(const char *name);

#endif
