/* Every variant against a naive float64 sum: == where every order is exact, else within the stated bound. */
#include "kernels/f32_conv/f32_conv.h"
#include "kernels/testing_real_conv.h"

int main(void) {
    static const test_conv_family family = {onebit_f32_conv_variant, test_float_weights,
                                            1}; /* a product rounds too */
    test_random random = test_seed(3001);
#define ONEBIT_KERNEL(tier, variant) TEST_DISPATCH(conv, f32_conv, tier, variant)
#include "kernels/f32_conv/kernels.inc"
#undef ONEBIT_KERNEL
    CHECK(onebit_f32_conv_variant(ONEBIT_ISA_COUNT) == NULL, "no such tier");
    test_conv_family_all(&random, &family);
    return test_finish();
}
