/* Every variant against a naive float64 sum: == where every order is exact, else within the stated bound. */
#include "kernels/families.h"
#include "kernels/testing_real_gemm.h"

int main(void) {
    static const test_gemm_family family = {onebit_f32_gemm_variant, test_float_weights,
                                            1}; /* a product rounds too */
    test_random random = test_seed(2002);
    test_gemm_family_all(&random, &family);
    return test_finish();
}
