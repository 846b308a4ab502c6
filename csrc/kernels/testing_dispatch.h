/* What every family's test checks of its list. Not part of the library. */
#ifndef ONEBIT_KERNELS_TESTING_DISPATCH_H
#define ONEBIT_KERNELS_TESTING_DISPATCH_H

#include "base/isa.h"
#include "base/testing.h"

/* Between `#define ONEBIT_KERNEL(tier, variant) TEST_DISPATCH(gemm or conv, family, tier, variant)` and
 * #undef, kernels.inc checks that it names exactly what dispatch returns, and says what cannot run here. */
#define TEST_DISPATCH(kind, family, tier, variant_)                                                          \
    {                                                                                                        \
        extern const onebit_##kind##_variant variant_;                                                       \
        char name[64];                                                                                       \
        snprintf(name, sizeof name, #family "/%s", onebit_isa_name(tier));                                   \
        CHECK(onebit_##family##_variant(tier) == &variant_, "%s", #variant_);                                \
        CHECK(variant_.isa == tier && strcmp(variant_.name, name) == 0, "%s is named %s", #variant_,         \
              variant_.name);                                                                                \
        CHECK(variant_.n_tile % 32 == 0, "%s", #variant_);                                                   \
        if (tier > onebit_isa_detect())                                                                      \
            test_skip(name, "this machine lacks the instructions");                                          \
    }

#endif
