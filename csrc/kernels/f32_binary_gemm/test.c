/* Every variant against a naive float64 sum: == where every order is exact, else within the stated bound. */
#include "kernels/f32_binary_gemm/f32_binary_gemm.h"
#include "kernels/testing_real_gemm.h"

int main(void) {
    static const test_gemm_family family = {onebit_f32_binary_gemm_variant, test_bit_weights,
                                            0}; /* a product with ±1 is exact */
    test_random random = test_seed(2002);
#define ONEBIT_KERNEL(tier, variant) TEST_DISPATCH(gemm, f32_binary_gemm, tier, variant)
#include "kernels/f32_binary_gemm/kernels.inc"
#undef ONEBIT_KERNEL
    CHECK(onebit_f32_binary_gemm_variant(ONEBIT_ISA_COUNT) == NULL, "no such tier");
    test_gemm_family_all(&random, &family);
    return test_finish();
}
