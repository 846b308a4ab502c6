#include "kernels/pool/pool.h"

#define ONEBIT_KERNEL(isa, variant) extern const onebit_pool variant;
#include "kernels/pool/kernels.inc"
#undef ONEBIT_KERNEL

const onebit_pool *onebit_pool_variant(onebit_isa isa) {
    switch (isa) {
#define ONEBIT_KERNEL(name, variant)                                                                         \
    case name:                                                                                               \
        return &variant;
#include "kernels/pool/kernels.inc"
#undef ONEBIT_KERNEL
    default:
        return NULL;
    }
}
