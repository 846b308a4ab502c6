#include "kernels/pool/pool.h"

#define ONEBIT_VARIANT onebit_pool
#define ONEBIT_SELECT  onebit_pool_variant
#define ONEBIT_KERNELS "kernels/pool/kernels.inc"
#include "kernels/select.inc"
