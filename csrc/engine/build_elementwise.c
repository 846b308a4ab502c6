/* The builder calls of the elementwise ops: check, copy the constants, add the op.
 * How each op runs stands in run_elementwise.c. */
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/float_env.h"
#include "engine/internal.h"

onebit_status onebit_begin_op(const onebit_plan *plan, const char *name, onebit_value x,
                              const onebit_value *value, const plan_value **found, plan_op *op) {
    onebit_status status = onebit_check_open(plan);
    if (status != ONEBIT_OK)
        return status;
    if (!value)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: there is no place to store the value: it is NULL",
                           name);
    if ((status = onebit_check_value(plan, x, found)) != ONEBIT_OK)
        return status;
    *op = (plan_op){.inputs = {x}, .input_count = 1};
    op->elementwise = plan->elementwise;
    op->pack = plan->pack;
    op->variant = op->elementwise->name;
    return ONEBIT_OK;
}

/* Adds an op whose output has its input's shape. */
static onebit_status add_same_shape(onebit_plan *plan, plan_op *op, onebit_dtype dtype, onebit_value *value) {
    const plan_value *x = &plan->values[op->inputs[0]];
    op->effort = (uint64_t)x->rows * x->channels / 8;
    op->in_place = x->dtype == dtype || (x->dtype == ONEBIT_I32 && dtype == ONEBIT_F32);
    op->by_rows = op->constant_count == 0 || x->channels % op->constant_count == 0;
    return onebit_plan_add(plan, op, dtype, x->rows, x->channels, value);
}

static onebit_status check_channels(const plan_value *x, uint64_t channels, const char *name) {
    if (channels != x->channels)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: constants for %llu channels, the value has %zu", name,
                           (unsigned long long)channels, x->channels);
    return ONEBIT_OK;
}

static onebit_status copy_floats(onebit_plan *plan, const float *source, size_t count, const char *what,
                                 const float **copy) {
    const void *made;
    onebit_status status = onebit_plan_copy(plan, source, count, sizeof *source, what, &made);
    if (status == ONEBIT_OK)
        *copy = made;
    return status;
}

/* Rows of few channels are taken several at a time, with constants that stand several times in a row. */
static size_t repeats_of(const plan_value *x, size_t count) {
    return x->rows > 1 && count > 1 && count < FEW_CHANNELS ? REPEATED_CHANNELS / count : 1;
}

static onebit_status copy_repeated(onebit_plan *plan, const float *source, size_t count, size_t repeats,
                                   const char *what, const float **copy) {
    void *memory;
    if (repeats == 1 || !source)
        return copy_floats(plan, source, count, what, copy);
    onebit_status status = onebit_plan_memory(plan, repeats * count * sizeof *source, false, &memory);
    if (status != ONEBIT_OK)
        return status;
    for (size_t i = 0; i < repeats; ++i)
        memcpy((float *)memory + i * count, source, count * sizeof *source);
    *copy = memory;
    return ONEBIT_OK;
}

onebit_status onebit_plan_sign(onebit_plan *plan, onebit_value x, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = onebit_begin_op(plan, "sign", x, value, &found, &op);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(found, ONEBIT_F32, "sign");
    if (status != ONEBIT_OK)
        return status;
    op.run = onebit_run_sign;
    op.variant = op.pack->name;
    return add_same_shape(plan, &op, ONEBIT_BITS, value);
}

onebit_status onebit_plan_threshold(onebit_plan *plan, onebit_value x, const int32_t *threshold,
                                    const uint32_t *flip, uint64_t channels, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    const void *thresholds, *flips;
    onebit_status status = onebit_begin_op(plan, "threshold", x, value, &found, &op);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(found, ONEBIT_I32, "threshold");
    if (status == ONEBIT_OK)
        status = check_channels(found, channels, "threshold");
    if (status == ONEBIT_OK)
        status =
            onebit_plan_copy(plan, threshold, found->channels, sizeof *threshold, "thresholds", &thresholds);
    if (status == ONEBIT_OK)
        status = onebit_plan_copy(plan, flip, onebit_words(found->channels), sizeof *flip, "flips", &flips);
    if (status != ONEBIT_OK)
        return status;
    if (flip[onebit_words(found->channels) - 1] & ~onebit_tail_mask(found->channels))
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "threshold: the flips have a padding bit that is not zero");
    op.run = onebit_run_threshold;
    op.epilogue = (onebit_epilogue){.kind = ONEBIT_EPILOGUE_BITS, .threshold = thresholds, .flip = flips};
    return add_same_shape(plan, &op, ONEBIT_BITS, value);
}

onebit_status onebit_plan_to_float(onebit_plan *plan, onebit_value x, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = onebit_begin_op(plan, "to_float", x, value, &found, &op);
    if (status != ONEBIT_OK)
        return status;
    if (found->dtype == ONEBIT_BITS)
        op.run = onebit_run_bits_to_float;
    else if (found->dtype == ONEBIT_U8)
        op.run = onebit_run_u8_to_float;
    else if (found->dtype == ONEBIT_I32)
        op.run = onebit_run_i32_to_float;
    else
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "to_float takes bits, u8 or i32, not %s",
                           onebit_dtype_name(found->dtype));
    return add_same_shape(plan, &op, ONEBIT_F32, value);
}

onebit_status onebit_plan_scale_pixels(onebit_plan *plan, onebit_value x, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = onebit_begin_op(plan, "scale_pixels", x, value, &found, &op);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(found, ONEBIT_U8, "scale_pixels");
    if (status != ONEBIT_OK)
        return status;
    op.run = onebit_run_scale_pixels;
    return add_same_shape(plan, &op, ONEBIT_F32, value);
}

onebit_status onebit_plan_affine(onebit_plan *plan, onebit_value x, const float *scale, const float *shift,
                                 uint64_t channels, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = onebit_begin_op(plan, "affine", x, value, &found, &op);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(found, ONEBIT_F32, "affine");
    if (status == ONEBIT_OK)
        status = check_channels(found, channels, "affine");
    if (status != ONEBIT_OK)
        return status;
    op.repeats = repeats_of(found, found->channels);
    if ((status = copy_repeated(plan, scale, found->channels, op.repeats, "scales", &op.constant)) !=
            ONEBIT_OK ||
        (status = copy_repeated(plan, shift, found->channels, op.repeats, "shifts", &op.constant2)) !=
            ONEBIT_OK)
        return status;
    op.run = onebit_run_affine;
    return add_same_shape(plan, &op, ONEBIT_F32, value);
}

static const struct {
    const char *name;
    size_t parameters;
} unary_ops[] = {
#define ONEBIT_DESCRIBE(NAME, number, name, parameters, value) [ONEBIT_##NAME] = {#name, parameters},
    ONEBIT_UNARY_OPS(ONEBIT_DESCRIBE)
#undef ONEBIT_DESCRIBE
};

static const char *const binary_names[] = {
#define ONEBIT_DESCRIBE(NAME, number, name, value) [ONEBIT_##NAME] = #name,
    ONEBIT_BINARY_OPS(ONEBIT_DESCRIBE)
#undef ONEBIT_DESCRIBE
};

/* In the default floating-point environment, where subnormals differ from each other. Not inlined: see
 * float_env.h. */
static __attribute__((noinline)) onebit_status take_parameters(onebit_unary kind, const float *parameters,
                                                               uint64_t count, plan_op *op) {
    const char *name = unary_ops[kind].name;
    if (count != unary_ops[kind].parameters)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s takes %zu parameters, not %llu", name,
                           unary_ops[kind].parameters, (unsigned long long)count);
    if (count > 0 && !parameters)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: the parameters are NULL", name);
    for (size_t i = 0; i < count; ++i) {
        op->parameters[i] = parameters[i];
        if (isnan(parameters[i]))
            return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: parameter %zu is a NaN", name, i);
    }
    if (kind == ONEBIT_HARDTANH && parameters[0] > parameters[1])
        return onebit_fail(ONEBIT_ERROR_ARGUMENT,
                           "hardtanh to %g .. %g: the first must not exceed the second",
                           (double)parameters[0], (double)parameters[1]);
    return ONEBIT_OK;
}

onebit_status onebit_plan_unary(onebit_plan *plan, onebit_unary kind, onebit_value x, const float *parameters,
                                uint64_t count, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    if ((unsigned)kind >= ONEBIT_UNARY_COUNT)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no unary op %d", (int)kind);
    onebit_status status = onebit_begin_op(plan, unary_ops[kind].name, x, value, &found, &op);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(found, ONEBIT_F32, unary_ops[kind].name);
    const onebit_float_env before = onebit_float_env_enter();
    if (status == ONEBIT_OK)
        status = take_parameters(kind, parameters, count, &op);
    onebit_float_env_leave(before);
    if (status != ONEBIT_OK)
        return status;
    op.run = onebit_run_unary;
    op.unary = kind;
    return add_same_shape(plan, &op, ONEBIT_F32, value);
}

/* The checks that ops of two operands begin with. */
static onebit_status begin_binary(const onebit_plan *plan, onebit_binary kind, onebit_value x,
                                  const onebit_value *value, const plan_value **found, plan_op *op) {
    if ((unsigned)kind >= ONEBIT_BINARY_COUNT)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no binary op %d", (int)kind);
    onebit_status status = onebit_begin_op(plan, binary_names[kind], x, value, found, op);
    op->binary = kind;
    return status == ONEBIT_OK ? onebit_check_dtype(*found, ONEBIT_F32, binary_names[kind]) : status;
}

onebit_status onebit_plan_binary(onebit_plan *plan, onebit_binary kind, onebit_value a, onebit_value b,
                                 onebit_value *value) {
    const plan_value *left, *right;
    plan_op op;
    onebit_status status = begin_binary(plan, kind, a, value, &left, &op);
    if (status == ONEBIT_OK)
        status = onebit_check_value(plan, b, &right);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(right, ONEBIT_F32, binary_names[kind]);
    if (status != ONEBIT_OK)
        return status;
    const bool same = left->channels == right->channels, left_is_one = left->channels == 1;
    if (left->rows != right->rows || !(same || left_is_one || right->channels == 1))
        return onebit_fail(ONEBIT_ERROR_ARGUMENT,
                           "%s: %zu x %zu and %zu x %zu are neither the same shape "
                           "nor rows of which one has a single channel",
                           binary_names[kind], left->rows, left->channels, right->rows, right->channels);
    op.run = same ? onebit_run_binary : onebit_run_binary_rows;
    op.inputs[1] = b;
    op.input_count = 2;
    if (same || !left_is_one)
        return add_same_shape(plan, &op, ONEBIT_F32, value);
    op.effort = (uint64_t)right->rows * right->channels / 8;
    op.in_place = op.by_rows = true;
    return onebit_plan_add(plan, &op, ONEBIT_F32, right->rows, right->channels, value);
}

onebit_status onebit_plan_binary_constant(onebit_plan *plan, onebit_binary kind, onebit_value x,
                                          const float *constant, uint64_t count, int32_t constant_first,
                                          onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = begin_binary(plan, kind, x, value, &found, &op);
    if (status != ONEBIT_OK)
        return status;
    if (count == 0 || (uint64_t)found->rows * found->channels % count != 0)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: %llu constants do not divide %zu x %zu elements",
                           binary_names[kind], (unsigned long long)count, found->rows, found->channels);
    op.repeats = found->channels % count == 0 ? repeats_of(found, (size_t)count) : 1;
    status = copy_repeated(plan, constant, (size_t)count, op.repeats, "constants", &op.constant);
    if (status != ONEBIT_OK)
        return status;
    op.run = onebit_run_binary_constant;
    op.constant_count = (size_t)count;
    op.constant_first = constant_first != 0;
    return add_same_shape(plan, &op, ONEBIT_F32, value);
}
