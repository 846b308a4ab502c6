#include "kernels/pack/pack.h"

#define ONEBIT_VARIANT onebit_pack
#define ONEBIT_SELECT  onebit_pack_variant
#define ONEBIT_KERNELS "kernels/pack/kernels.inc"
#include "kernels/select.inc"
