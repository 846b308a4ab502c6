/* Where taps fall, and what the taps outside the image are worth: shared by every variant.
 *
 * A tile multiplies taps without asking whether they are inside. Tap rows that are outside are left out of
 * the sum altogether; in the tap rows that remain, a tap beside the image reads a word of zeros, that is -1
 * in every channel. With S(i, j) = sum over c of w[n][i][j][c], such a tap has given -S where it should have
 * given padding_value * S, and a tap row left out has given 0. Hence for channel n, with `different` the
 * popcount over the tap rows that were computed,
 *
 *   v = base - 2 * different
 *   base = computed taps * channels + (padding_value + 1) * (S of computed taps outside)
 *        + padding_value * (S of tap rows left out)
 *
 * `base` depends on the output pixel only through the tap rows and tap columns that are inside, which are
 * intervals that move steadily with y and x: at most 2 * kernel_h + 1 classes of rows, numbered from the top,
 * times 2 * kernel_w + 1 classes of columns. Bases are made at prepacking, [panel][class][channel].
 *
 * Packed weights: for each group and each panel of n_tile channels, [tap][word of channels][n_tile] words,
 * then [row class][column class][n_tile] bases; missing channels are zero.
 * Range: |base| <= 3 * (values in a sum) < 3 * 2^29. */
#ifndef ONEBIT_KERNELS_BINARY_CONV_GEOMETRY_H
#define ONEBIT_KERNELS_BINARY_CONV_GEOMETRY_H

#include <stdbool.h>

#include "base/bits.h"
#include "kernels/binary_conv/binary_conv.h"

/* Height or width of a shape: the two are treated alike. */
typedef struct {
    size_t size, out_size, kernel, stride, dilation, pad;
} axis;

static inline axis axis_h(const onebit_conv_shape *s) {
    return (axis){s->height, s->out_height, s->kernel_h, s->stride_h, s->dilation_h, s->pad_top};
}

static inline axis axis_w(const onebit_conv_shape *s) {
    return (axis){s->width, s->out_width, s->kernel_w, s->stride_w, s->dilation_w, s->pad_left};
}

/* How many inputs `count` neighbouring outputs reach over. */
static inline size_t reach(const axis *a, size_t count) {
    return (count - 1) * a->stride + (a->kernel - 1) * a->dilation + 1;
}

/* The taps begin .. end - 1 of an output that are inside; none when begin >= end. */
typedef struct {
    size_t begin, end;
} taps;

/* How many taps 0, 1, .. lie below `distance`, counted in inputs from tap 0. */
static inline size_t taps_below(const axis *a, size_t distance) {
    size_t count = a->dilation == 1 ? distance : (distance + a->dilation - 1) / a->dilation;
    return count < a->kernel ? count : a->kernel;
}

static inline taps taps_inside(const axis *a, size_t out) {
    size_t start = out * a->stride,
           stop = a->pad + a->size; /* in coordinates where the image starts at pad */
    return (taps){taps_below(a, a->pad > start ? a->pad - start : 0),
                  taps_below(a, stop > start ? stop - start : 0)};
}

/* Whether every tap of every output is inside. */
static inline bool all_inside(const axis *a) {
    return a->pad == 0 && reach(a, a->out_size) <= a->size;
}

/* The first output after one with `count` taps below `distance`, counted in inputs from tap 0 of output 0,
 * that has fewer of them: tap count - 1 has come to `distance` or passed it. Without one there is no such
 * output. */
static inline size_t next_fewer(const axis *a, size_t distance, size_t count) {
    return count ? (distance - (count - 1) * a->dilation + a->stride - 1) / a->stride : SIZE_MAX;
}

/* The first output after `out` that is of another class, or out_size. In constant time: padding can make more
 * outputs than a walk over them should meet again and again. */
static inline size_t next_class(const axis *a, size_t out) {
    const taps here = taps_inside(a, out);
    const size_t first = next_fewer(a, a->pad, here.begin),
                 second = next_fewer(a, a->pad + a->size, here.end);
    const size_t next = first < second ? first : second;
    return next < a->out_size ? next : a->out_size;
}

static inline size_t count_classes(const axis *a) {
    size_t count = 0;
    for (size_t out = 0; out < a->out_size; out = next_class(a, out))
        ++count;
    return count;
}

static inline size_t group_words(const onebit_conv_shape *s) {
    return onebit_words(s->channels / s->groups);
}

/* Words of K: of one output channel's weights. */
static inline size_t sum_words(const onebit_conv_shape *s) {
    return s->kernel_h * s->kernel_w * group_words(s);
}

/* 32-bit words of a panel: its weights and its bases. */
static inline size_t panel_size(const onebit_conv_shape *s, size_t n_tile) {
    const axis h = axis_h(s), w = axis_w(s);
    return (sum_words(s) + count_classes(&h) * count_classes(&w)) * n_tile;
}

static inline size_t group_panels(const onebit_conv_shape *s, size_t n_tile) {
    return (s->n / s->groups + n_tile - 1) / n_tile;
}

static inline size_t packed_bytes(const onebit_conv_shape *s, size_t n_tile) {
    return s->groups * group_panels(s, n_tile) * panel_size(s, n_tile) * sizeof(uint32_t);
}

/* Sum over the channels of tap (i, j) of the +1 and -1 of `weights`, [kernel_h][kernel_w][words]. */
static inline int32_t tap_sum(const onebit_conv_shape *s, const uint32_t *weights, size_t i, size_t j) {
    size_t words = group_words(s);
    int32_t ones = 0;
    for (size_t word = 0; word < words; ++word)
        ones += onebit_popcount32(weights[(i * s->kernel_w + j) * words + word]);
    return 2 * ones - (int32_t)(s->channels / s->groups);
}

/* The base of an output channel for outputs whose taps `rows` and `columns` are inside. */
static inline int32_t class_base(const onebit_conv_shape *s, const uint32_t *weights, taps rows,
                                 taps columns) {
    int32_t base = 0;
    for (size_t i = 0; i < s->kernel_h; ++i) {
        bool computed = i >= rows.begin && i < rows.end;
        if (computed)
            base += (int32_t)(s->kernel_w * (s->channels / s->groups));
        for (size_t j = 0; j < s->kernel_w; ++j)
            if (!computed)
                base += s->padding_value ? s->padding_value * tap_sum(s, weights, i, j) : 0;
            else if (s->padding_value >= 0 && (j < columns.begin || j >= columns.end))
                base += (s->padding_value + 1) * tap_sum(s, weights, i, j);
    }
    return base;
}

/* One panel: `count` channels of `weights`, the Program's rows, then zeros. */
static inline void prepack_panel(const onebit_conv_shape *s, size_t n_tile, size_t count,
                                 const uint32_t *weights, uint32_t *panel) {
    const axis h = axis_h(s), w = axis_w(s);
    size_t words = sum_words(s);
    for (size_t lane = 0; lane < n_tile; ++lane)
        for (size_t word = 0; word < words; ++word)
            panel[word * n_tile + lane] = lane < count ? weights[lane * words + word] : 0;
    int32_t *bases = (int32_t *)panel + words * n_tile;
    for (size_t y = 0; y < h.out_size; y = next_class(&h, y))
        for (size_t x = 0; x < w.out_size; x = next_class(&w, x), bases += n_tile)
            for (size_t lane = 0; lane < n_tile; ++lane)
                bases[lane] = lane < count ? class_base(s, weights + lane * words, taps_inside(&h, y),
                                                        taps_inside(&w, x))
                                           : 0;
}

static inline void prepack_panels(const onebit_conv_shape *s, size_t n_tile, const void *weights,
                                  void *packed) {
    const size_t n = s->n / s->groups, words = sum_words(s);
    uint32_t *panel = (uint32_t *)packed;
    for (size_t group = 0; group < s->groups; ++group)
        for (size_t first = 0; first < n; first += n_tile, panel += panel_size(s, n_tile))
            prepack_panel(s, n_tile, n - first < n_tile ? n - first : n_tile,
                          (const uint32_t *)weights + (group * n + first) * words, panel);
}

#endif
