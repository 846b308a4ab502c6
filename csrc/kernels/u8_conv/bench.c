/* First layers that read bytes: the CIFAR-10 ConvNet's, and the stems of ImageNet's networks. */
#include "kernels/bench_conv.h"
#include "kernels/families.h"

int main(int argc, char **argv) {
    static const bench_shape shapes[] = {{32, 32, 3, 128, 3, 1, 1, 1},
                                         {224, 224, 3, 64, 7, 2, 3, 1},
                                         {227, 227, 3, 96, 11, 4, 0, 1},
                                         {28, 28, 64, 64, 3, 1, 1, 1}};
    return bench_conv_main(argc, argv, onebit_u8_conv_variant, shapes, sizeof shapes / sizeof *shapes, 1, 0,
                           ONEBIT_EPILOGUE_BITS);
}
