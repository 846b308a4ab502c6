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

static onebit_status store_floats(onebit_plan *plan, const product_store *store, onebit_epilogue *epilogue) {
    const void *scale, *bias;
    onebit_status status =
        onebit_plan_copy(plan, store->scale, store->n, sizeof *store->scale, "scales", &scale);
    if (status == ONEBIT_OK)
        status = onebit_plan_copy(plan, store->bias, store->n, sizeof *store->bias, "biases", &bias);
    if (status == ONEBIT_OK)
        *epilogue = (onebit_epilogue){.kind = ONEBIT_EPILOGUE_F32, .scale = scale, .bias = bias};
    return status;
}

static onebit_status store_bits(onebit_plan *plan, const product_store *store, onebit_epilogue *epilogue) {
    const void *threshold, *flip;
    onebit_status status = onebit_plan_copy(plan, store->threshold, store->n, sizeof *store->threshold,
                                            "thresholds", &threshold);
    if (status == ONEBIT_OK)
        status =
            onebit_plan_copy(plan, store->flip, onebit_words(store->n), sizeof *store->flip, "flips", &flip);
    if (status == ONEBIT_OK)
        status = onebit_check_bits(flip, 1, store->n, "the flips");
    if (status == ONEBIT_OK)
        *epilogue = (onebit_epilogue){.kind = ONEBIT_EPILOGUE_BITS, .threshold = threshold, .flip = flip};
    return status;
}

onebit_status onebit_plan_store(onebit_plan *plan, const product_store *store, onebit_epilogue *epilogue) {
    if (store->store == ONEBIT_STORE_F32)
        return store_floats(plan, store, epilogue);
    if (store->integer_sum && store->store == ONEBIT_STORE_BITS)
        return store_bits(plan, store, epilogue);
    if (!store->integer_sum || store->store != ONEBIT_STORE_I32)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s cannot store as %d", store->name, (int)store->store);
    *epilogue = (onebit_epilogue){.kind = ONEBIT_EPILOGUE_I32};
    return ONEBIT_OK;
}

onebit_dtype onebit_stored_dtype(int32_t store) {
    return store == ONEBIT_STORE_I32 ? ONEBIT_I32 : store == ONEBIT_STORE_F32 ? ONEBIT_F32 : ONEBIT_BITS;
}
