/* Dispatch, of every family and every set of instruction sets: each listed variant says truly whose it is,
 * and the best one of a set is chosen. What the variants compute stands in the families' own tests. */
#include "base/testing.h"

#include "kernels/families.h"

/* What every table begins with; its family's own name and its instruction set. */
typedef struct {
    onebit_isa isa;
    const char *name;
} head;

typedef const head *choice(onebit_isas set);

#define ONEBIT_FAMILY(family, type)                                                                          \
    typedef type onebit_##family##_table;                                                                    \
    static const head *choose_##family(onebit_isas set) {                                                    \
        return (const head *)(const void *)onebit_##family##_variant(set);                                   \
    }
#include "kernels/families.inc"

#define ONEBIT_VARIANT(family, isa) extern const onebit_##family##_table onebit_##family##_##isa;
#include "kernels/families.inc"

#define ONEBIT_FAMILY(family, type)                                                                          \
    _Static_assert(offsetof(type, isa) == offsetof(head, isa) &&                                             \
                       offsetof(type, name) == offsetof(head, name),                                         \
                   "a table of " #family " begins like all");
#include "kernels/families.inc"

static const struct {
    const char *name;
    choice *choose;
} families[] = {
#define ONEBIT_FAMILY(family, type) {#family, choose_##family},
#include "kernels/families.inc"
};

static const struct {
    const char *family, *isa;
    choice *choose;
    const void *table;
} variants[] = {
#define ONEBIT_VARIANT(family, isa) {#family, #isa, choose_##family, &onebit_##family##_##isa},
#include "kernels/families.inc"
};

enum { FAMILIES = sizeof families / sizeof *families, VARIANTS = sizeof variants / sizeof *variants };

static void test_variants(void) {
    for (size_t i = 0; i < VARIANTS; ++i) {
        const onebit_isa isa = onebit_isa_from_name(variants[i].isa);
        const head *table = variants[i].table;
        char name[64];
        snprintf(name, sizeof name, "%s/%s", variants[i].family, variants[i].isa);
        CHECK(isa != ONEBIT_ISA_NONE, "%s", name);
        CHECK(variants[i].choose(isa) == table, "%s is not what its instruction set chooses", name);
        CHECK(table->isa == isa && strcmp(table->name, name) == 0, "%s is named %s", name, table->name);
        if (!(onebit_isas_here() & isa))
            test_skip(name, "this machine lacks the instructions");
    }
}

/* The best that the set and the family share: of what each instruction set alone chooses, the first in the
 * list. base/test.c says what the order must be. */
static void test_choices(void) {
    const onebit_isas all = (UINT32_C(1) << ONEBIT_ISA_COUNT) - 1;
    for (size_t i = 0; i < FAMILIES; ++i)
        for (onebit_isas set = 0; set <= all; ++set) {
            const head *want = NULL;
            for (int at = ONEBIT_ISA_COUNT - 1; at >= 0; --at) {
                const head *alone = families[i].choose(set & UINT32_C(1) << at);
                want = alone ? alone : want;
            }
            CHECK(families[i].choose(set) == want, "%s of the set %x", families[i].name, set);
            CHECK(!want || (want->isa & set), "%s of the set %x is %s", families[i].name, set, want->name);
            CHECK(want || !(set & ONEBIT_ISA_GENERIC), "%s has no generic variant", families[i].name);
        }
}

int main(void) {
    test_variants();
    test_choices();
    return test_finish();
}
