/* The epilogues of any number of columns, one by one. */
#ifndef ONEBIT_KERNELS_U8_CONV_COLUMN_EPILOGUES_H
#define ONEBIT_KERNELS_U8_CONV_COLUMN_EPILOGUES_H

#include "base/bits.h"
#include "kernels/conv.h"

/* Columns [n, n + width) of the bits of a pixel. Groups may begin and end within a word; they come in order,
 * so the first to reach a word sets it. */
static inline void onebit_u8_conv_bits_epilogue(const onebit_epilogue *epilogue, uint32_t *row, size_t n,
                                                size_t width, const int32_t *v) {
    for (size_t end = n + width, word = n / ONEBIT_WORD_BITS; n < end; ++word) {
        const unsigned begin = n % ONEBIT_WORD_BITS;
        uint32_t bits = 0;
        for (unsigned j = begin; j < ONEBIT_WORD_BITS && n < end; ++j, ++n)
            bits |= ((uint32_t)(*v++ >= epilogue->threshold[n]) ^ (epilogue->flip[word] >> j & 1)) << j;
        row[word] = begin ? row[word] | bits : bits;
    }
}

/* Columns [n, n + width) of the pixel, from v[0] on. */
static __attribute__((noinline)) void onebit_u8_conv_epilogue(const onebit_conv_args *args, size_t pixel,
                                                              size_t n, size_t width, const int32_t *v) {
    const onebit_epilogue *epilogue = args->epilogue;
    const size_t first = pixel * args->shape->n + n;
    switch (epilogue->kind) {
    case ONEBIT_EPILOGUE_I32:
        for (size_t j = 0; j < width; ++j)
            ((int32_t *)args->out)[first + j] = v[j];
        break;
    case ONEBIT_EPILOGUE_F32:
        for (size_t j = 0; j < width; ++j)
            ((float *)args->out)[first + j] =
                __builtin_fmaf((float)v[j], epilogue->scale[n + j], epilogue->bias[n + j]);
        break;
    case ONEBIT_EPILOGUE_BITS:
        onebit_u8_conv_bits_epilogue(epilogue, (uint32_t *)args->out + pixel * onebit_words(args->shape->n),
                                     n, width, v);
        break;
    }
}

#endif
