#include "base/bits.h"
#include "kernels/pool/pool.h"

#define POOL_ISA     ONEBIT_ISA_AVX2
#define POOL_NAME    "pool/avx2"
#define POOL_VARIANT onebit_pool_avx2
#include "kernels/pool/loops.inc"
