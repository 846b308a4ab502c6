#include <immintrin.h>

#include "kernels/f32_conv/f32_conv.h"

#include "kernels/conv_f32_avx512.inc"

#include "kernels/f32_conv/real.inc"

const onebit_conv_variant onebit_f32_conv_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "f32_conv/avx512",
    .n_tile = 32,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
