/* What GEMMs and convolutions have in common: the checks of their weights, and their epilogues. */
#include "base/bits.h"
#include "engine/internal.h"

onebit_status onebit_check_weights(const onebit_plan *plan, const char *name, const void *weights,
                                   uint64_t weights_bytes, size_t rows, size_t channels, bool floats) {
    size_t row_bytes = 4 * (floats ? channels : onebit_words(channels)), bytes;
    if (!onebit_multiply(rows, row_bytes, &bytes) || weights_bytes != bytes)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: %llu bytes of weights, expected %zu rows of %zu", name,
                           (unsigned long long)weights_bytes, rows, row_bytes);
    if (bytes > plan->max_memory)
        return onebit_fail(ONEBIT_ERROR_LIMIT,
                           "%s: %zu bytes of weights exceed the limit of %zu (max_memory)", name, bytes,
                           plan->max_memory);
    if (!weights)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: the weights are NULL", name);
    return floats ? ONEBIT_OK : onebit_check_bits(weights, rows, channels, name);
}

onebit_status onebit_check_u8_range(const char *name, size_t k, int32_t multiplier, int32_t offset) {
    uint64_t factor = (uint64_t)(multiplier < 0 ? -(int64_t)multiplier : multiplier);
    uint64_t summand = (uint64_t)(offset < 0 ? -(int64_t)offset : offset);
    if (255 * factor + summand > INT32_MAX / k)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT,
                           "%s: k = %zu, multiplier %d and offset %d may exceed an int32 accumulator", name,
                           k, (int)multiplier, (int)offset);
    return ONEBIT_OK;
}

static onebit_status plan_float_epilogue(onebit_plan *plan, const product_epilogue *wanted,
                                         onebit_epilogue *epilogue) {
    const void *scale, *bias;
    onebit_status status =
        onebit_plan_copy(plan, wanted->scale, wanted->n, sizeof *wanted->scale, "scales", &scale);
    if (status == ONEBIT_OK)
        status = onebit_plan_copy(plan, wanted->bias, wanted->n, sizeof *wanted->bias, "biases", &bias);
    if (status == ONEBIT_OK)
        *epilogue = (onebit_epilogue){.kind = ONEBIT_EPILOGUE_F32, .scale = scale, .bias = bias};
    return status;
}

static onebit_status plan_bits_epilogue(onebit_plan *plan, const product_epilogue *wanted,
                                        onebit_epilogue *epilogue) {
    const void *threshold, *flip;
    onebit_status status = onebit_plan_copy(plan, wanted->threshold, wanted->n, sizeof *wanted->threshold,
                                            "thresholds", &threshold);
    if (status == ONEBIT_OK)
        status = onebit_plan_copy(plan, wanted->flip, onebit_words(wanted->n), sizeof *wanted->flip, "flips",
                                  &flip);
    if (status == ONEBIT_OK)
        status = onebit_check_bits(flip, 1, wanted->n, "the flips");
    if (status == ONEBIT_OK)
        *epilogue = (onebit_epilogue){.kind = ONEBIT_EPILOGUE_BITS, .threshold = threshold, .flip = flip};
    return status;
}

onebit_status onebit_plan_epilogue(onebit_plan *plan, const product_epilogue *wanted,
                                   onebit_epilogue *epilogue) {
    if (wanted->kind == ONEBIT_EPILOGUE_F32)
        return plan_float_epilogue(plan, wanted, epilogue);
    if (wanted->integer_sum && wanted->kind == ONEBIT_EPILOGUE_BITS)
        return plan_bits_epilogue(plan, wanted, epilogue);
    if (!wanted->integer_sum || wanted->kind != ONEBIT_EPILOGUE_I32)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s cannot have the epilogue %d", wanted->name,
                           (int)wanted->kind);
    *epilogue = (onebit_epilogue){.kind = ONEBIT_EPILOGUE_I32};
    return ONEBIT_OK;
}

onebit_dtype onebit_epilogue_dtype(int32_t kind) {
    return kind == ONEBIT_EPILOGUE_I32 ? ONEBIT_I32 : kind == ONEBIT_EPILOGUE_F32 ? ONEBIT_F32 : ONEBIT_BITS;
}
