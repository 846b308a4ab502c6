#include "kernels/f32_binary_gemm/f32_binary_gemm.h"

#define ONEBIT_VARIANT onebit_gemm_variant
#define ONEBIT_SELECT  onebit_f32_binary_gemm_variant
#define ONEBIT_KERNELS "kernels/f32_binary_gemm/kernels.inc"
#include "kernels/select.inc"
