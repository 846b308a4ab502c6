#include "base/bits.h"
#include "kernels/pool/pool.h"

#define POOL_ISA     ONEBIT_ISA_AVX512
#define POOL_NAME    "pool/avx512"
#define POOL_VARIANT onebit_pool_avx512
#include "kernels/pool/loops.inc"
