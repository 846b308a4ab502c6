/* The kernel families and the choice of a variant.
 *
 * onebit_<family>_variant(set) is the best variant that the set and the family share, or NULL: the best as
 * base/isas.inc orders instruction sets. Of a set of one it is just that variant, of onebit_isas_here() what
 * runs here; every family has the generic one. */
#ifndef ONEBIT_KERNELS_FAMILIES_H
#define ONEBIT_KERNELS_FAMILIES_H

#include "base/isa.h"
#include "kernels/conv.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/pack/pack.h"
#include "kernels/pool/pool.h"

#define ONEBIT_FAMILY(family, type) const type *onebit_##family##_variant(onebit_isas set);
#include "kernels/families.inc"

#endif
