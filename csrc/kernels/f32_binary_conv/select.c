#include "kernels/f32_binary_conv/f32_binary_conv.h"

#define ONEBIT_VARIANT onebit_conv_variant
#define ONEBIT_SELECT  onebit_f32_binary_conv_variant
#define ONEBIT_KERNELS "kernels/f32_binary_conv/kernels.inc"
#include "kernels/select.inc"
