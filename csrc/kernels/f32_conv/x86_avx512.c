/* AVX-512: kernels/conv_f32_avx512.inc. packed: [group][panel of 32 columns][tap][channel][32] floats. */
#include <immintrin.h>

#include "kernels/f32_conv/f32_conv.h"

static size_t spread_size(const onebit_conv_shape *shape) {
    (void)shape;
    return 0;
}

#include "kernels/conv_f32_avx512.inc"

static size_t packed_size(const onebit_conv_shape *shape) {
    const strips plan = plan_strips(shape);
    return shape->groups * plan.panels * plan.steps * PANEL * sizeof(weight);
}

static void prepack(const onebit_conv_shape *shape, const void *weights, void *packed) {
    const strips plan = plan_strips(shape);
    const float *from = weights;
    float *to = packed;
    for (size_t group = 0; group < shape->groups; ++group, from += plan.columns * plan.steps)
        for (size_t panel = 0; panel < plan.panels * PANEL; panel += PANEL)
            for (size_t i = 0; i < plan.steps; ++i)
                for (size_t n = panel; n < panel + PANEL; ++n)
                    *to++ = n < plan.columns ? from[n * plan.steps + i] : 0.0f;
}

static const weight *spread_weights(const strips *plan, const void *packed, void *scratch, size_t panel,
                                    size_t panels, size_t begin, size_t end, size_t *stride) {
    (void)scratch;
    (void)panels;
    (void)end;
    *stride = plan->steps * PANEL;
    return (const weight *)packed + (panel * plan->steps + begin) * PANEL;
}

const onebit_conv_variant onebit_f32_conv_avx512 = {
    .isa = ONEBIT_ISA_AVX512,
    .name = "f32_conv/avx512",
    .n_tile = PANEL,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run_strips,
};
