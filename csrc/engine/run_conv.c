/* One thread's share of a convolution or pool. */
#include "base/bits.h"
#include "engine/internal.h"

/* Output channels or output rows of all images, whichever leaves the slowest thread less to do. Where that is
 * no matter, what makes the threads read less: channels split the weights, rows the image. */
static bool split_channels(const plan_op *op, size_t rows, unsigned count) {
    const onebit_conv_shape *s = &op->conv_shape;
    if (s->groups > 1)
        return false;
    uint64_t by_channels = onebit_largest_share(s->n, op->conv->n_tile, count);
    uint64_t by_rows = onebit_largest_share(rows, 1, count);
    return by_channels < by_rows ||
           (by_channels == by_rows && op->weight_bytes > op->a_stride * s->height * s->width);
}

void onebit_run_conv(const plan_op *op, const op_call *call) {
    const onebit_conv_shape *s = &op->conv_shape;
    const size_t rows = call->samples * s->out_height;
    onebit_conv_args args = {.shape = s,
                             .row_end = rows,
                             .n_end = s->n,
                             .input = call->a[0],
                             .weights = op->weights,
                             .out = call->out,
                             .epilogue = &op->epilogue,
                             .scratch = call->scratch};
    if (split_channels(op, rows, call->count)) {
        const op_share share = onebit_share(s->n, op->conv->n_tile, call);
        args.n_begin = share.begin;
        args.n_end = share.end;
    } else {
        const op_share share = onebit_share(rows, 1, call);
        args.row_begin = share.begin;
        args.row_end = share.end;
    }
    if (args.row_begin < args.row_end && args.n_begin < args.n_end)
        op->conv->run(&args);
}

void onebit_run_pool(const plan_op *op, const op_call *call) {
    const onebit_pool_shape *s = &op->pool_shape;
    const op_share rows = onebit_share(call->samples * s->out_height, 1, call);
    const onebit_pool_args args = {s, rows.begin, rows.end, call->a[0], call->out};
    if (rows.begin == rows.end)
        return;
    if (!op->max_pool) {
        op->pool->average_f32(&args, op->include_padding);
        return;
    }
    op->max_pool(&args);
    if (!op->flip)
        return;
    const size_t words = onebit_words(s->channels);
    uint32_t *out = (uint32_t *)call->out + rows.begin * s->out_width * words;
    for (size_t pixel = (rows.end - rows.begin) * s->out_width; pixel > 0; --pixel, out += words)
        for (size_t word = 0; word < words; ++word)
            out[word] ^= op->flip[word];
}

void onebit_run_channel_mean(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    op->pool->channel_mean(rows.end - rows.begin, op->channels,
                           (const float *)call->a[0] + rows.begin * op->channels,
                           (float *)call->out + rows.begin);
}
