/* onebit: the public C API.
 *
 * A plan is built by calls, op by op, from typed values and constants; each call checks shapes, types,
 * ranges and sizes, and copies (prepacks) the constants it is given. After onebit_plan_finish the plan is
 * immutable, and any number of engines may share it. An engine owns the memory and the threads of a run;
 * a run allocates nothing.
 *
 * Every function that can fail returns a status; anything but ONEBIT_OK leaves a sentence for this thread
 * in onebit_last_error(). A failed call adds no value, no op and no output; the constants it
 * had already copied count until the plan is released.
 *
 * A value belongs to one sample of the batch and has `rows` x `channels` elements. Values of type BITS are
 * +1 or -1. Bit 1 means +1, channel c is bit c % 32 of little-endian 32-bit word c / 32, each row starts a
 * new word, and padding bits are zero. Constants cross this interface packed so; samples cross it as int8,
 * one +1 or -1 an element, or packed as well where the caller says so. */
#ifndef ONEBIT_H
#define ONEBIT_H

#include <stddef.h>
#include <stdint.h>

#include "onebit_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ONEBIT_API __attribute__((visibility("default")))
#else
#define ONEBIT_API
#endif

/* Raised when a function here changes its meaning or its arguments. */
#define ONEBIT_ABI 4

#define ONEBIT_MAX_PARTS   8
#define ONEBIT_MAX_THREADS 256

typedef enum {
    ONEBIT_OK = 0,
    ONEBIT_ERROR_ARGUMENT = 1, /* a NULL, a type, a shape, a range */
    ONEBIT_ERROR_ORDER = 2,    /* a right call at the wrong time, e.g. an op after onebit_plan_finish */
    ONEBIT_ERROR_LIMIT = 3,    /* more than max_memory, or more than a size can count */
    ONEBIT_ERROR_MEMORY = 4,   /* the system refused memory or a thread */
    ONEBIT_ERROR_ISA = 5,      /* an instruction set that is unknown, or that this machine lacks */
    ONEBIT_ERROR_INPUT = 6     /* a NaN in a float input, or a bits input that is neither +1 nor -1 */
} onebit_status;

typedef enum { ONEBIT_BITS = 0, ONEBIT_U8 = 1, ONEBIT_I32 = 2, ONEBIT_F32 = 3, ONEBIT_I8 = 4 } onebit_dtype;

typedef struct onebit_plan onebit_plan;
typedef struct onebit_thread_pool onebit_thread_pool;
typedef struct onebit_engine onebit_engine;
typedef int32_t onebit_value; /* a value of the plan that made it */

ONEBIT_API int32_t onebit_abi(void);
/* What went wrong in this thread's latest failed call; never NULL. */
ONEBIT_API const char *onebit_last_error(void);

/* An instruction set that kernels are written for. */
typedef struct {
    const char *name;         /* e.g. "avx2" */
    const char *architecture; /* "x86-64", "AArch64", or "any" */
    const char *features; /* what the CPU must have, as Linux's /proc/cpuinfo calls it, separated by spaces */
    int32_t native;       /* 1: of the architecture that this library is built for, else 0 */
    int32_t available;    /* 1: this machine runs it, else 0 */
} onebit_isa_info;

/* The list of them, of all architectures; of one architecture the best comes first. An index from its end on
 * is an error. */
ONEBIT_API onebit_status onebit_isa_at(uint32_t index, onebit_isa_info *info);

/* ---- plans ---------------------------------------------------------------------------------------- */

/* isa: a name of onebit_isa_at, or NULL for the best of this machine; where a kind of kernel lacks it, the
 * next in the list that is available runs. max_memory: the most bytes that the plan's constants and one
 * engine's memory may take together. The caller owns one reference. */
ONEBIT_API onebit_status onebit_plan_create(const char *isa, uint64_t max_memory, onebit_plan **plan);
/* Gives back one reference; NULL is allowed. Engines hold their own. */
ONEBIT_API void onebit_plan_release(onebit_plan *plan);

ONEBIT_API onebit_status onebit_plan_input(onebit_plan *plan, onebit_dtype dtype, uint64_t rows,
                                           uint64_t channels, onebit_value *value);
/* The next input, of type BITS, whose samples cross as rows of words. A padding bit that is not zero is
 * refused when it comes. */
ONEBIT_API onebit_status onebit_plan_packed_input(onebit_plan *plan, uint64_t rows, uint64_t channels,
                                                  onebit_value *value);
/* Makes a value the next output. A value may be an output and an input of further ops. */
ONEBIT_API onebit_status onebit_plan_output(onebit_plan *plan, onebit_value value);
/* The same with a value of type BITS, whose samples then cross as rows of words. A value crosses in one form
 * only: one that already is an input or output as int8 is refused, and a packed one stays packed. */
ONEBIT_API onebit_status onebit_plan_packed_output(onebit_plan *plan, onebit_value value);
/* Lays out the memory. Then no more ops can be added and engines can be created. */
ONEBIT_API onebit_status onebit_plan_finish(onebit_plan *plan);

typedef enum {
    ONEBIT_BINARY_GEMM = 0,     /* bits x bits weights: int32 */
    ONEBIT_U8_GEMM = 1,         /* (multiplier * u8 + offset) x bits weights: int32 */
    ONEBIT_F32_BINARY_GEMM = 2, /* f32 x bits weights: f32 */
    ONEBIT_F32_GEMM = 3         /* f32 x f32 weights: f32 */
} onebit_gemm_family;

typedef struct {
    int32_t family; /* onebit_gemm_family */
    onebit_value input;
    uint64_t n, k;              /* k must be the input's channels */
    const void *weights;        /* [n] rows of ceil(k / 32) words, or of k floats */
    uint64_t weights_bytes;     /* must be the size of just that */
    int32_t multiplier, offset; /* U8_GEMM only */
    int32_t epilogue;           /* onebit_epilogue_kind */
    const float *scale;         /* [n] */
    const float *bias;          /* [n]; -0.0f adds nothing */
    const int32_t *threshold;   /* [n] */
    const uint32_t *flip;       /* [ceil(n / 32)] */
} onebit_gemm;

ONEBIT_API onebit_status onebit_plan_gemm(onebit_plan *plan, const onebit_gemm *gemm, onebit_value *value);

/* ---- images ----
 * An image is a value of height * width rows: row y * width + x is pixel (y, x). */

/* Where the windows of a convolution or pool lie. Tap (i, j) of output (y, x) is the pixel (y * stride_h +
 * i * dilation_h - pad_top, x * stride_w + j * dilation_w - pad_left). Along an axis there are (size + both
 * pads - dilation * (kernel - 1) - 1) / stride + 1 outputs, at least one. */
typedef struct {
    uint64_t height, width; /* of the input, whose rows they are */
    uint64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint64_t pad_top, pad_bottom, pad_left, pad_right;
} onebit_window;

typedef enum {
    ONEBIT_BINARY_CONV = 0,     /* bits x bits weights: int32 */
    ONEBIT_U8_CONV = 1,         /* (multiplier * u8 + offset) x bits weights: int32 */
    ONEBIT_F32_BINARY_CONV = 2, /* f32 x bits weights: f32 */
    ONEBIT_F32_CONV = 3         /* f32 x f32 weights: f32 */
} onebit_conv_family;

typedef struct {
    int32_t family; /* onebit_conv_family */
    onebit_value input;
    onebit_window window;
    uint64_t n;             /* output channels */
    uint64_t groups;        /* divides the input's channels c and n */
    const void *weights;    /* [n][kernel_h][kernel_w] of ceil(c / groups / 32) words, or c / groups floats */
    uint64_t weights_bytes; /* must be the size of just that */
    int32_t padding_value;  /* BINARY_CONV: what a tap outside the image reads, 0 (adds nothing), 1 or -1 */
    int32_t multiplier, offset; /* U8_CONV only */
    int32_t epilogue;           /* onebit_epilogue_kind, and what it needs, as in onebit_gemm */
    const float *scale;
    const float *bias;
    const int32_t *threshold;
    const uint32_t *flip;
} onebit_conv;

/* To an image of output pixels with n channels. */
ONEBIT_API onebit_status onebit_plan_conv(onebit_plan *plan, const onebit_conv *conv, onebit_value *value);

typedef enum {
    ONEBIT_POOL_MAX = 0,    /* bits (OR), u8, i32 or f32 */
    ONEBIT_POOL_MEAN = 1,   /* f32: of the taps inside the image */
    ONEBIT_POOL_PADDED = 2, /* f32: the sum of the taps inside, divided by kernel_h * kernel_w */
} onebit_pooling;

/* Each window must have a tap inside the image. flip: NULL, or, where x is bits, [ceil(channels / 32)] words
 * that the result is xored with. */
ONEBIT_API onebit_status onebit_plan_pool(onebit_plan *plan, onebit_pooling kind, onebit_value x,
                                          const onebit_window *window, const uint32_t *flip,
                                          onebit_value *value);
/* f32 of any number of channels to one: their mean. */
ONEBIT_API onebit_status onebit_plan_channel_mean(onebit_plan *plan, onebit_value x, onebit_value *value);
/* `count` (1 .. ONEBIT_MAX_PARTS) values of one dtype and as many rows: their channels one after another. */
ONEBIT_API onebit_status onebit_plan_concat(onebit_plan *plan, const onebit_value *parts, uint64_t count,
                                            onebit_value *value);
/* A sample of x, [sizes[0]]..[sizes[rank - 1]] (1 <= rank <= ONEBIT_MAX_AXES), with axis i of the output
 * being axis axes[i] of it. Where x is bits, its last size is its channels. The output's channels are the
 * last axis. */
ONEBIT_API onebit_status onebit_plan_permute(onebit_plan *plan, onebit_value x, uint64_t rank,
                                             const uint64_t *sizes, const uint64_t *axes,
                                             onebit_value *value);

/* f32 to bits: x >= 0. */
ONEBIT_API onebit_status onebit_plan_sign(onebit_plan *plan, onebit_value x, onebit_value *value);
/* i32 to bits: (x >= threshold[c]) xor flip bit c; both for `channels` channels. */
ONEBIT_API onebit_status onebit_plan_threshold(onebit_plan *plan, onebit_value x, const int32_t *threshold,
                                               const uint32_t *flip, uint64_t channels, onebit_value *value);
/* bits, u8 or i32 to f32, rounded to nearest where it must be. */
ONEBIT_API onebit_status onebit_plan_to_float(onebit_plan *plan, onebit_value x, onebit_value *value);
/* u8 to f32: (2x - 255) / 256. */
ONEBIT_API onebit_status onebit_plan_scale_pixels(onebit_plan *plan, onebit_value x, onebit_value *value);
/* fma(x, scale[c], shift[c]), one rounding. */
ONEBIT_API onebit_status onebit_plan_affine(onebit_plan *plan, onebit_value x, const float *scale,
                                            const float *shift, uint64_t channels, onebit_value *value);
/* f32, one of ONEBIT_UNARY_OPS: `count` must be the number of its parameters, none a NaN. HARDTANH: p <= q;
 * an infinity does not bound. */
ONEBIT_API onebit_status onebit_plan_unary(onebit_plan *plan, onebit_unary op, onebit_value x,
                                           const float *parameters, uint64_t count, onebit_value *value);
/* f32, one of ONEBIT_BINARY_OPS, element by element; two values of one shape, or of as many rows where one
 * has a single channel, which then meets each channel of the other. */
ONEBIT_API onebit_status onebit_plan_binary(onebit_plan *plan, onebit_binary op, onebit_value a,
                                            onebit_value b, onebit_value *value);
/* The same with a constant, on the right (x - c) or, where constant_first is not 0, on the left (c - x).
 * Element i of a sample meets constant[i % count]; count divides rows * channels. */
ONEBIT_API onebit_status onebit_plan_binary_constant(onebit_plan *plan, onebit_binary op, onebit_value x,
                                                     const float *constant, uint64_t count,
                                                     int32_t constant_first, onebit_value *value);
/* The same elements, in row-major order, in another shape. */
ONEBIT_API onebit_status onebit_plan_reshape(onebit_plan *plan, onebit_value x, uint64_t rows,
                                             uint64_t channels, onebit_value *value);

typedef struct {
    const char *variant; /* the kernel that runs, "<family>/<isa>"; lives as long as the plan */
    uint64_t macs;       /* multiply-accumulates a sample; 0 where the op is no product */
} onebit_op_info;

/* Ops in the order of a run. A call that only renames memory adds no op. */
ONEBIT_API uint64_t onebit_plan_ops(const onebit_plan *plan);
ONEBIT_API onebit_status onebit_plan_op(const onebit_plan *plan, uint64_t index, onebit_op_info *info);

/* ---- thread pools --------------------------------------------------------------------------------- */

typedef enum {
    /* Small ops stay on the calling thread; of others whoever is free does the next share. */
    ONEBIT_SHARE_LARGE = 0,
    /* Every op, however small, and thread i does share i: slow, for tests that must see all threads at work.
     */
    ONEBIT_SHARE_ALWAYS = 1
} onebit_sharing;

/* threads: 1 .. ONEBIT_MAX_THREADS, the caller's included. The caller owns one reference. */
ONEBIT_API onebit_status onebit_thread_pool_create(uint32_t threads, onebit_sharing sharing,
                                                   onebit_thread_pool **pool);
/* Gives back one reference; NULL is allowed. Engines hold their own. */
ONEBIT_API void onebit_thread_pool_release(onebit_thread_pool *pool);
/* shares: [threads], for each thread how many shares of ops it has done, its caller's first. An op that is
 * not shared out does not count, nor does a share in which there was nothing to do. */
ONEBIT_API onebit_status onebit_thread_pool_shares(const onebit_thread_pool *pool, uint64_t *shares);

/* ---- engines -------------------------------------------------------------------------------------- */

/* An engine of a finished plan that runs on the pool's threads. Several may share a pool: they wait for each
 * other. A run computes in the default floating-point environment and gives the caller's back. */
ONEBIT_API onebit_status onebit_engine_create(onebit_plan *plan, onebit_thread_pool *pool,
                                              onebit_engine **engine);
/* Another engine of the same plan, with a pool of its own that is like the first's: for use at the same time.
 */
ONEBIT_API onebit_status onebit_engine_clone(const onebit_engine *engine, onebit_engine **clone);
/* NULL is allowed. No run may be in progress. */
ONEBIT_API void onebit_engine_destroy(onebit_engine *engine);

/* Runs a batch of any size, 0 included. inputs[i] and outputs[i]: [batch][rows][channels], C-contiguous and
 * aligned as their element type is; outputs overlap nothing. op_seconds: NULL, or an array of
 * onebit_plan_ops(plan) numbers to which the time of each op is added. Calls on one engine wait for each
 * other. On an error the outputs hold anything. */
ONEBIT_API onebit_status onebit_engine_run(onebit_engine *engine, uint64_t batch, const void *const *inputs,
                                           void *const *outputs, double *op_seconds);

typedef struct {
    uint64_t weights;   /* prepacked weights of the plan: shared by clones */
    uint64_t constants; /* its thresholds, scales and other constants: shared by clones */
    uint64_t arena;     /* this engine's activations */
    uint64_t scratch;   /* this engine's kernel scratch, all threads */
    uint64_t chunk;     /* samples that a pass takes together */
} onebit_memory;

ONEBIT_API onebit_status onebit_engine_memory(const onebit_engine *engine, onebit_memory *memory);

/* ---- kernels, directly ---------------------------------------------------------------------------- */

/* out[m][n] = k - 2 * popcount(a[m] xor weights[n]); a: [m][ceil(k / 32)], weights: [n][ceil(k / 32)]
 * words with zero padding bits. Packs the weights for the kernel on each call. */
ONEBIT_API onebit_status onebit_binary_matmul(const char *isa, onebit_thread_pool *pool, uint64_t m,
                                              uint64_t n, uint64_t k, const uint32_t *a,
                                              const uint32_t *weights, int32_t *out);
/* out[r]: bits x[r][c] >= 0, packed; x: [rows][channels]. A NaN is refused. */
ONEBIT_API onebit_status onebit_pack_sign(const char *isa, uint64_t rows, uint64_t channels, const float *x,
                                          uint32_t *out);

/* The same from images in planes, x: [images][channels][pixels], to out: [images][pixels][ceil(channels /
 * 32)] words: each pixel's signs beside each other. A NaN is refused. */
ONEBIT_API onebit_status onebit_pack_sign_planes(const char *isa, uint64_t images, uint64_t channels,
                                                 uint64_t pixels, const float *x, uint32_t *out);

#ifdef __cplusplus
}
#endif
#endif
