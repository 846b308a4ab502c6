#include "kernels/u8_conv/u8_conv.h"

#define ONEBIT_VARIANT onebit_conv_variant
#define ONEBIT_SELECT  onebit_u8_conv_variant
#define ONEBIT_KERNELS "kernels/u8_conv/kernels.inc"
#include "kernels/select.inc"
