/* The windows of convolutions and pools: sizes that cannot wrap, and the rule that every pool window has a
 * tap inside the image. The same rules as in the verifier of Programs. */
#include "engine/internal.h"

typedef struct {
    const char *name;
    uint64_t size, kernel, stride, dilation, before, after;
} axis;

/* 1 .. INT32_MAX for what is a size of something, and the padded axis below INT32_MAX too: positions are then
 * far from wrapping. Strides and dilations may be anything while they have no effect. */
static onebit_status check_axis(axis *a, const char *op, size_t *outputs) {
    if (a->kernel == 1)
        a->dilation = a->dilation ? 1 : 0;
    const uint64_t max = INT32_MAX;
    if (a->size < 1 || a->size > max || a->kernel < 1 || a->kernel > max || a->before > max ||
        a->after > max || a->size + a->before + a->after > max || a->stride < 1 || a->dilation < 1)
        return onebit_fail(
            ONEBIT_ERROR_ARGUMENT,
            "%s: %s %llu, kernel %llu, stride %llu, dilation %llu, padding %llu and %llu: sizes "
            "and steps must be 1 .. %d, the %s with its padding at most that",
            op, a->name, (unsigned long long)a->size, (unsigned long long)a->kernel,
            (unsigned long long)a->stride, (unsigned long long)a->dilation, (unsigned long long)a->before,
            (unsigned long long)a->after, INT32_MAX, a->name);
    const uint64_t padded = a->size + a->before + a->after;
    if (a->dilation > max || a->dilation * (a->kernel - 1) + 1 > padded)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT,
                           "%s: a kernel of %llu with dilation %llu does not fit the %s of %llu with padding",
                           op, (unsigned long long)a->kernel, (unsigned long long)a->dilation, a->name,
                           (unsigned long long)padded);
    *outputs = (size_t)((padded - a->dilation * (a->kernel - 1) - 1) / a->stride + 1);
    if (*outputs == 1)
        a->stride = 1;
    return ONEBIT_OK;
}

/* Steps of dilation <= size cannot jump over the image: it is enough that the first window reaches it and the
 * last one begins before its end. */
static onebit_status check_hits(const axis *a, const char *op, size_t outputs) {
    const bool reaches = a->dilation * (a->kernel - 1) >= a->before;
    const bool begins = (outputs - 1) * a->stride < a->size + a->before;
    if (reaches && begins && (a->kernel == 1 || a->dilation <= a->size))
        return ONEBIT_OK;
    return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: a window has no tap inside the %s of %llu", op, a->name,
                       (unsigned long long)a->size);
}

/* Kernels count the bytes under a strip of outputs; no such count may wrap. Far beyond any memory. */
static bool is_countable(const axis *h, const axis *w, size_t row_bytes) {
    enum { STRIP = 64, WIDEN = 32 };
    size_t height = (size_t)(STRIP * h->stride + h->dilation * h->kernel), bytes;
    size_t width = (size_t)(STRIP * w->stride + w->dilation * w->kernel);
    return onebit_multiply(height, width, &bytes) && onebit_multiply(bytes, WIDEN, &bytes) &&
           onebit_multiply(bytes, row_bytes, &bytes);
}

onebit_status onebit_check_window(const onebit_window *window, const plan_value *x, const char *name,
                                  bool every_window_hits, onebit_window *plain, window_outputs *outputs) {
    axis h = {"height",           window->height,  window->kernel_h,  window->stride_h,
              window->dilation_h, window->pad_top, window->pad_bottom};
    axis w = {"width",          window->width,    window->kernel_w, window->stride_w, window->dilation_w,
              window->pad_left, window->pad_right};
    onebit_status status;
    if ((status = check_axis(&h, name, &outputs->height)) != ONEBIT_OK ||
        (status = check_axis(&w, name, &outputs->width)) != ONEBIT_OK)
        return status;
    if (h.size * w.size != x->rows)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: an image of %llu x %llu pixels in %zu rows", name,
                           (unsigned long long)h.size, (unsigned long long)w.size, x->rows);
    if (every_window_hits && ((status = check_hits(&h, name, outputs->height)) != ONEBIT_OK ||
                              (status = check_hits(&w, name, outputs->width)) != ONEBIT_OK))
        return status;
    size_t pixels;
    if (!is_countable(&h, &w, x->row_bytes) || !onebit_multiply(outputs->height, outputs->width, &pixels) ||
        pixels > INT32_MAX)
        return onebit_fail(ONEBIT_ERROR_LIMIT,
                           "%s: %zu x %zu pixels of output, or their windows, are too many", name,
                           outputs->height, outputs->width);
    *plain = *window;
    plain->stride_h = h.stride, plain->stride_w = w.stride;
    plain->dilation_h = h.dilation, plain->dilation_w = w.dilation;
    return ONEBIT_OK;
}
