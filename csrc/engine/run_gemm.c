/* One thread's share of a GEMM. */
#include "engine/internal.h"

/* Columns or rows, whichever leaves the slowest thread less to do. Where that is no matter, columns: each
 * thread then reads its part of the weights only, which are mostly larger than the activations. */
static bool split_columns(const onebit_gemm_variant *gemm, size_t m, size_t n, unsigned count) {
    return onebit_largest_share(n, gemm->n_tile, count) <= onebit_largest_share(m, gemm->m_tile, count);
}

void onebit_run_gemm(const plan_op *op, const op_call *call) {
    size_t m = call->samples * op->rows;
    onebit_gemm_args args = {.m = m,
                             .n = op->n,
                             .k = op->k,
                             .n_begin = 0,
                             .n_end = op->n,
                             .a = call->a[0],
                             .a_stride = op->a_stride,
                             .weights = op->weights,
                             .out = call->out,
                             .out_stride = op->out_stride,
                             .epilogue = &op->epilogue,
                             .multiplier = op->multiplier,
                             .offset = op->offset,
                             .scratch = call->scratch};
    if (split_columns(op->gemm, m, op->n, call->count)) {
        const op_share columns = onebit_share(op->n, op->gemm->n_tile, call);
        args.n_begin = columns.begin;
        args.n_end = columns.end;
    } else {
        const op_share rows = onebit_share(m, op->gemm->m_tile, call);
        args.m = rows.end - rows.begin;
        args.a = (const unsigned char *)args.a + rows.begin * args.a_stride;
        args.out = (unsigned char *)args.out + rows.begin * args.out_stride;
    }
    if (args.m > 0 && args.n_begin < args.n_end)
        op->gemm->run(&args);
}
