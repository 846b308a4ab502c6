/* Kernels without a network: for benchmarks, tests and users who have packed operands of their own. */
#include <stdlib.h>

#include "base/bits.h"
#include "base/float_env.h"
#include "engine/internal.h"

static onebit_status run_matmul(onebit_plan *plan, onebit_thread_pool *pool, uint64_t m,
                                const onebit_gemm *gemm, const uint32_t *a, int32_t *out) {
    onebit_value in, product;
    onebit_gemm with_input = *gemm;
    onebit_status status = onebit_plan_packed_input(plan, 1, gemm->k, &in);
    with_input.input = in;
    if (status == ONEBIT_OK)
        status = onebit_plan_gemm(plan, &with_input, &product);
    if (status == ONEBIT_OK)
        status = onebit_plan_output(plan, product);
    if (status == ONEBIT_OK)
        status = onebit_plan_finish(plan);
    onebit_engine *engine = NULL;
    if (status == ONEBIT_OK)
        status = onebit_engine_create(plan, pool, &engine);
    const void *inputs[] = {a};
    void *outputs[] = {out};
    if (status == ONEBIT_OK)
        status = onebit_engine_run(engine, m, inputs, outputs, NULL);
    onebit_engine_destroy(engine);
    return status;
}

onebit_status onebit_binary_matmul(const char *isa, onebit_thread_pool *pool, uint64_t m, uint64_t n,
                                   uint64_t k, const uint32_t *a, const uint32_t *weights, int32_t *out) {
    if (!a || !weights || !out)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "binary_matmul: a, the weights or the output is NULL");
    if (n < 1 || n > INT32_MAX || k < 1 || k > INT32_MAX || m > INT32_MAX)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "binary_matmul: n and k must be 1 .. %d, m at most that",
                           INT32_MAX);
    onebit_plan *plan;
    onebit_status status = onebit_plan_create(isa, UINT64_MAX, &plan);
    if (status != ONEBIT_OK)
        return status;
    onebit_gemm gemm = {.family = ONEBIT_BINARY_GEMM,
                        .n = n,
                        .k = k,
                        .weights = weights,
                        .weights_bytes = n * onebit_words((size_t)k) * sizeof *weights,
                        .epilogue = ONEBIT_EPILOGUE_I32};
    status = run_matmul(plan, pool, m, &gemm, a, out);
    onebit_plan_release(plan);
    return status;
}

onebit_status onebit_pack_sign(const char *isa, uint64_t rows, uint64_t channels, const float *x,
                               uint32_t *out) {
    return onebit_pack_sign_planes(isa, rows, channels, 1, x, out);
}

onebit_status onebit_pack_sign_planes(const char *isa, uint64_t images, uint64_t channels, uint64_t pixels,
                                      const float *x, uint32_t *out) {
    onebit_isas isas;
    onebit_status status = onebit_choose_isas(isa, &isas);
    if (status != ONEBIT_OK)
        return status;
    size_t plane, count, bytes;
    if (!onebit_multiply((size_t)images, (size_t)channels, &plane) ||
        !onebit_multiply(plane, (size_t)pixels, &count) || !onebit_multiply(count, sizeof *x, &bytes) ||
        bytes > PTRDIFF_MAX)
        return onebit_fail(ONEBIT_ERROR_LIMIT, "pack_sign: more elements than a size can count");
    if (count == 0)
        return ONEBIT_OK;
    if (!x || !out)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "pack_sign: the input or the output is NULL");
    const onebit_float_env before = onebit_float_env_enter(); /* a subnormal has its sign */
    const bool has_nan = onebit_elementwise_variant(isas)->has_nan(count, x);
    if (!has_nan && pixels == 1)
        onebit_pack_variant(isas)->sign((size_t)images, (size_t)channels, x, out);
    else if (!has_nan)
        onebit_pack_variant(isas)->sign_planes((size_t)images, (size_t)channels, (size_t)pixels, x, out);
    onebit_float_env_leave(before);
    return has_nan ? onebit_fail(ONEBIT_ERROR_INPUT, "pack_sign: the input has a NaN") : ONEBIT_OK;
}
