#include "kernels/binary_conv/binary_conv.h"

#define ONEBIT_VARIANT onebit_conv_variant
#define ONEBIT_SELECT  onebit_binary_conv_variant
#define ONEBIT_KERNELS "kernels/binary_conv/kernels.inc"
#include "kernels/select.inc"
