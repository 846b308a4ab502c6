/* onebit_plan_gemm: checks one GEMM, prepacks its weights for the plan's instruction set, adds the op. */
#include <string.h>

#include "base/bits.h"
#include "engine/internal.h"
#include "kernels/binary_gemm/binary_gemm.h"
#include "kernels/f32_binary_gemm/f32_binary_gemm.h"
#include "kernels/f32_gemm/f32_gemm.h"
#include "kernels/u8_gemm/u8_gemm.h"

typedef struct {
    const char *name;
    const onebit_gemm_variant *(*variant)(onebit_isa isa);
    onebit_dtype input;
    bool float_weights, float_sum;
    unsigned macs_a_cycle; /* a rough figure for the best instruction set; see plan_op.effort */
} gemm_family;

static const gemm_family families[] = {
    [ONEBIT_BINARY_GEMM] = {"binary_gemm", onebit_binary_gemm_variant, ONEBIT_BITS, false, false, 400},
    [ONEBIT_U8_GEMM] = {"u8_gemm", onebit_u8_gemm_variant, ONEBIT_U8, false, false, 100},
    [ONEBIT_F32_BINARY_GEMM] = {"f32_binary_gemm", onebit_f32_binary_gemm_variant, ONEBIT_F32, false, true,
                                16},
    [ONEBIT_F32_GEMM] = {"f32_gemm", onebit_f32_gemm_variant, ONEBIT_F32, true, true, 16},
};

/* A family may lack a variant for an instruction set: the next lower one runs then, and says so by name. */
static const onebit_gemm_variant *choose_variant(const gemm_family *family, onebit_isa isa) {
    for (int tier = (int)isa; tier >= 0; --tier) {
        const onebit_gemm_variant *variant = family->variant((onebit_isa)tier);
        if (variant)
            return variant;
    }
    return NULL;
}

static onebit_status check_shape(const onebit_plan *plan, const gemm_family *family, const onebit_gemm *gemm,
                                 const plan_value *x) {
    if (gemm->k != x->channels || gemm->n < 1 || gemm->n > INT32_MAX)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s of n = %llu, k = %llu on %zu channels", family->name,
                           (unsigned long long)gemm->n, (unsigned long long)gemm->k, x->channels);
    size_t row_bytes = 4 * (family->float_weights ? x->channels : onebit_words(x->channels)), bytes;
    if (!onebit_multiply((size_t)gemm->n, row_bytes, &bytes) || gemm->weights_bytes != bytes)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: %llu bytes of weights, expected n * %zu", family->name,
                           (unsigned long long)gemm->weights_bytes, row_bytes);
    if (bytes > plan->max_memory)
        return onebit_fail(ONEBIT_ERROR_LIMIT,
                           "%s: %zu bytes of weights exceed the limit of %zu (max_memory)", family->name,
                           bytes, plan->max_memory);
    if (!gemm->weights)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: the weights are NULL", family->name);
    return family->float_weights
               ? ONEBIT_OK
               : onebit_check_bits(gemm->weights, (size_t)gemm->n, x->channels, family->name);
}

/* The accumulator is an int32, and so is each of its parts: multiplier * dot and offset * sum of weights. */
static onebit_status check_range(const gemm_family *family, const onebit_gemm *gemm) {
    if (family->input != ONEBIT_U8)
        return ONEBIT_OK;
    uint64_t multiplier = gemm->multiplier < 0 ? -(int64_t)gemm->multiplier : gemm->multiplier;
    uint64_t offset = gemm->offset < 0 ? -(int64_t)gemm->offset : gemm->offset;
    if (255 * multiplier + offset > INT32_MAX / gemm->k)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT,
                           "u8_gemm: k = %llu, multiplier %d and offset %d may exceed an int32 accumulator",
                           (unsigned long long)gemm->k, (int)gemm->multiplier, (int)gemm->offset);
    return ONEBIT_OK;
}

static onebit_status copy_epilogue(onebit_plan *plan, const gemm_family *family, const onebit_gemm *gemm,
                                   onebit_epilogue *epilogue) {
    size_t n = (size_t)gemm->n;
    const void *first, *second;
    onebit_status status;
    if (gemm->store == ONEBIT_STORE_F32) {
        epilogue->kind = ONEBIT_EPILOGUE_F32;
        status = onebit_plan_copy(plan, gemm->scale, n, sizeof *gemm->scale, "scales", &first);
        if (status == ONEBIT_OK)
            status = onebit_plan_copy(plan, gemm->bias, n, sizeof *gemm->bias, "biases", &second);
        if (status == ONEBIT_OK)
            epilogue->scale = first, epilogue->bias = second;
        return status;
    }
    if (family->float_sum || (gemm->store != ONEBIT_STORE_I32 && gemm->store != ONEBIT_STORE_BITS))
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s cannot store as %d", family->name, (int)gemm->store);
    if (gemm->store == ONEBIT_STORE_I32) {
        epilogue->kind = ONEBIT_EPILOGUE_I32;
        return ONEBIT_OK;
    }
    epilogue->kind = ONEBIT_EPILOGUE_BITS;
    status = onebit_plan_copy(plan, gemm->threshold, n, sizeof *gemm->threshold, "thresholds", &first);
    if (status == ONEBIT_OK)
        status = onebit_plan_copy(plan, gemm->flip, onebit_words(n), sizeof *gemm->flip, "flips", &second);
    if (status == ONEBIT_OK)
        status = onebit_check_bits(second, 1, n, "the flips");
    if (status == ONEBIT_OK)
        epilogue->threshold = first, epilogue->flip = second;
    return status;
}

static onebit_dtype stored_dtype(int32_t store) {
    return store == ONEBIT_STORE_I32 ? ONEBIT_I32 : store == ONEBIT_STORE_F32 ? ONEBIT_F32 : ONEBIT_BITS;
}

static onebit_status prepack(onebit_plan *plan, const onebit_gemm *gemm, plan_op *op) {
    void *packed;
    size_t bytes = op->gemm->packed_size(op->n, op->k);
    onebit_status status = onebit_plan_memory(plan, bytes, true, &packed);
    if (status != ONEBIT_OK)
        return status;
    op->gemm->prepack(op->n, op->k, gemm->weights, packed);
    op->weights = packed;
    return ONEBIT_OK;
}

onebit_status onebit_plan_gemm(onebit_plan *plan, const onebit_gemm *gemm, onebit_value *value) {
    const plan_value *x;
    onebit_status status = onebit_check_open(plan);
    if (status != ONEBIT_OK)
        return status;
    if (!gemm || !value)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the gemm or the place for its value is NULL");
    if ((uint32_t)gemm->family >= sizeof families / sizeof *families)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no gemm family %d", (int)gemm->family);
    const gemm_family *family = &families[gemm->family];
    plan_op op = {.run = onebit_run_gemm, .inputs = {gemm->input}, .input_count = 1};
    op.gemm = choose_variant(family, plan->isa);
    if (!op.gemm)
        return onebit_fail(ONEBIT_ERROR_ISA, "%s has no kernel here", family->name);
    if ((status = onebit_check_value(plan, gemm->input, &x)) != ONEBIT_OK ||
        (status = onebit_check_dtype(x, family->input, family->name)) != ONEBIT_OK ||
        (status = check_shape(plan, family, gemm, x)) != ONEBIT_OK ||
        (status = check_range(family, gemm)) != ONEBIT_OK ||
        (status = copy_epilogue(plan, family, gemm, &op.epilogue)) != ONEBIT_OK)
        return status;
    size_t macs, rows = x->rows;
    op.variant = op.gemm->name;
    op.n = (size_t)gemm->n;
    op.k = (size_t)gemm->k;
    op.multiplier = gemm->multiplier;
    op.offset = gemm->offset;
    if (!onebit_multiply(op.n, op.k, &macs) || !onebit_multiply(macs, rows, &macs))
        return onebit_fail(ONEBIT_ERROR_LIMIT, "%s: more products than a size can count", family->name);
    op.macs = macs;
    op.a_stride = x->row_bytes;
    op.out_stride = gemm->store == ONEBIT_STORE_BITS ? 4 * onebit_words(op.n) : 4 * op.n;
    op.effort = macs / family->macs_a_cycle;
    if ((status = prepack(plan, gemm, &op)) != ONEBIT_OK)
        return status;
    return onebit_plan_add(plan, &op, stored_dtype(gemm->store), rows, op.n, value);
}
