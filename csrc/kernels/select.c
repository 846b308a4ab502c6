#include "kernels/families.h"

/* onebit_<family>_table is the type of a family's tables. */
#define ONEBIT_FAMILY(family, type) typedef type onebit_##family##_table;
#include "kernels/families.inc"

#define ONEBIT_VARIANT(family, isa) extern const onebit_##family##_table onebit_##family##_##isa;
#include "kernels/families.inc"

enum {
#define ONEBIT_FAMILY(family, type) FAMILY_##family,
#include "kernels/families.inc"
    FAMILIES
};

static const void *const variants[FAMILIES][ONEBIT_ISA_COUNT] = {
#define ONEBIT_VARIANT(family, isa) [FAMILY_##family][ONEBIT_ISA_AT_##isa] = &onebit_##family##_##isa,
#include "kernels/families.inc"
};

static const void *choose(int family, onebit_isas set) {
    for (int at = 0; at < ONEBIT_ISA_COUNT; ++at) /* the order of preference */
        if (set >> at & 1 && variants[family][at])
            return variants[family][at];
    return NULL;
}

#define ONEBIT_FAMILY(family, type)                                                                          \
    const type *onebit_##family##_variant(onebit_isas set) {                                                 \
        return choose(FAMILY_##family, set);                                                                 \
    }
#include "kernels/families.inc"
