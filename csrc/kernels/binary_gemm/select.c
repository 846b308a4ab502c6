#include "kernels/binary_gemm/binary_gemm.h"

#define ONEBIT_VARIANT onebit_gemm_variant
#define ONEBIT_SELECT  onebit_binary_gemm_variant
#define ONEBIT_KERNELS "kernels/binary_gemm/kernels.inc"
#include "kernels/select.inc"
