/* The walk over a convolution that every variant shares; a variant brings the tile and how a strip is stored.
 *
 * The output is cut into blocks whose input, the strip, fits the second-level cache. For a block: panels of
 * channels (their weights stay in the first-level cache), in a panel the lines, in a line tiles of
 * neighbouring pixels. There is no im2col buffer: a tile finds word k of K at offsets[k] from a pixel.
 *
 * The strip is a copy of the input of the block with the columns beside the image as zeros; where no tap is
 * beside the image, and nothing has to be rearranged, the input itself serves. Rows outside are never read.
 * A 1x1 convolution that keeps the image is one long line of pixels, across lines and images. */
#ifndef ONEBIT_KERNELS_BINARY_CONV_DRIVER_H
#define ONEBIT_KERNELS_BINARY_CONV_DRIVER_H

#include <math.h>
#include <string.h>

#include "kernels/binary_conv/geometry.h"
#include "kernels/gemm.h"

enum { STRIP_BYTES = 128 * 1024, MAX_PIXELS = 16, MAX_LANES = 64 };

/* Neighbouring pixels x the channels of one panel. Strides in bytes. */
typedef struct {
    const char *a; /* the first tap of the first pixel */
    size_t a_stride;
    const size_t *offsets; /* [words], bytes from a */
    size_t words;          /* of K in the tap rows that are inside, at least 1 */
    const uint32_t *weights;
    const int32_t *bases;    /* of the row class; limits for the epilogue BITS, see make_limits */
    const uint32_t *classes; /* [pixels]: where in bases, in elements */
    char *out;               /* the first pixel */
    size_t out_stride;
    size_t n, count; /* the first channel of the panel; how many, at most n_tile */
    const onebit_epilogue *epilogue;
} conv_tile;

typedef struct {
    size_t n_tile;     /* at most MAX_LANES */
    size_t pixels;     /* the largest tile, at most MAX_PIXELS */
    size_t word_bytes; /* of a word of activations in a strip: 4, or what to_strip makes of it */
    void (*to_strip)(const uint32_t *from, size_t words, void *to); /* NULL: a copy */
    void (*tile)(const conv_tile *tile, size_t pixels);
} conv_kernel;

/* One run. */
typedef struct {
    const conv_kernel *kernel;
    onebit_conv_shape shape; /* as walked: see is_pointwise */
    axis h, w;
    size_t row_begin, row_end, n_begin, n_end;
    const uint32_t *input, *weights;
    char *out;
    const onebit_epilogue *epilogue;
    bool in_place; /* the strip is the input */
    size_t block_rows, block_columns;
    size_t pixel_bytes, line_bytes; /* of the strip */
    size_t panel_words, column_classes;
    int32_t *limits;   /* [column class][n_tile] */
    size_t *offsets;   /* [sum_words] */
    uint32_t *columns; /* [out_width] offset of the column's class in elements; one class: [MAX_PIXELS] */
    char *strip;
} conv_walk;

/* Output lines y .. y + rows - 1 of an image, columns x .. x + columns - 1. Line y is of class `row_class`,
 * the first line of which is class_y. */
typedef struct {
    size_t image, y, rows, x, columns;
    size_t row_class, class_y;
} conv_block;

static inline size_t round_up(size_t bytes) {
    return (bytes + ONEBIT_ALIGN - 1) / ONEBIT_ALIGN * ONEBIT_ALIGN;
}

/* Pixels of the next tile: as even as possible; with tiles of 14, 15 pixels are 8 and 7. */
static inline size_t next_pixels(size_t left, size_t max) {
    size_t tiles = (left + max - 1) / max;
    return (left + tiles - 1) / tiles;
}

static inline size_t strip_bytes(const conv_walk *walk, size_t rows, size_t columns) {
    return reach(&walk->h, rows) * reach(&walk->w, columns) * walk->pixel_bytes;
}

/* The largest block whose strip fits, at least a tile of one line; whole lines before several. */
static inline void choose_block(conv_walk *walk) {
    size_t tile = walk->kernel->pixels, columns = walk->w.out_size, rows = 1;
    size_t bytes = strip_bytes(walk, 1, columns);
    if (bytes > STRIP_BYTES) {
        size_t tiles = 1, first = strip_bytes(walk, 1, tile), next = strip_bytes(walk, 1, 2 * tile) - first;
        if (first < STRIP_BYTES)
            tiles += (STRIP_BYTES - first) / next;
        columns = tiles * tile < columns ? tiles * tile : columns;
    } else {
        rows += (STRIP_BYTES - bytes) / (strip_bytes(walk, 2, columns) - bytes);
        rows = rows < walk->h.out_size ? rows : walk->h.out_size;
    }
    walk->block_rows = rows;
    walk->block_columns = columns;
}

static inline conv_walk plan(const conv_kernel *kernel, const onebit_conv_shape *s) {
    conv_walk walk = {.kernel = kernel, .shape = *s, .h = axis_h(s), .w = axis_w(s)};
    walk.pixel_bytes = group_words(s) * kernel->word_bytes;
    walk.in_place = !kernel->to_strip && s->groups == 1 && all_inside(&walk.w);
    walk.column_classes = count_classes(&walk.w);
    walk.panel_words = panel_size(s, kernel->n_tile);
    choose_block(&walk);
    walk.line_bytes = (walk.in_place ? walk.w.size : reach(&walk.w, walk.block_columns)) * walk.pixel_bytes;
    return walk;
}

/* Lays out the parts of scratch, unless it is NULL, and returns their size. */
static inline size_t lay_out(conv_walk *walk, char *scratch) {
    const size_t columns = walk->column_classes > 1 ? walk->w.out_size : MAX_PIXELS;
    const size_t limits_end = round_up(walk->column_classes * walk->kernel->n_tile * sizeof(int32_t));
    const size_t offsets_end = limits_end + round_up(sum_words(&walk->shape) * sizeof(size_t));
    const size_t columns_end = offsets_end + round_up(columns * sizeof(uint32_t));
    if (scratch) {
        walk->limits = (int32_t *)(void *)scratch;
        walk->offsets = (size_t *)(void *)(scratch + limits_end);
        walk->columns = (uint32_t *)(void *)(scratch + offsets_end);
        walk->strip = scratch + columns_end;
    }
    return columns_end + (walk->in_place ? 0 : strip_bytes(walk, walk->block_rows, walk->block_columns));
}

/* A 1x1 convolution that keeps the image: its pixels, across lines and images, are one line. */
static inline bool is_pointwise(const onebit_conv_shape *s) {
    return s->kernel_h == 1 && s->kernel_w == 1 && s->stride_h == 1 && s->stride_w == 1 && s->pad_top == 0 &&
           s->pad_left == 0 && s->out_height == s->height && s->out_width == s->width;
}

static inline onebit_conv_shape one_line(onebit_conv_shape s, size_t pixels) {
    s.height = s.out_height = 1;
    s.width = s.out_width = pixels;
    return s;
}

static inline size_t conv_scratch_size(const conv_kernel *kernel, const onebit_conv_shape *shape) {
    /* The line may be of any length; this one is longer than a block, since a pixel has several bytes. */
    onebit_conv_shape s = is_pointwise(shape) ? one_line(*shape, STRIP_BYTES) : *shape;
    conv_walk walk = plan(kernel, &s);
    return lay_out(&walk, NULL);
}

/* Where the words of K are, seen from the first tap row that is computed. */
static inline void fill_offsets(const conv_walk *walk) {
    size_t *to = walk->offsets;
    for (size_t i = 0; i < walk->h.kernel; ++i)
        for (size_t j = 0; j < walk->w.kernel; ++j)
            for (size_t word = 0; word < group_words(&walk->shape); ++word)
                *to++ = i * walk->h.dilation * walk->line_bytes + j * walk->w.dilation * walk->pixel_bytes +
                        word * walk->kernel->word_bytes;
}

static inline void fill_columns(const conv_walk *walk) {
    if (walk->column_classes == 1) {
        memset(walk->columns, 0, MAX_PIXELS * sizeof *walk->columns);
        return;
    }
    uint32_t class = 0;
    for (size_t x = 0; x < walk->w.out_size; class += (uint32_t)walk->kernel->n_tile)
        for (size_t end = next_class(&walk->w, x); x < end; ++x)
            walk->columns[x] = class;
}

static inline void store_words(const conv_walk *walk, const uint32_t *from, size_t words, char *to) {
    if (walk->kernel->to_strip)
        walk->kernel->to_strip(from, words, to);
    else
        memcpy(to, from, words * sizeof *from);
}

/* The channels of one group of a pixel, moved to the beginning of a word. */
static inline void store_group(const conv_walk *walk, const uint32_t *pixel, size_t group, char *to) {
    size_t channels = walk->shape.channels / walk->shape.groups, words = group_words(&walk->shape);
    for (size_t word = 0; word < words; ++word, to += walk->kernel->word_bytes) {
        size_t bit = group * channels + word * ONEBIT_WORD_BITS, shift = bit % ONEBIT_WORD_BITS;
        size_t wanted = word + 1 < words ? ONEBIT_WORD_BITS : channels - word * ONEBIT_WORD_BITS;
        uint32_t bits = pixel[bit / ONEBIT_WORD_BITS] >> shift;
        if (shift + wanted > ONEBIT_WORD_BITS)
            bits |= pixel[bit / ONEBIT_WORD_BITS + 1] << (ONEBIT_WORD_BITS - shift);
        bits &= onebit_tail_mask(wanted);
        store_words(walk, &bits, 1, to);
    }
}

/* One line of a strip: input columns from `begin` on, in coordinates where the image starts at pad. */
static inline void load_line(const conv_walk *walk, const uint32_t *line, size_t begin, size_t columns,
                             size_t group, char *to) {
    const size_t pad = walk->w.pad, words = onebit_words(walk->shape.channels), pixel = walk->pixel_bytes;
    size_t left = pad > begin ? pad - begin : 0;
    left = left < columns ? left : columns;
    const size_t first = begin + left - pad; /* column of the image; wraps when there is none */
    size_t inside = left < columns && first < walk->w.size ? walk->w.size - first : 0;
    inside = inside < columns - left ? inside : columns - left;
    memset(to, 0, left * pixel);
    to += left * pixel;
    if (inside && walk->shape.groups == 1)
        store_words(walk, line + first * words, inside * words, to);
    else
        for (size_t x = 0; x < inside; ++x)
            store_group(walk, line + (first + x) * words, group, to + x * pixel);
    memset(to + inside * pixel, 0, (columns - left - inside) * pixel);
}

static inline const uint32_t *image_line(const conv_walk *walk, size_t image, size_t line) {
    return walk->input + (image * walk->h.size + line) * walk->w.size * onebit_words(walk->shape.channels);
}

static inline void load_strip(const conv_walk *walk, const conv_block *block, size_t group) {
    const size_t first = block->y * walk->h.stride, lines = reach(&walk->h, block->rows);
    for (size_t line = 0; line < lines; ++line)
        if (first + line >= walk->h.pad && first + line - walk->h.pad < walk->h.size)
            load_line(walk, image_line(walk, block->image, first + line - walk->h.pad),
                      block->x * walk->w.stride, reach(&walk->w, block->columns), group,
                      walk->strip + line * walk->line_bytes);
}

/* BITS: v >= t is different <= floor((base - t) / 2) = ceil((base + ~t) / 2), which neither overflows nor
 * leaves int32. */
static inline const int32_t *make_limits(const conv_walk *walk, const int32_t *bases, size_t n,
                                         size_t count) {
    const size_t n_tile = walk->kernel->n_tile;
    const int32_t *threshold = walk->epilogue->threshold + n;
    for (size_t class = 0; class < walk->column_classes * n_tile; class += n_tile)
        for (size_t lane = 0; lane < count; ++lane) {
            int32_t base = bases[class + lane], t = ~threshold[lane];
            walk->limits[class + lane] = (base | t) - ((base ^ t) >> 1);
        }
    return walk->limits;
}

/* groups > 1: the sums of a tile, [pixels][n_tile], go one by one through the epilogue to channel n on. */
static inline void finish_group(const conv_walk *walk, const int32_t *sums, size_t pixels, size_t n,
                                size_t count, char *out, size_t out_stride) {
    const onebit_epilogue *epilogue = walk->epilogue;
    for (size_t p = 0; p < pixels; ++p, out += out_stride, sums += walk->kernel->n_tile)
        for (size_t lane = 0, c = n; lane < count; ++lane, ++c)
            if (epilogue->kind == ONEBIT_EPILOGUE_I32) {
                ((int32_t *)(void *)out)[c] = sums[lane];
            } else if (epilogue->kind == ONEBIT_EPILOGUE_F32) {
                ((float *)(void *)out)[c] = fmaf((float)sums[lane], epilogue->scale[c], epilogue->bias[c]);
            } else {
                uint32_t *word = (uint32_t *)(void *)out + c / ONEBIT_WORD_BITS, bit = c % ONEBIT_WORD_BITS;
                uint32_t one = (sums[lane] >= epilogue->threshold[c]) ^
                               (epilogue->flip[c / ONEBIT_WORD_BITS] >> bit & 1);
                *word = (bit ? *word : 0) | one << bit; /* channels come in order, so bit 0 is the first */
            }
}

/* One line of a block, tile by tile; `tile` describes its first pixel. */
static inline void run_line(const conv_walk *walk, conv_tile tile, size_t columns) {
    static const onebit_epilogue raw = {.kind = ONEBIT_EPILOGUE_I32};
    _Alignas(ONEBIT_ALIGN) int32_t sums[MAX_PIXELS * MAX_LANES];
    const size_t n = tile.n, out_stride = tile.out_stride, max = walk->kernel->pixels;
    char *out = tile.out;
    const bool groups = walk->shape.groups > 1;
    if (groups) {
        tile.epilogue = &raw;
        tile.n = 0;
        tile.out = (char *)sums;
        tile.out_stride = walk->kernel->n_tile * sizeof *sums;
    }
    for (size_t pixels; columns; columns -= pixels) {
        pixels = next_pixels(columns, max);
        walk->kernel->tile(&tile, pixels);
        if (groups)
            finish_group(walk, sums, pixels, n, tile.count, out, out_stride);
        out += pixels * out_stride;
        tile.out = groups ? tile.out : out;
        tile.a += pixels * tile.a_stride;
        tile.classes += walk->column_classes > 1 ? pixels : 0;
    }
}

/* The lines of a block for `count` channels from n on. */
static inline void run_panel(const conv_walk *walk, const conv_block *block, const uint32_t *panel, size_t n,
                             size_t count) {
    static const _Alignas(ONEBIT_ALIGN) uint32_t zeros[MAX_LANES];
    const onebit_conv_shape *s = &walk->shape;
    const bool bits = walk->epilogue->kind == ONEBIT_EPILOGUE_BITS;
    const size_t row_words = walk->w.kernel * group_words(s), n_tile = walk->kernel->n_tile;
    const int32_t *bases = (const int32_t *)panel + walk->h.kernel * row_words * n_tile +
                           block->row_class * walk->column_classes * n_tile;
    const char *strip = walk->in_place ? (const char *)image_line(walk, block->image, 0) +
                                             block->x * walk->w.stride * walk->pixel_bytes
                                       : walk->strip;
    const size_t strip_line = walk->in_place ? walk->h.pad : block->y * walk->h.stride;
    conv_tile tile = {.offsets = walk->offsets,
                      .out_stride = (bits ? onebit_words(s->n) : s->n) * sizeof(uint32_t),
                      .n = n,
                      .count = count,
                      .epilogue = walk->epilogue};
    for (size_t y = block->y, end; y < block->y + block->rows; bases += walk->column_classes * n_tile) {
        end = next_class(&walk->h, y);
        const taps rows = taps_inside(&walk->h, y);
        const bool any = rows.begin < rows.end; /* else one word of zeros, so that tiles need not ask */
        tile.a_stride = any ? walk->w.stride * walk->pixel_bytes : 0;
        tile.words = any ? (rows.end - rows.begin) * row_words : 1;
        tile.weights = any ? panel + rows.begin * row_words * n_tile : zeros;
        tile.bases = bits && s->groups == 1 ? make_limits(walk, bases, n, count) : bases;
        for (; y < end && y < block->y + block->rows; ++y) {
            size_t line = y * walk->h.stride + rows.begin * walk->h.dilation - strip_line;
            tile.a = any ? strip + line * walk->line_bytes : (const char *)zeros;
            tile.classes = walk->columns + (walk->column_classes > 1 ? block->x : 0);
            tile.out = walk->out + ((block->image * walk->h.out_size + y) * walk->w.out_size + block->x) *
                                       tile.out_stride;
            run_line(walk, tile, block->columns);
        }
    }
}

static inline void run_block(const conv_walk *walk, const conv_block *block) {
    const size_t n_tile = walk->kernel->n_tile, group_n = walk->shape.n / walk->shape.groups;
    const uint32_t *weights = walk->weights;
    for (size_t group = 0; group < walk->shape.groups; ++group) {
        if (!walk->in_place)
            load_strip(walk, block, group);
        const size_t begin = group * group_n, end = begin + group_n;
        for (size_t n = begin; n < end; n += n_tile, weights += walk->panel_words)
            if (n >= walk->n_begin && n < walk->n_end)
                run_panel(walk, block, weights, n, end - n < n_tile ? end - n : n_tile);
    }
}

/* The block that begins with output line `row`, after a block whose class is given: lines come in order, so
 * the classes of an image are walked once. */
static inline conv_block next_block(const conv_walk *walk, size_t row, const conv_block *before) {
    conv_block block = {.image = row / walk->h.out_size, .y = row % walk->h.out_size};
    if (block.y && block.image == before->image) {
        block.row_class = before->row_class;
        block.class_y = before->class_y;
    }
    for (size_t next; (next = next_class(&walk->h, block.class_y)) <= block.y; block.class_y = next)
        ++block.row_class;
    const size_t left = walk->h.out_size - block.y, wanted = walk->row_end - row;
    block.rows = left < wanted ? left : wanted;
    block.rows = block.rows < walk->block_rows ? block.rows : walk->block_rows;
    return block;
}

static inline void conv_run(const conv_kernel *kernel, const onebit_conv_args *args) {
    const onebit_conv_shape *s = args->shape;
    const bool pointwise = is_pointwise(s);
    const size_t skipped = pointwise ? args->row_begin * s->width : 0, words = onebit_words(s->n);
    if (args->row_begin >= args->row_end)
        return;
    const onebit_conv_shape line = one_line(*s, (args->row_end - args->row_begin) * s->width);
    conv_walk walk = plan(kernel, pointwise ? &line : s);
    lay_out(&walk, args->scratch);
    walk.row_begin = pointwise ? 0 : args->row_begin;
    walk.row_end = pointwise ? 1 : args->row_end;
    walk.n_begin = args->n_begin;
    walk.n_end = args->n_end;
    walk.epilogue = args->epilogue;
    walk.weights = args->weights;
    walk.input = (const uint32_t *)args->input + skipped * onebit_words(s->channels);
    walk.out = (char *)args->out +
               skipped * (args->epilogue->kind == ONEBIT_EPILOGUE_BITS ? words : s->n) * sizeof(uint32_t);
    fill_offsets(&walk);
    fill_columns(&walk);
    conv_block block = {.image = walk.row_begin / walk.h.out_size};
    for (size_t row = walk.row_begin; row < walk.row_end; row += block.rows) {
        block = next_block(&walk, row, &block);
        for (; block.x < walk.w.out_size; block.x += walk.block_columns) {
            block.columns = walk.w.out_size - block.x;
            block.columns = block.columns < walk.block_columns ? block.columns : walk.block_columns;
            run_block(&walk, &block);
        }
    }
}

#endif
