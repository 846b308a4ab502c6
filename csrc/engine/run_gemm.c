/* One thread's share of a GEMM. */
#include "engine/internal.h"

typedef struct {
    size_t begin, end;
} span;

/* Part `index` of `count` of `total` things in tiles of `tile`: whole tiles, as even as they go. */
static span share_of(size_t total, size_t tile, unsigned index, unsigned count) {
    size_t tiles = (total + tile - 1) / tile;
    size_t begin = tiles * index / count * tile, end = tiles * (index + 1) / count * tile;
    return (span){begin < total ? begin : total, end < total ? end : total};
}

/* The most that one thread gets, in parts of 65536 of the whole. */
static uint64_t largest_share(size_t total, size_t tile, unsigned count) {
    uint64_t tiles = (total + tile - 1) / tile;
    return (tiles + count - 1) / count * tile * 65536 / total;
}

/* Columns or rows, whichever leaves the slowest thread less to do. Where that is no matter, columns: each
 * thread then reads its part of the weights only, which are mostly larger than the activations. */
static bool split_columns(const onebit_gemm_variant *gemm, size_t m, size_t n, unsigned count) {
    return largest_share(n, gemm->n_tile, count) <= largest_share(m, gemm->m_tile, count);
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
        span columns = share_of(op->n, op->gemm->n_tile, call->index, call->count);
        args.n_begin = columns.begin;
        args.n_end = columns.end;
    } else {
        span rows = share_of(m, op->gemm->m_tile, call->index, call->count);
        args.m = rows.end - rows.begin;
        args.a = (const unsigned char *)args.a + rows.begin * args.a_stride;
        args.out = (unsigned char *)args.out + rows.begin * args.out_stride;
    }
    if (args.m > 0 && args.n_begin < args.n_end)
        op->gemm->run(&args);
}
