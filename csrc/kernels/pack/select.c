#include "kernels/pack/pack.h"

#define ONEBIT_KERNEL(isa, variant) extern const onebit_pack variant;
#include "kernels/pack/kernels.inc"
#undef ONEBIT_KERNEL

const onebit_pack *onebit_pack_variant(onebit_isa isa) {
    switch (isa) {
#define ONEBIT_KERNEL(name, variant)                                                                         \
    case name:                                                                                               \
        return &variant;
#include "kernels/pack/kernels.inc"
#undef ONEBIT_KERNEL
    default:
        return NULL;
    }
}
