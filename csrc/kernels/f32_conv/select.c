#include "kernels/f32_conv/f32_conv.h"

#define ONEBIT_VARIANT onebit_conv_variant
#define ONEBIT_SELECT  onebit_f32_conv_variant
#define ONEBIT_KERNELS "kernels/f32_conv/kernels.inc"
#include "kernels/select.inc"
