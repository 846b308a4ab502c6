/* The real convolutions of the networks: stems, downsamplings, depthwise and pointwise. */
#include "kernels/bench_conv.h"
#include "kernels/families.h"

int main(int argc, char **argv) {
    static const bench_shape shapes[] = {
        {224, 224, 3, 64, 7, 2, 3, 1},   {227, 227, 3, 96, 11, 4, 0, 1}, {224, 224, 3, 32, 3, 2, 1, 1},
        {28, 28, 64, 128, 1, 1, 0, 1},   {56, 56, 64, 128, 1, 2, 0, 1},  {14, 14, 128, 256, 1, 1, 0, 1},
        {7, 7, 256, 512, 1, 1, 0, 1},    {14, 14, 256, 512, 1, 1, 0, 1}, {56, 56, 64, 64, 3, 1, 1, 1},
        {14, 14, 256, 256, 3, 1, 1, 1},  {7, 7, 512, 512, 3, 1, 1, 1},   {56, 56, 64, 64, 3, 2, 1, 64},
        {28, 28, 128, 128, 3, 1, 1, 128}};
    return bench_conv_main(argc, argv, onebit_f32_conv_variant, shapes, sizeof shapes / sizeof *shapes, 4, 4,
                           ONEBIT_EPILOGUE_F32);
}
