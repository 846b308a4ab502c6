/* onebit: what the public C API, the kernels and the CUDA sources say alike. onebit.h includes it.
 *
 * Each elementwise function stands here once. All that runs it is made of its line: the loops of every
 * instruction set, the calls of the engine, the chains of CUDA. So its line is all that a new one needs,
 * beside its definition in the Program. A number is part of the interface and keeps its meaning. */
#ifndef ONEBIT_OPS_H
#define ONEBIT_OPS_H

/* What becomes of the sums of a product. */
typedef enum {
    ONEBIT_EPILOGUE_I32 = 0, /* the sum; integer families only */
    ONEBIT_EPILOGUE_F32 = 1, /* fma((float)sum, scale[n], bias[n]) */
    ONEBIT_EPILOGUE_BITS = 2 /* (sum >= threshold[n]) xor flip bit n; integer families only */
} onebit_epilogue_kind;

/* Functions of one float: OP(NAME, number, name, parameters, value), the value for a float x and as many
 * parameters: p, q. `name` is the op's name in a Program. Expressions are C and CUDA: they round as they are
 * written, and whoever uses them has fabsf, and ONEBIT_CHOOSE(condition, yes, no), which evaluates all three.
 */
#define ONEBIT_UNARY_OPS(OP)                                                                                 \
    OP(ABS, 0, abs, 0, fabsf(x))                                                                             \
    OP(RELU, 1, relu, 0, x < 0.0f ? 0.0f : x)                                                                \
    OP(HARDTANH, 2, hardtanh, 2, (x < p) ? p : (x > q) ? q : x)                                              \
    OP(HARDSWISH, 3, hardswish, 0, x *(x + 3.0f < 0.0f ? 0.0f : x + 3.0f > 6.0f ? 6.0f : x + 3.0f) / 6.0f)

/* Functions of two floats: OP(NAME, number, name, value), the value for the floats a and b. */
#define ONEBIT_BINARY_OPS(OP)                                                                                \
    OP(ADD, 0, add, a + b)                                                                                   \
    OP(SUB, 1, sub, a - b)                                                                                   \
    OP(MUL, 2, mul, (a * b))                                                                                 \
    OP(DIV, 3, div, a / b)                                                                                   \
    OP(PRELU, 4, prelu, ONEBIT_CHOOSE(a >= 0.0f, a, b * a))

#define ONEBIT_ENUMERATE(NAME, number, ...) ONEBIT_##NAME = number,
typedef enum { ONEBIT_UNARY_OPS(ONEBIT_ENUMERATE) } onebit_unary;
typedef enum { ONEBIT_BINARY_OPS(ONEBIT_ENUMERATE) } onebit_binary;
#undef ONEBIT_ENUMERATE

#define ONEBIT_COUNT(...) +1
enum {
    ONEBIT_UNARY_COUNT = 0 ONEBIT_UNARY_OPS(ONEBIT_COUNT),
    ONEBIT_BINARY_COUNT = 0 ONEBIT_BINARY_OPS(ONEBIT_COUNT)
};
#undef ONEBIT_COUNT

enum { ONEBIT_MAX_PARAMETERS = 2, ONEBIT_MAX_AXES = 8 };

#endif
