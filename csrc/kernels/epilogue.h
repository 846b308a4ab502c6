/* What a GEMM or convolution does with each accumulator v before it is stored.
 *
 *   I32   out[m][n] = v
 *   F32   out[m][n] = fma((float)v, scale[n], bias[n])        (one rounding, as the numerics contract says)
 *   BITS  bit n of out[m] = (v >= threshold[n]) xor flip bit n; padding bits of the last word are zero
 *
 * v is an exact int32 in the integer families and a float in the float families, which have
 * the F32 epilogue only. */
#ifndef ONEBIT_KERNELS_EPILOGUE_H
#define ONEBIT_KERNELS_EPILOGUE_H

#include <stddef.h>
#include <stdint.h>

#include "onebit_ops.h"

typedef struct {
    onebit_epilogue_kind kind;
    const float *scale;       /* [N]; F32 only; never NULL there */
    const float *bias;        /* [N]; F32 only; never NULL there (-0.0f adds nothing) */
    const int32_t *threshold; /* [N]; BITS only; INT32_MIN is "always", compare is v >= threshold in int32 */
    const uint32_t *flip;     /* [ceil(N/32)] words; BITS only; never NULL there */
} onebit_epilogue;

#endif
