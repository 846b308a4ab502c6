/* What the files of the engine share: the inside of a plan and of an engine. */
#ifndef ONEBIT_ENGINE_INTERNAL_H
#define ONEBIT_ENGINE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/isa.h"
#include "base/threads.h"
#include "kernels/families.h"
#include "onebit.h"

enum {
    MAX_VALUES = 1 << 16,
    MAX_OP_INPUTS = ONEBIT_MAX_PARTS,
    /* Rows that a pass should give every product, and what its activations should not exceed once it has the
     * lower number. Measured on a 3 x 4096 network: the time an image is flat from 8 to 64 rows and grows by
     * 2 % at 128, when activations push weights out of L2. Small networks gain from longer passes. */
    CHUNK_ROWS_MIN = 32,
    CHUNK_ROWS_MAX = 256,
    CHUNK_BYTES = 64 * 1024,
    /* Where there are images: activations that leave L2 cost more than weights that are read again for each
     * sample, */
    CHUNK_BYTES_MAX = 512 * 1024,
    /* unless those are far more, as before and in the classifier of an AlexNet. */
    CHUNK_HEAVY = 8,
    CHUNK_HEAVY_BYTES = 16 * 1024 * 1024,
    /* What the ops of a group read and write in a block of rows. They mostly share bytes, so that a third of
     * it or less is in use at a time: L1. Measured on QuickNet: 24 to 192 KiB are alike, 1 % quicker than no
     * groups where L2 is quick; the other gain is that threads meet once a group. */
    GROUP_BYTES = 96 * 1024,
    /* Constants of fewer channels than the first are repeated to about the second. */
    FEW_CHANNELS = 64,
    REPEATED_CHANNELS = 256,
};

/* Where the bytes of a value live during a run. */
typedef enum { PLACE_ARENA = 0, PLACE_INPUT = 1, PLACE_OUTPUT = 2 } value_place;

typedef struct {
    onebit_dtype dtype;
    size_t rows, channels;
    size_t row_bytes, sample_bytes; /* as stored: bits in words */
    bool packed;                    /* bits that cross to and from the caller as words, not as int8 */
    onebit_value root;              /* the value whose bytes these are; itself unless a reshape renamed it */
    /* The rest is meaningful for roots only. */
    value_place place;
    size_t slot;   /* which input or output */
    size_t offset; /* in the arena */
    /* The op (by index) that last reads it, or the count of ops when the end of a run does; and the end of
     * that op's group: until then the bytes are taken. */
    size_t last_reader, last;
} plan_value;

typedef struct plan_op plan_op;

typedef struct {
    size_t begin, end;
} op_share;

/* One thread's share of an op: `samples` samples from a[0], a[1] .. to out. */
typedef struct {
    size_t samples;
    const void *a[MAX_OP_INPUTS];
    void *out;
    unsigned index, count; /* this share of how many */
    /* Where not NULL: these rows of all samples, instead of a share. Only for ops that are `by_rows`. */
    const op_share *rows;
    void *scratch;
    bool *worked; /* set where this share has anything to do */
} op_call;

struct plan_op {
    void (*run)(const plan_op *op, const op_call *call);
    const char *variant;
    onebit_value inputs[MAX_OP_INPUTS];
    int input_count;
    onebit_value output;
    bool in_place; /* the output may be the buffer of an input of the same size */
    bool by_rows;  /* row r of the output needs nothing but row r of each input */
    /* Neighbouring ops by rows of as many rows are a group: they take turns on a block of rows that stays in
     * L1. The first of a group, or a lone op, has the count of its ops and the rows of a block; others 0. */
    size_t group, group_rows;
    uint64_t macs;         /* a sample */
    uint64_t effort;       /* a sample, roughly in cycles: whether threads are worth waking */
    size_t rows, channels; /* of input 0, a sample */
    const onebit_elementwise *elementwise;
    const onebit_pack *pack;
    /* GEMMs and convolutions. */
    const onebit_gemm_variant *gemm;
    const onebit_conv_variant *conv;
    size_t n, k;
    const void *weights;
    size_t weight_bytes; /* prepacked */
    onebit_epilogue epilogue;
    int32_t multiplier, offset;
    size_t a_stride, out_stride;
    onebit_conv_shape conv_shape;
    /* Pools. */
    const onebit_pool *pool;
    void (*max_pool)(const onebit_pool_args *args); /* NULL: a mean */
    bool include_padding;
    onebit_pool_shape pool_shape;
    const uint32_t *flip; /* NULL, or words that every pixel of bits is xored with */
    /* permute, concat. */
    size_t rank, sizes[ONEBIT_MAX_AXES], axes[ONEBIT_MAX_AXES];
    size_t element_bytes; /* 4 for words of bits */
    bool of_bits;
    size_t part_channels[ONEBIT_MAX_PARTS];
    /* Elementwise ops. */
    onebit_unary unary;
    onebit_binary binary;
    const float *constant, *constant2;
    size_t constant_count;
    size_t repeats; /* how often constants stand in a row, so that rows of few channels fill vectors */
    bool constant_first;
    float parameters[ONEBIT_MAX_PARAMETERS];
    size_t out_rows, out_channels;
};

typedef struct memory_block {
    struct memory_block *next;
} memory_block;

struct onebit_thread_pool {
    _Atomic unsigned references;
    onebit_threads *threads;
    onebit_lock *lock; /* held by an engine during its run */
    unsigned count;    /* of threads */
    onebit_sharing sharing;
};

struct onebit_plan {
    _Atomic unsigned references;
    onebit_isas isas; /* that its kernels may use */
    const onebit_elementwise *elementwise;
    const onebit_pack *pack;
    const onebit_pool *pool;
    size_t max_memory;
    bool finished;
    plan_value *values;
    size_t value_count, value_room;
    plan_op *ops;
    size_t op_count, op_room;
    onebit_value *inputs, *outputs;
    size_t input_count, input_room, output_count, output_room;
    memory_block *blocks; /* every constant, freed with the plan */
    size_t weight_bytes, constant_bytes;
    size_t chunk;         /* samples a pass */
    size_t arena_bytes;   /* of a pass */
    size_t scratch_bytes; /* one thread's */
};

/* ---- status.c ---- */

/* Stores the sentence for onebit_last_error() and returns the status. */
onebit_status onebit_fail(onebit_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* *out = a * b or a + b; false when that is no size_t. */
bool onebit_multiply(size_t a, size_t b, size_t *out);
bool onebit_add(size_t a, size_t b, size_t *out);
/* The next multiple of ONEBIT_ALIGN; false on overflow. */
bool onebit_align(size_t bytes, size_t *out);
/* Memory on an ONEBIT_ALIGN boundary, not zeroed, or NULL. Free with free(). */
void *onebit_alloc(size_t bytes);
onebit_status onebit_choose_isas(const char *name, onebit_isas *isas);
const char *onebit_dtype_name(onebit_dtype dtype);
/* Refuses packed rows with a padding bit that is not zero; `what` begins the sentence. */
onebit_status onebit_check_bits(const uint32_t *words, size_t rows, size_t channels, const char *what);
/* The best table for at most this instruction set. */

/* ---- plan.c ---- */

/* The checks that begin every builder call. */
onebit_status onebit_check_open(const onebit_plan *plan);
onebit_status onebit_check_value(const onebit_plan *plan, onebit_value value, const plan_value **found);
onebit_status onebit_check_dtype(const plan_value *value, onebit_dtype wanted, const char *op);
/* Zeroed, aligned memory that lives as long as the plan and counts as constants. */
onebit_status onebit_plan_memory(onebit_plan *plan, size_t bytes, bool weights, void **memory);
/* A copy of a constant in such memory. */
onebit_status onebit_plan_copy(onebit_plan *plan, const void *source, size_t count, size_t element_bytes,
                               const char *what, const void **copy);
/* Whether a value may have this shape: fills what is known of it. */
onebit_status onebit_check_size(const onebit_plan *plan, onebit_dtype dtype, size_t rows, size_t channels,
                                plan_value *made);
/* A new value; its root is itself. */
onebit_status onebit_plan_value(onebit_plan *plan, onebit_dtype dtype, size_t rows, size_t channels,
                                onebit_value *value);
/* Adds the op and its output value; fills op->output and *value. Nothing is added on failure. */
onebit_status onebit_plan_add(onebit_plan *plan, plan_op *op, onebit_dtype dtype, size_t rows,
                              size_t channels, onebit_value *value);

/* ---- build_product.c: what GEMMs and convolutions have in common ---- */

typedef struct {
    const char *name;
    bool integer_sum;
    int32_t kind; /* onebit_epilogue_kind */
    size_t n;
    const float *scale, *bias;
    const int32_t *threshold;
    const uint32_t *flip;
} product_epilogue;

/* Weights of `rows` rows of `channels` bits or floats: present, of the right size, with zero padding bits. */
onebit_status onebit_check_weights(const onebit_plan *plan, const char *name, const void *weights,
                                   uint64_t weights_bytes, size_t rows, size_t channels, bool floats);
/* The accumulator of k products of bytes is an int32, and so is each of its parts: multiplier * dot and
 * offset * sum of weights. */
onebit_status onebit_check_u8_range(const char *name, size_t k, int32_t multiplier, int32_t offset);
/* Checks the epilogue and copies its constants. */
onebit_status onebit_plan_epilogue(onebit_plan *plan, const product_epilogue *wanted,
                                   onebit_epilogue *epilogue);
onebit_dtype onebit_epilogue_dtype(int32_t kind);

/* ---- window.c ---- */

typedef struct {
    size_t height, width;
} window_outputs;

/* Checks a window over the image x, and makes what has no effect plain: the stride of a single output, the
 * dilation of a single tap. every_window_hits: each window needs a tap inside. */
onebit_status onebit_check_window(const onebit_window *window, const plan_value *x, const char *name,
                                  bool every_window_hits, onebit_window *plain, window_outputs *outputs);

/* ---- arena.c ---- */

onebit_status onebit_plan_arena(onebit_plan *plan);

/* ---- build_elementwise.c ---- */

/* The checks that all ops of one input begin with, and the op they begin. */
onebit_status onebit_begin_op(const onebit_plan *plan, const char *name, onebit_value x,
                              const onebit_value *value, const plan_value **found, plan_op *op);

/* ---- build_layout_ops.c ---- */

/* Whether a value keeps its bytes when its elements, in the same order, become rows of `channels`: bits do
 * when every row, before and after, fills its words. */
bool onebit_same_bytes(const plan_value *x, size_t channels);

/* ---- run_*.c: plan_op.run of each op ---- */

/* Part `index` of `count` of `total` things in tiles of `tile`: whole tiles, as even as they go. */
static inline op_share onebit_share(size_t total, size_t tile, const op_call *call) {
    size_t tiles = (total + tile - 1) / tile;
    size_t begin = tiles * call->index / call->count * tile,
           end = tiles * (call->index + 1) / call->count * tile;
    const op_share share = {begin < total ? begin : total, end < total ? end : total};
    *call->worked |= share.begin < share.end;
    return share;
}

/* The rows that a call of an op by rows is about. */
static inline op_share onebit_rows(const plan_op *op, const op_call *call) {
    return call->rows ? *call->rows : onebit_share(call->samples * op->rows, 1, call);
}

/* The most that one thread gets, in parts of 65536 of the whole. */
static inline uint64_t onebit_largest_share(size_t total, size_t tile, unsigned count) {
    uint64_t tiles = (total + tile - 1) / tile;
    return (tiles + count - 1) / count * tile * 65536 / total;
}

void onebit_run_gemm(const plan_op *op, const op_call *call);
void onebit_run_conv(const plan_op *op, const op_call *call);
void onebit_run_pool(const plan_op *op, const op_call *call);
void onebit_run_channel_mean(const plan_op *op, const op_call *call);
void onebit_run_concat(const plan_op *op, const op_call *call);
void onebit_run_permute(const plan_op *op, const op_call *call);
void onebit_run_binary_rows(const plan_op *op, const op_call *call);
void onebit_run_sign(const plan_op *op, const op_call *call);
void onebit_run_threshold(const plan_op *op, const op_call *call);
void onebit_run_bits_to_float(const plan_op *op, const op_call *call);
void onebit_run_u8_to_float(const plan_op *op, const op_call *call);
void onebit_run_i32_to_float(const plan_op *op, const op_call *call);
void onebit_run_scale_pixels(const plan_op *op, const op_call *call);
void onebit_run_affine(const plan_op *op, const op_call *call);
void onebit_run_unary(const plan_op *op, const op_call *call);
void onebit_run_binary(const plan_op *op, const op_call *call);
void onebit_run_binary_constant(const plan_op *op, const op_call *call);
void onebit_run_repack(const plan_op *op, const op_call *call);

#endif
