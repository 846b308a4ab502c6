#include "kernels/f32_gemm/f32_gemm.h"

#define ONEBIT_VARIANT onebit_gemm_variant
#define ONEBIT_SELECT  onebit_f32_gemm_variant
#define ONEBIT_KERNELS "kernels/f32_gemm/kernels.inc"
#include "kernels/select.inc"
