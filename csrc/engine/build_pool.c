/* The builder calls of what reduces: pools and the mean over channels. */
#include "base/bits.h"
#include "engine/internal.h"

static onebit_status choose_max(const plan_value *x, plan_op *op) {
    switch (x->dtype) {
    case ONEBIT_BITS:
        op->max_pool = op->pool->max_bits;
        return ONEBIT_OK;
    case ONEBIT_U8:
        op->max_pool = op->pool->max_u8;
        return ONEBIT_OK;
    case ONEBIT_I32:
        op->max_pool = op->pool->max_i32;
        return ONEBIT_OK;
    case ONEBIT_F32:
        op->max_pool = op->pool->max_f32;
        return ONEBIT_OK;
    default:
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "pool takes bits, u8, i32 or f32, not %s",
                           onebit_dtype_name(x->dtype));
    }
}

static onebit_status choose_pooling(onebit_pooling kind, const plan_value *x, plan_op *op) {
    if ((unsigned)kind > ONEBIT_POOL_PADDED)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no pooling %d", (int)kind);
    if (kind == ONEBIT_POOL_MAX)
        return choose_max(x, op);
    op->include_padding = kind == ONEBIT_POOL_PADDED;
    return onebit_check_dtype(x, ONEBIT_F32, "the mean of a pool");
}

static onebit_status copy_flip(onebit_plan *plan, const plan_value *x, const uint32_t *flip, plan_op *op) {
    const void *copy;
    if (!flip)
        return ONEBIT_OK;
    if (x->dtype != ONEBIT_BITS)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "pool: flips are for bits, not for %s",
                           onebit_dtype_name(x->dtype));
    onebit_status status = onebit_check_bits(flip, 1, x->channels, "pool: the flips");
    if (status == ONEBIT_OK)
        status = onebit_plan_copy(plan, flip, onebit_words(x->channels), sizeof *flip, "flips", &copy);
    if (status == ONEBIT_OK)
        op->flip = copy;
    return status;
}

onebit_status onebit_plan_pool(onebit_plan *plan, onebit_pooling kind, onebit_value x,
                               const onebit_window *window, const uint32_t *flip, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_window plain;
    window_outputs outputs;
    onebit_status status = onebit_begin_op(plan, "pool", x, value, &found, &op);
    if (status != ONEBIT_OK)
        return status;
    if (!window)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "pool: the window is NULL");
    op.run = onebit_run_pool;
    op.pool = plan->pool;
    op.variant = op.pool->name;
    if ((status = choose_pooling(kind, found, &op)) != ONEBIT_OK ||
        (status = onebit_check_window(window, found, "pool", true, &plain, &outputs)) != ONEBIT_OK ||
        (status = copy_flip(plan, found, flip, &op)) != ONEBIT_OK)
        return status;
    op.pool_shape = (onebit_pool_shape){.height = (size_t)plain.height,
                                        .width = (size_t)plain.width,
                                        .channels = found->channels,
                                        .out_height = outputs.height,
                                        .out_width = outputs.width,
                                        .kernel_h = (size_t)plain.kernel_h,
                                        .kernel_w = (size_t)plain.kernel_w,
                                        .stride_h = (size_t)plain.stride_h,
                                        .stride_w = (size_t)plain.stride_w,
                                        .dilation_h = (size_t)plain.dilation_h,
                                        .dilation_w = (size_t)plain.dilation_w,
                                        .pad_top = (size_t)plain.pad_top,
                                        .pad_left = (size_t)plain.pad_left};
    const size_t pixels = outputs.height * outputs.width;
    /* A window may not have more taps than this, but it is a guess of time, not of memory. */
    op.effort = (uint64_t)pixels * (found->row_bytes / 16 + 8) *
                (plain.kernel_h * plain.kernel_w < 1024 ? plain.kernel_h * plain.kernel_w : 1024) / 4;
    return onebit_plan_add(plan, &op, found->dtype, pixels, found->channels, value);
}

onebit_status onebit_plan_channel_mean(onebit_plan *plan, onebit_value x, onebit_value *value) {
    const plan_value *found;
    plan_op op;
    onebit_status status = onebit_begin_op(plan, "channel_mean", x, value, &found, &op);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(found, ONEBIT_F32, "channel_mean");
    if (status != ONEBIT_OK)
        return status;
    op.run = onebit_run_channel_mean;
    op.by_rows = true;
    op.pool = plan->pool;
    op.variant = op.pool->name;
    op.effort = (uint64_t)found->rows * (found->channels / 8 + 8);
    return onebit_plan_add(plan, &op, ONEBIT_F32, found->rows, 1, value);
}
