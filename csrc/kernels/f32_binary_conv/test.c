/* Every variant against a naive float64 sum: == where every order is exact, else within the stated bound. */
#include "kernels/f32_binary_conv/f32_binary_conv.h"
#include "kernels/testing_real_conv.h"

int main(void) {
    static const test_conv_family family = {onebit_f32_binary_conv_variant, test_bit_weights,
                                            0}; /* a product with ±1 is exact */
    test_random random = test_seed(3002);
#define ONEBIT_KERNEL(tier, variant) TEST_DISPATCH(conv, f32_binary_conv, tier, variant)
#include "kernels/f32_binary_conv/kernels.inc"
#undef ONEBIT_KERNEL
    CHECK(onebit_f32_binary_conv_variant(ONEBIT_ISA_COUNT) == NULL, "no such tier");
    test_conv_family_all(&random, &family);
    return test_finish();
}
