#include "kernels/u8_gemm/u8_gemm.h"

#define ONEBIT_VARIANT onebit_gemm_variant
#define ONEBIT_SELECT  onebit_u8_gemm_variant
#define ONEBIT_KERNELS "kernels/u8_gemm/kernels.inc"
#include "kernels/select.inc"
