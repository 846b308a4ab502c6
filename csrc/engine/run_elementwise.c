/* One thread's share of an elementwise op: some of the rows, or of the samples where a constant spans a
 * whole sample. */
#include "base/bits.h"
#include "engine/internal.h"

static size_t bit_words(size_t channels) {
    return onebit_words(channels);
}

void onebit_run_sign(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    const float *x = call->a[0];
    uint32_t *out = call->out;
    op->pack->sign(rows.end - rows.begin, op->channels, x + rows.begin * op->channels,
                   out + rows.begin * bit_words(op->channels));
}

void onebit_run_threshold(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    const int32_t *x = call->a[0];
    uint32_t *out = call->out;
    op->elementwise->threshold(rows.end - rows.begin, op->channels, x + rows.begin * op->channels,
                               op->epilogue.threshold, op->epilogue.flip,
                               out + rows.begin * bit_words(op->channels));
}

void onebit_run_bits_to_float(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    const uint32_t *x = call->a[0];
    float *out = call->out;
    op->elementwise->bits_to_float(rows.end - rows.begin, op->channels,
                                   x + rows.begin * bit_words(op->channels), out + rows.begin * op->channels);
}

void onebit_run_u8_to_float(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    size_t at = rows.begin * op->channels;
    op->elementwise->u8_to_float((rows.end - rows.begin) * op->channels, (const uint8_t *)call->a[0] + at,
                                 (float *)call->out + at);
}

void onebit_run_i32_to_float(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    size_t at = rows.begin * op->channels;
    op->elementwise->i32_to_float((rows.end - rows.begin) * op->channels, (const int32_t *)call->a[0] + at,
                                  (float *)call->out + at);
}

void onebit_run_scale_pixels(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    size_t at = rows.begin * op->channels;
    op->elementwise->scale_pixels((rows.end - rows.begin) * op->channels, (const uint8_t *)call->a[0] + at,
                                  (float *)call->out + at);
}

void onebit_run_affine(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    const size_t whole = (rows.end - rows.begin) / op->repeats, rest = (rows.end - rows.begin) % op->repeats;
    const size_t at = rows.begin * op->channels, wide = op->repeats * op->channels;
    const float *x = (const float *)call->a[0] + at;
    float *out = (float *)call->out + at;
    op->elementwise->affine(whole, wide, x, op->constant, op->constant2, out);
    op->elementwise->affine(rest, op->channels, x + whole * wide, op->constant, op->constant2,
                            out + whole * wide);
}

void onebit_run_unary(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    size_t at = rows.begin * op->channels;
    op->elementwise->unary[op->unary]((rows.end - rows.begin) * op->channels, (const float *)call->a[0] + at,
                                      op->parameters, (float *)call->out + at);
}

void onebit_run_binary(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    size_t at = rows.begin * op->channels, count = (rows.end - rows.begin) * op->channels;
    if (count == 0)
        return;
    op->elementwise->binary[op->binary](count, (onebit_operand){(const float *)call->a[0] + at, count},
                                        (onebit_operand){(const float *)call->a[1] + at, count},
                                        (float *)call->out + at);
}

void onebit_run_binary_rows(const plan_op *op, const op_call *call) {
    const op_share rows = onebit_rows(op, call);
    size_t b_channels = op->channels == op->out_channels ? 1 : op->out_channels;
    op->elementwise->binary_rows[op->binary](
        rows.end - rows.begin, op->out_channels, (const float *)call->a[0] + rows.begin * op->channels,
        op->channels, (const float *)call->a[1] + rows.begin * b_channels, b_channels,
        (float *)call->out + rows.begin * op->out_channels);
}

static void run_with_constant(const plan_op *op, const float *x, size_t count, size_t period, float *out) {
    const onebit_operand value = {x, count}, constant = {op->constant, period};
    if (count == 0)
        return;
    op->elementwise->binary[op->binary](count, op->constant_first ? constant : value,
                                        op->constant_first ? value : constant, out);
}

void onebit_run_binary_constant(const plan_op *op, const op_call *call) {
    size_t unit = op->by_rows ? op->channels : op->rows * op->channels;
    const op_share units = op->by_rows ? onebit_rows(op, call) : onebit_share(call->samples, 1, call);
    const size_t at = units.begin * unit, count = (units.end - units.begin) * unit;
    const size_t period = op->constant_count * op->repeats, whole = count / period * period;
    const float *x = (const float *)call->a[0] + at;
    float *out = (float *)call->out + at;
    run_with_constant(op, x, whole, period, out);
    run_with_constant(op, x + whole, count - whole, op->constant_count, out + whole);
}
