#include "kernels/elementwise/elementwise.h"

#define ONEBIT_KERNEL(isa, variant) extern const onebit_elementwise variant;
#include "kernels/elementwise/kernels.inc"
#undef ONEBIT_KERNEL

const onebit_elementwise *onebit_elementwise_variant(onebit_isa isa) {
    switch (isa) {
#define ONEBIT_KERNEL(name, variant)                                                                         \
    case name:                                                                                               \
        return &variant;
#include "kernels/elementwise/kernels.inc"
#undef ONEBIT_KERNEL
    default:
        return NULL;
    }
}
