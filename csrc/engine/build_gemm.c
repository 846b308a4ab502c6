/* onebit_plan_gemm: checks one GEMM, prepacks its weights for the plan's instruction set, adds the op. */
#include "base/bits.h"
#include "base/float_env.h"
#include "engine/internal.h"

typedef struct {
    const char *name;
    const onebit_gemm_variant *(*variant)(onebit_isas set);
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

static onebit_status check_shape(const gemm_family *family, const onebit_gemm *gemm, const plan_value *x) {
    if (gemm->k != x->channels || gemm->n < 1 || gemm->n > INT32_MAX)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s of n = %llu, k = %llu on %zu channels", family->name,
                           (unsigned long long)gemm->n, (unsigned long long)gemm->k, x->channels);
    return ONEBIT_OK;
}

static onebit_status prepack(onebit_plan *plan, const onebit_gemm *gemm, plan_op *op) {
    void *packed;
    op->weight_bytes = op->gemm->packed_size(op->n, op->k);
    onebit_status status = onebit_plan_memory(plan, op->weight_bytes, true, &packed);
    if (status != ONEBIT_OK)
        return status;
    const onebit_float_env before = onebit_float_env_enter();
    op->gemm->prepack(op->n, op->k, gemm->weights, packed);
    onebit_float_env_leave(before);
    op->weights = packed;
    return ONEBIT_OK;
}

static onebit_status check_gemm(const onebit_plan *plan, const gemm_family *family, const onebit_gemm *gemm,
                                const plan_value **x) {
    onebit_status status;
    if ((status = onebit_check_value(plan, gemm->input, x)) != ONEBIT_OK ||
        (status = onebit_check_dtype(*x, family->input, family->name)) != ONEBIT_OK ||
        (status = check_shape(family, gemm, *x)) != ONEBIT_OK)
        return status;
    status = onebit_check_weights(plan, family->name, gemm->weights, gemm->weights_bytes, (size_t)gemm->n,
                                  (*x)->channels, family->float_weights);
    if (status == ONEBIT_OK && family->input == ONEBIT_U8)
        status = onebit_check_u8_range(family->name, (*x)->channels, gemm->multiplier, gemm->offset);
    return status;
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
    op.gemm = family->variant(plan->isas);
    if (!op.gemm)
        return onebit_fail(ONEBIT_ERROR_ISA, "%s has no kernel here", family->name);
    if ((status = check_gemm(plan, family, gemm, &x)) != ONEBIT_OK)
        return status;
    const product_epilogue wanted = {family->name, !family->float_sum, gemm->epilogue,  (size_t)gemm->n,
                                     gemm->scale,  gemm->bias,         gemm->threshold, gemm->flip};
    if ((status = onebit_plan_epilogue(plan, &wanted, &op.epilogue)) != ONEBIT_OK)
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
    op.out_stride = gemm->epilogue == ONEBIT_EPILOGUE_BITS ? 4 * onebit_words(op.n) : 4 * op.n;
    op.effort = macs / family->macs_a_cycle;
    if ((status = prepack(plan, gemm, &op)) != ONEBIT_OK)
        return status;
    return onebit_plan_add(plan, &op, onebit_epilogue_dtype(gemm->epilogue), rows, op.n, value);
}
