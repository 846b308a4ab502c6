/* BWN's layers: the 3x3 convolutions of ResNet-18 and AlexNet's second and third. */
#include "kernels/bench_conv.h"
#include "kernels/families.h"

int main(int argc, char **argv) {
    static const bench_shape shapes[] = {{56, 56, 64, 64, 3, 1, 1, 1},    {28, 28, 128, 128, 3, 1, 1, 1},
                                         {14, 14, 256, 256, 3, 1, 1, 1},  {7, 7, 512, 512, 3, 1, 1, 1},
                                         {27, 27, 96, 256, 5, 1, 2, 1},   {13, 13, 256, 384, 3, 1, 1, 1},
                                         {28, 28, 128, 128, 3, 1, 1, 128}};
    return bench_conv_main(argc, argv, onebit_f32_binary_conv_variant, shapes, sizeof shapes / sizeof *shapes,
                           4, 0, ONEBIT_EPILOGUE_F32);
}
