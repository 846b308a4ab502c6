#include "base/bits.h"
#include "kernels/pool/pool.h"

#define POOL_ISA     ONEBIT_ISA_GENERIC
#define POOL_NAME    "pool/generic"
#define POOL_VARIANT onebit_pool_generic
#include "kernels/pool/loops.inc"
