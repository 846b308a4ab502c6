#include "kernels/elementwise/elementwise.h"

static uint32_t at_least_32(const int32_t *x, const int32_t *threshold) {
    uint32_t word = 0;
    for (int j = 0; j < 32; ++j)
        word |= (uint32_t)(x[j] >= threshold[j]) << j;
    return word;
}

#define ELEMENTWISE_ISA     ONEBIT_ISA_GENERIC
#define ELEMENTWISE_NAME    "elementwise/generic"
#define ELEMENTWISE_VARIANT onebit_elementwise_generic
#include "kernels/elementwise/loops.inc"
