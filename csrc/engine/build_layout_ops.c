/* The builder calls of what moves elements and computes nothing: reshape, permute, concat. */
#include "base/bits.h"
#include "engine/internal.h"

static size_t element_bytes(onebit_dtype dtype) {
    return dtype == ONEBIT_U8 || dtype == ONEBIT_I8 ? 1 : 4;
}

bool onebit_same_bytes(const plan_value *x, size_t channels) {
    return x->dtype != ONEBIT_BITS || x->channels == channels ||
           (x->channels % ONEBIT_WORD_BITS == 0 && channels % ONEBIT_WORD_BITS == 0);
}

/* Another name, and another shape, for the bytes of x. */
static onebit_status rename_value(onebit_plan *plan, const plan_value *x, size_t rows, size_t channels,
                                  onebit_value *value) {
    onebit_value root = x->root;
    onebit_status status = onebit_plan_value(plan, x->dtype, rows, channels, value);
    if (status == ONEBIT_OK)
        plan->values[*value].root = root;
    return status;
}

static onebit_status add_repack(onebit_plan *plan, plan_op *op, size_t rows, size_t channels,
                                onebit_value *value) {
    op->run = onebit_run_repack;
    op->variant = op->pack->name;
    op->effort = (uint64_t)rows * channels / 8;
    return onebit_plan_add(plan, op, ONEBIT_BITS, rows, channels, value);
}

onebit_status onebit_plan_reshape(onebit_plan *plan, onebit_value x, uint64_t rows, uint64_t channels,
                                  onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = onebit_begin_op(plan, "reshape", x, value, &found, &op);
    if (status != ONEBIT_OK)
        return status;
    size_t elements;
    if (rows > INT32_MAX || channels > INT32_MAX ||
        !onebit_multiply((size_t)rows, (size_t)channels, &elements) ||
        elements != found->rows * found->channels)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "reshape of %zu x %zu elements to %llu x %llu", found->rows,
                           found->channels, (unsigned long long)rows, (unsigned long long)channels);
    if (onebit_same_bytes(found, (size_t)channels))
        return rename_value(plan, found, (size_t)rows, (size_t)channels, value);
    return add_repack(plan, &op, (size_t)rows, (size_t)channels, value);
}

/* Copies the axes; false where they are none, or not each of them once, or the sizes are not those of x. */
static bool take_axes(const plan_value *x, uint64_t rank, const uint64_t *sizes, const uint64_t *axes,
                      plan_op *op) {
    bool seen[ONEBIT_MAX_AXES] = {false};
    size_t elements = 1;
    if (rank < 1 || rank > ONEBIT_MAX_AXES)
        return false;
    op->rank = (size_t)rank;
    for (size_t i = 0; i < op->rank; ++i) {
        if (sizes[i] < 1 || sizes[i] > INT32_MAX || axes[i] >= rank || seen[axes[i]] ||
            !onebit_multiply(elements, (size_t)sizes[i], &elements))
            return false;
        seen[axes[i]] = true;
        op->sizes[i] = (size_t)sizes[i];
        op->axes[i] = (size_t)axes[i];
    }
    return elements == x->rows * x->channels &&
           (x->dtype != ONEBIT_BITS || op->sizes[op->rank - 1] == x->channels);
}

/* Whether the axes of more than one element keep their order, so that the elements do. */
static bool keeps_order(const plan_op *op) {
    size_t last = 0;
    for (size_t i = 0; i < op->rank; ++i) {
        if (op->sizes[op->axes[i]] == 1)
            continue;
        if (op->axes[i] < last)
            return false;
        last = op->axes[i];
    }
    return true;
}

onebit_status onebit_plan_permute(onebit_plan *plan, onebit_value x, uint64_t rank, const uint64_t *sizes,
                                  const uint64_t *axes, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = onebit_begin_op(plan, "permute", x, value, &found, &op);
    if (status != ONEBIT_OK)
        return status;
    if (!sizes || !axes)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "permute: the sizes or the axes are NULL");
    if (!take_axes(found, rank, sizes, axes, &op))
        return onebit_fail(ONEBIT_ERROR_ARGUMENT,
                           "permute of %zu x %zu elements: the sizes must have as many (bits: the last its "
                           "channels), the axes must be each of the %llu (1 .. %d) once",
                           found->rows, found->channels, (unsigned long long)rank, ONEBIT_MAX_AXES);
    const size_t elements = found->rows * found->channels, channels = op.sizes[op.axes[op.rank - 1]];
    if (keeps_order(&op))
        return onebit_same_bytes(found, channels)
                   ? rename_value(plan, found, elements / channels, channels, value)
                   : add_repack(plan, &op, elements / channels, channels, value);
    op.run = onebit_run_permute;
    op.element_bytes = element_bytes(found->dtype);
    op.of_bits = found->dtype == ONEBIT_BITS;
    op.effort = (uint64_t)elements / 2;
    return onebit_plan_add(plan, &op, found->dtype, elements / channels, channels, value);
}

onebit_status onebit_plan_concat(onebit_plan *plan, const onebit_value *parts, uint64_t count,
                                 onebit_value *value) {
    const plan_value *first, *part;
    plan_op op;
    onebit_status status = onebit_check_open(plan);
    if (status != ONEBIT_OK)
        return status;
    if (!parts || count < 1 || count > ONEBIT_MAX_PARTS)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "concat of %llu values; it takes 1 .. %d, not NULL",
                           (unsigned long long)count, ONEBIT_MAX_PARTS);
    if ((status = onebit_begin_op(plan, "concat", parts[0], value, &first, &op)) != ONEBIT_OK)
        return status;
    size_t channels = 0;
    for (size_t i = 0; i < count; ++i) {
        if ((status = onebit_check_value(plan, parts[i], &part)) != ONEBIT_OK)
            return status;
        if (part->dtype != first->dtype || part->rows != first->rows)
            return onebit_fail(ONEBIT_ERROR_ARGUMENT,
                               "concat: part %zu is %zu rows of %s, the first %zu of %s", i, part->rows,
                               onebit_dtype_name(part->dtype), first->rows, onebit_dtype_name(first->dtype));
        op.inputs[i] = parts[i];
        op.part_channels[i] = part->channels;
        channels += part->channels; /* at most 8 * INT32_MAX */
    }
    op.run = onebit_run_concat;
    op.by_rows = true;
    op.input_count = (int)count;
    op.element_bytes = element_bytes(first->dtype);
    op.of_bits = first->dtype == ONEBIT_BITS;
    op.effort = (uint64_t)first->rows * (channels / 8 + 8 * count);
    return onebit_plan_add(plan, &op, first->dtype, first->rows, channels, value);
}
