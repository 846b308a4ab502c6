#include "kernels/binary_gemm/binary_gemm.h"

#define ONEBIT_KERNEL(isa, variant) extern const onebit_gemm_variant variant;
#include "kernels/binary_gemm/kernels.inc"
#undef ONEBIT_KERNEL

const onebit_gemm_variant *onebit_binary_gemm_variant(onebit_isa isa) {
    switch (isa) {
#define ONEBIT_KERNEL(name, variant)                                                                         \
    case name:                                                                                               \
        return &variant;
#include "kernels/binary_gemm/kernels.inc"
#undef ONEBIT_KERNEL
    default:
        return NULL;
    }
}
