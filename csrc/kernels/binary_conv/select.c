#include "kernels/binary_conv/binary_conv.h"

#define ONEBIT_KERNEL(isa, variant) extern const onebit_conv_variant variant;
#include "kernels/binary_conv/kernels.inc"
#undef ONEBIT_KERNEL

const onebit_conv_variant *onebit_binary_conv_variant(onebit_isa isa) {
    switch (isa) {
#define ONEBIT_KERNEL(name, variant)                                                                         \
    case name:                                                                                               \
        return &variant;
#include "kernels/binary_conv/kernels.inc"
#undef ONEBIT_KERNEL
    default:
        return NULL;
    }
}
