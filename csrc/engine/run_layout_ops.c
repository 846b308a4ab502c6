/* One thread's share of what moves elements: repack, permute, concat. */
#include "base/bits.h"
#include "engine/internal.h"

void onebit_run_repack(const plan_op *op, const op_call *call) {
    const op_share samples = onebit_share(call->samples, 1, call);
    const uint32_t *x = call->a[0];
    uint32_t *out = call->out;
    size_t from = op->rows * onebit_words(op->channels), to = op->out_rows * onebit_words(op->out_channels);
    op->pack->repack(samples.end - samples.begin, op->rows, op->channels, x + samples.begin * from,
                     op->out_rows, op->out_channels, out + samples.begin * to);
}

/* Bytes of a sample of `rows` rows. */
static size_t sample_bytes(const plan_op *op, bool bits, size_t rows, size_t channels) {
    return rows * (bits ? onebit_words(channels) : channels) * op->element_bytes;
}

void onebit_run_permute(const plan_op *op, const op_call *call) {
    const op_share samples = onebit_share(call->samples, 1, call);
    if (samples.begin == samples.end)
        return;
    const onebit_permutation permutation = {samples.end - samples.begin, op->rank, op->sizes, op->axes};
    const unsigned char *x = call->a[0];
    unsigned char *out = call->out;
    x += samples.begin * sample_bytes(op, op->of_bits, op->rows, op->channels);
    out += samples.begin * sample_bytes(op, op->of_bits, op->out_rows, op->out_channels);
    if (op->of_bits)
        op->elementwise->permute_bits(&permutation, (const uint32_t *)(const void *)x,
                                      (uint32_t *)(void *)out);
    else
        op->elementwise->permute(&permutation, op->element_bytes, x, out);
}

void onebit_run_concat(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    const size_t count = rows.end - rows.begin;
    onebit_part parts[MAX_OP_INPUTS];
    for (int i = 0; i < op->input_count; ++i)
        parts[i] = (onebit_part){(const unsigned char *)call->a[i] +
                                     sample_bytes(op, op->of_bits, rows.begin, op->part_channels[i]),
                                 op->part_channels[i]};
    unsigned char *out =
        (unsigned char *)call->out + sample_bytes(op, op->of_bits, rows.begin, op->out_channels);
    if (op->of_bits)
        op->elementwise->concat_bits(count, (size_t)op->input_count, parts, (uint32_t *)(void *)out);
    else
        op->elementwise->concat(count, (size_t)op->input_count, parts, op->element_bytes, out);
}
