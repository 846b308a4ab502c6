#include "kernels/f32_conv/f32_conv.h"

#define ONEBIT_KERNEL(isa, variant) extern const onebit_conv_variant variant;
#include "kernels/f32_conv/kernels.inc"
#undef ONEBIT_KERNEL

const onebit_conv_variant *onebit_f32_conv_variant(onebit_isa isa) {
    switch (isa) {
#define ONEBIT_KERNEL(name, variant)                                                                         \
    case name:                                                                                               \
        return &variant;
#include "kernels/f32_conv/kernels.inc"
#undef ONEBIT_KERNEL
    default:
        return NULL;
    }
}
