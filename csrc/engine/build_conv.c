/* onebit_plan_conv: checks one convolution, prepacks its weights for the plan's instruction set, adds the op.
 */
#include "base/bits.h"
#include "base/float_env.h"
#include "engine/internal.h"

typedef struct {
    const char *name;
    const onebit_conv_variant *(*variant)(onebit_isas set);
    onebit_dtype input;
    bool float_weights, float_sum;
    unsigned macs_a_cycle; /* a rough figure for the best instruction set; see plan_op.effort */
} conv_family;

static const conv_family families[] = {
    [ONEBIT_BINARY_CONV] = {"binary_conv", onebit_binary_conv_variant, ONEBIT_BITS, false, false, 300},
    [ONEBIT_U8_CONV] = {"u8_conv", onebit_u8_conv_variant, ONEBIT_U8, false, false, 60},
    [ONEBIT_F32_BINARY_CONV] = {"f32_binary_conv", onebit_f32_binary_conv_variant, ONEBIT_F32, false, true,
                                16},
    [ONEBIT_F32_CONV] = {"f32_conv", onebit_f32_conv_variant, ONEBIT_F32, true, true, 16},
};

enum { MAX_BINARY_PRODUCTS = (1 << 29) - 1 }; /* of one sum: kernels/binary_conv/binary_conv.h */

static onebit_status check_channels(const conv_family *family, const onebit_conv *conv, const plan_value *x) {
    const uint64_t groups = conv->groups;
    if (conv->n < 1 || conv->n > INT32_MAX || groups < 1 || conv->n % groups || x->channels % groups)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s of n = %llu in %llu groups on %zu channels",
                           family->name, (unsigned long long)conv->n, (unsigned long long)groups,
                           x->channels);
    const bool binary = conv->family == ONEBIT_BINARY_CONV;
    if (conv->padding_value < -1 || conv->padding_value > 1 || (conv->padding_value && !binary))
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: the padding value is %d; it must be %s", family->name,
                           (int)conv->padding_value, binary ? "0, 1 or -1" : "0");
    return ONEBIT_OK;
}

static onebit_status check_sum(const conv_family *family, const onebit_conv *conv,
                               const onebit_window *window, size_t channels, size_t *k) {
    size_t taps, rows;
    if (!onebit_multiply((size_t)window->kernel_h, (size_t)window->kernel_w, &taps) ||
        !onebit_multiply(taps, channels, k) || *k > INT32_MAX ||
        !onebit_multiply(taps, (size_t)conv->n, &rows) ||
        (conv->family == ONEBIT_BINARY_CONV && *k > MAX_BINARY_PRODUCTS))
        return onebit_fail(ONEBIT_ERROR_LIMIT, "%s: %llu x %llu taps of %zu channels are too many products",
                           family->name, (unsigned long long)window->kernel_h,
                           (unsigned long long)window->kernel_w, channels);
    return ONEBIT_OK;
}

static onebit_conv_shape shape_of(const onebit_conv *conv, const onebit_window *window, size_t channels,
                                  window_outputs outputs) {
    return (onebit_conv_shape){.height = (size_t)window->height,
                               .width = (size_t)window->width,
                               .channels = channels,
                               .out_height = outputs.height,
                               .out_width = outputs.width,
                               .n = (size_t)conv->n,
                               .kernel_h = (size_t)window->kernel_h,
                               .kernel_w = (size_t)window->kernel_w,
                               .stride_h = (size_t)window->stride_h,
                               .stride_w = (size_t)window->stride_w,
                               .dilation_h = (size_t)window->dilation_h,
                               .dilation_w = (size_t)window->dilation_w,
                               .pad_top = (size_t)window->pad_top,
                               .pad_left = (size_t)window->pad_left,
                               .groups = (size_t)conv->groups,
                               .padding_value = conv->padding_value,
                               .multiplier = conv->multiplier,
                               .offset = conv->offset};
}

/* Everything but the epilogue: fills the op's shape and sizes. */
static onebit_status check_conv(const onebit_plan *plan, const conv_family *family, const onebit_conv *conv,
                                plan_op *op) {
    const plan_value *x;
    onebit_window window;
    window_outputs outputs;
    onebit_status status;
    if ((status = onebit_check_value(plan, conv->input, &x)) != ONEBIT_OK ||
        (status = onebit_check_dtype(x, family->input, family->name)) != ONEBIT_OK ||
        (status = check_channels(family, conv, x)) != ONEBIT_OK ||
        (status = onebit_check_window(&conv->window, x, family->name, false, &window, &outputs)) != ONEBIT_OK)
        return status;
    const size_t channels = x->channels / (size_t)conv->groups;
    if ((status = check_sum(family, conv, &window, channels, &op->k)) != ONEBIT_OK ||
        (status = onebit_check_weights(plan, family->name, conv->weights, conv->weights_bytes,
                                       (size_t)conv->n * (op->k / channels), channels,
                                       family->float_weights)) != ONEBIT_OK)
        return status;
    if (family->input == ONEBIT_U8 &&
        (status = onebit_check_u8_range(family->name, op->k, conv->multiplier, conv->offset)) != ONEBIT_OK)
        return status;
    op->n = (size_t)conv->n;
    op->a_stride = x->row_bytes;
    op->conv_shape = shape_of(conv, &window, x->channels, outputs);
    size_t macs;
    if (!onebit_multiply(op->n, op->k, &macs) ||
        !onebit_multiply(macs, outputs.height * outputs.width, &macs))
        return onebit_fail(ONEBIT_ERROR_LIMIT, "%s: more products than a size can count", family->name);
    op->macs = macs;
    op->effort = macs / family->macs_a_cycle;
    return ONEBIT_OK;
}

static onebit_status prepack(onebit_plan *plan, const void *weights, plan_op *op) {
    void *packed;
    op->weight_bytes = op->conv->packed_size(&op->conv_shape);
    onebit_status status = onebit_plan_memory(plan, op->weight_bytes, true, &packed);
    if (status != ONEBIT_OK)
        return status;
    const onebit_float_env before = onebit_float_env_enter();
    op->conv->prepack(&op->conv_shape, weights, packed);
    onebit_float_env_leave(before);
    op->weights = packed;
    return ONEBIT_OK;
}

onebit_status onebit_plan_conv(onebit_plan *plan, const onebit_conv *conv, onebit_value *value) {
    onebit_status status = onebit_check_open(plan);
    if (status != ONEBIT_OK)
        return status;
    if (!conv || !value)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the conv or the place for its value is NULL");
    if ((uint32_t)conv->family >= sizeof families / sizeof *families)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no conv family %d", (int)conv->family);
    const conv_family *family = &families[conv->family];
    plan_op op = {.run = onebit_run_conv, .inputs = {conv->input}, .input_count = 1};
    op.conv = family->variant(plan->isas);
    if (!op.conv)
        return onebit_fail(ONEBIT_ERROR_ISA, "%s has no kernel here", family->name);
    op.variant = op.conv->name;
    if ((status = check_conv(plan, family, conv, &op)) != ONEBIT_OK)
        return status;
    const product_epilogue wanted = {family->name, !family->float_sum, conv->epilogue,  op.n,
                                     conv->scale,  conv->bias,         conv->threshold, conv->flip};
    const size_t pixels = op.conv_shape.out_height * op.conv_shape.out_width;
    const onebit_dtype dtype = onebit_epilogue_dtype(conv->epilogue);
    plan_value out; /* its size before the weights: prepacking looks at every output row */
    if ((status = onebit_plan_epilogue(plan, &wanted, &op.epilogue)) != ONEBIT_OK ||
        (status = onebit_check_size(plan, dtype, pixels, op.n, &out)) != ONEBIT_OK ||
        (status = prepack(plan, conv->weights, &op)) != ONEBIT_OK)
        return status;
    return onebit_plan_add(plan, &op, dtype, pixels, op.n, value);
}
