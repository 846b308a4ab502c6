#include "kernels/elementwise/elementwise.h"

#define ONEBIT_VARIANT onebit_elementwise
#define ONEBIT_SELECT  onebit_elementwise_variant
#define ONEBIT_KERNELS "kernels/elementwise/kernels.inc"
#include "kernels/select.inc"
