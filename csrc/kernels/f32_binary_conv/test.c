/* Every variant against a naive float64 sum: == where every order is exact, else within the stated bound. */
#include "kernels/families.h"
#include "kernels/testing_real_conv.h"

int main(void) {
    static const test_conv_family family = {onebit_f32_binary_conv_variant, test_bit_weights,
                                            0}; /* a product with ±1 is exact */
    test_random random = test_seed(3002);
    test_conv_family_all(&random, &family);
    return test_finish();
}
