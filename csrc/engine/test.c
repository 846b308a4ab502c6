/* The engine: misuse of the builder, sizes that overflow, limits, a network against its definition on every
 * instruction set and thread count, and random builder calls. */
#include "base/testing.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/bits.h"
#include "base/isa.h"
#include "base/threads.h"
#include "onebit.h"

#define GOOD(call) CHECK((call) == ONEBIT_OK, "%s", onebit_last_error())
/* The call fails with just this status and leaves a sentence that contains `words`. */
#define BAD(call, status, words)                                                                             \
    do {                                                                                                     \
        CHECK_EQ(call, status, "%s", onebit_last_error());                                                   \
        CHECK(strstr(onebit_last_error(), words) != NULL, "the message is: %s", onebit_last_error());        \
    } while (0)

enum { PLENTY = 1 << 30 };

static onebit_plan *new_plan(void) {
    onebit_plan *plan = NULL;
    GOOD(onebit_plan_create(NULL, PLENTY, &plan));
    return plan;
}

static onebit_value new_input(onebit_plan *plan, onebit_dtype dtype, uint64_t rows, uint64_t channels) {
    onebit_value value = -1;
    GOOD(onebit_plan_input(plan, dtype, rows, channels, &value));
    return value;
}

/* The caller owns the pool. */
static onebit_engine *new_engine(onebit_plan *plan, unsigned threads, onebit_sharing sharing,
                                 onebit_thread_pool **pool) {
    onebit_engine *engine = NULL;
    *pool = NULL;
    GOOD(onebit_thread_pool_create(threads, sharing, pool));
    GOOD(onebit_engine_create(plan, *pool, &engine));
    return engine;
}

/* ---- misuse ---- */

static void test_null(void) {
    onebit_value value;
    onebit_plan *plan = new_plan();
    onebit_value x = new_input(plan, ONEBIT_F32, 1, 4);
    float one[4] = {1, 1, 1, 1};
    onebit_gemm gemm = {0};
    BAD(onebit_plan_create(NULL, PLENTY, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_input(NULL, ONEBIT_F32, 1, 1, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_input(plan, ONEBIT_F32, 1, 1, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_output(NULL, 0), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_finish(NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_gemm(NULL, &gemm, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_gemm(plan, NULL, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_gemm(plan, &gemm, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_sign(NULL, x, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_sign(plan, x, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_affine(plan, x, NULL, one, 4, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_affine(plan, x, one, NULL, 4, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_unary(plan, ONEBIT_HARDTANH, x, NULL, 2, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_unary(plan, ONEBIT_RELU, x, NULL, 0, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_binary(plan, ONEBIT_ADD, x, x, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_binary_constant(plan, ONEBIT_ADD, x, NULL, 1, 0, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_reshape(plan, x, 2, 2, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_op(plan, 0, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_engine_create(NULL, NULL, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_engine_clone(NULL, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_engine_memory(NULL, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_engine_run(NULL, 1, NULL, NULL, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_binary_matmul(NULL, NULL, 1, 1, 1, NULL, NULL, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_pack_sign(NULL, 1, 1, NULL, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    CHECK_EQ(onebit_plan_ops(NULL), 0, "ops of NULL");
    onebit_plan_release(NULL);
    onebit_engine_destroy(NULL);
    onebit_plan_release(plan);
}

static void test_types(void) {
    onebit_value value;
    onebit_plan *plan = new_plan();
    onebit_value bits = new_input(plan, ONEBIT_BITS, 2, 33), floats = new_input(plan, ONEBIT_F32, 2, 33);
    onebit_value bytes = new_input(plan, ONEBIT_U8, 2, 33), ints = new_input(plan, ONEBIT_I32, 2, 33);
    onebit_value others = new_input(plan, ONEBIT_F32, 33, 2);
    float constants[66] = {0};
    int32_t thresholds[33] = {0};
    uint32_t flips[2] = {0, 0}, padded[2] = {0, 2};
    BAD(onebit_plan_input(plan, (onebit_dtype)9, 1, 1, &value), ONEBIT_ERROR_ARGUMENT, "dtype 9");
    BAD(onebit_plan_sign(plan, ints, &value), ONEBIT_ERROR_ARGUMENT, "f32, not i32");
    BAD(onebit_plan_sign(plan, 99, &value), ONEBIT_ERROR_ARGUMENT, "value 99");
    BAD(onebit_plan_sign(plan, -1, &value), ONEBIT_ERROR_ARGUMENT, "value -1");
    BAD(onebit_plan_output(plan, 5), ONEBIT_ERROR_ARGUMENT, "value 5");
    BAD(onebit_plan_to_float(plan, floats, &value), ONEBIT_ERROR_ARGUMENT, "not f32");
    BAD(onebit_plan_scale_pixels(plan, floats, &value), ONEBIT_ERROR_ARGUMENT, "u8, not f32");
    BAD(onebit_plan_unary(plan, ONEBIT_RELU, bits, NULL, 0, &value), ONEBIT_ERROR_ARGUMENT, "f32, not bits");
    BAD(onebit_plan_threshold(plan, bytes, thresholds, flips, 33, &value), ONEBIT_ERROR_ARGUMENT, "not u8");
    BAD(onebit_plan_threshold(plan, ints, thresholds, flips, 32, &value), ONEBIT_ERROR_ARGUMENT,
        "32 channels");
    BAD(onebit_plan_threshold(plan, ints, thresholds, padded, 33, &value), ONEBIT_ERROR_ARGUMENT, "padding");
    BAD(onebit_plan_affine(plan, floats, constants, constants, 34, &value), ONEBIT_ERROR_ARGUMENT, "34");
    BAD(onebit_plan_unary(plan, (onebit_unary)ONEBIT_UNARY_COUNT, floats, NULL, 0, &value),
        ONEBIT_ERROR_ARGUMENT, "unary");
    BAD(onebit_plan_unary(plan, (onebit_unary)-1, floats, NULL, 0, &value), ONEBIT_ERROR_ARGUMENT, "unary");
    BAD(onebit_plan_unary(plan, ONEBIT_RELU, floats, constants, 1, &value), ONEBIT_ERROR_ARGUMENT, "takes 0");
    BAD(onebit_plan_unary(plan, ONEBIT_HARDTANH, floats, constants, 1, &value), ONEBIT_ERROR_ARGUMENT,
        "takes 2");
    BAD(onebit_plan_unary(plan, ONEBIT_HARDTANH, floats, constants, UINT64_MAX, &value),
        ONEBIT_ERROR_ARGUMENT, "takes 2");
    BAD(onebit_plan_unary(plan, ONEBIT_HARDTANH, floats, (float[]){1, -1}, 2, &value), ONEBIT_ERROR_ARGUMENT,
        "1 .. -1");
    BAD(onebit_plan_unary(plan, ONEBIT_HARDTANH, floats, (float[]){0, NAN}, 2, &value), ONEBIT_ERROR_ARGUMENT,
        "parameter 1 is a NaN");
    BAD(onebit_plan_binary(plan, ONEBIT_ADD, floats, others, &value), ONEBIT_ERROR_ARGUMENT, "shape");
    BAD(onebit_plan_binary(plan, (onebit_binary)ONEBIT_BINARY_COUNT, floats, floats, &value),
        ONEBIT_ERROR_ARGUMENT, "binary");
    BAD(onebit_plan_binary_constant(plan, ONEBIT_PRELU, floats, constants, 4, 0, &value),
        ONEBIT_ERROR_ARGUMENT, "prelu: 4 constants do not divide");
    for (uint64_t i = 0; i < 3; ++i)
        BAD(onebit_plan_binary_constant(plan, ONEBIT_ADD, floats, constants,
                                        (uint64_t[]){0, 5, UINT64_MAX}[i], 0, &value),
            ONEBIT_ERROR_ARGUMENT, "divide");
    BAD(onebit_plan_reshape(plan, floats, 2, 32, &value), ONEBIT_ERROR_ARGUMENT, "reshape");
    BAD(onebit_plan_reshape(plan, floats, UINT64_MAX, UINT64_MAX, &value), ONEBIT_ERROR_ARGUMENT, "reshape");
    BAD(onebit_plan_reshape(plan, floats, 0, 0, &value), ONEBIT_ERROR_ARGUMENT, "reshape");
    CHECK_EQ(onebit_plan_ops(plan), 0, "a failed call adds no op");
    onebit_plan_release(plan);
}

static void test_gemm_misuse(void) {
    onebit_value value;
    onebit_plan *plan = new_plan();
    uint32_t weights[64] = {0};
    float floats[32] = {0};
    int32_t thresholds[32] = {0};
    onebit_value bits = new_input(plan, ONEBIT_BITS, 1, 33), real = new_input(plan, ONEBIT_F32, 1, 33);
    onebit_value bytes = new_input(plan, ONEBIT_U8, 1, 33);
    const onebit_gemm good = {.family = ONEBIT_BINARY_GEMM,
                              .input = bits,
                              .n = 3,
                              .k = 33,
                              .weights = weights,
                              .weights_bytes = 24,
                              .multiplier = 1,
                              .epilogue = ONEBIT_EPILOGUE_I32};
#define REFUSED(change, words)                                                                               \
    do {                                                                                                     \
        onebit_gemm gemm = good;                                                                             \
        change;                                                                                              \
        BAD(onebit_plan_gemm(plan, &gemm, &value), ONEBIT_ERROR_ARGUMENT, words);                            \
    } while (0)
    REFUSED(gemm.family = 4, "family 4");
    REFUSED(gemm.family = -1, "family -1");
    REFUSED(gemm.input = real, "bits, not f32");
    REFUSED(gemm.input = 77, "value 77");
    REFUSED(gemm.n = 0, "n = 0");
    REFUSED(gemm.n = UINT64_MAX, "n = 18446744073709551615");
    REFUSED(gemm.k = 32, "k = 32");
    REFUSED(gemm.k = UINT64_MAX, "k = ");
    REFUSED(gemm.weights = NULL, "NULL");
    REFUSED(gemm.weights_bytes = 23, "23 bytes");
    REFUSED(gemm.weights_bytes = UINT64_MAX, "bytes of weights");
    REFUSED(gemm.epilogue = 3, "epilogue 3");
    REFUSED(gemm.epilogue = ONEBIT_EPILOGUE_F32, "NULL");
    REFUSED(gemm.epilogue = ONEBIT_EPILOGUE_F32; gemm.scale = floats, "NULL");
    REFUSED(gemm.epilogue = ONEBIT_EPILOGUE_BITS, "NULL");
    REFUSED(gemm.epilogue = ONEBIT_EPILOGUE_BITS; gemm.threshold = thresholds, "NULL");
    REFUSED(gemm.family = ONEBIT_F32_BINARY_GEMM; gemm.input = real, "epilogue 0");
    REFUSED(gemm.family = ONEBIT_F32_GEMM; gemm.input = real, "24 bytes");
    REFUSED(gemm.family = ONEBIT_U8_GEMM; gemm.input = bytes; gemm.multiplier = INT32_MAX, "accumulator");
    REFUSED(gemm.family = ONEBIT_U8_GEMM; gemm.input = bytes; gemm.multiplier = INT32_MIN, "accumulator");
    REFUSED(gemm.family = ONEBIT_U8_GEMM; gemm.input = bytes; gemm.offset = INT32_MIN, "accumulator");
    weights[3] = 2;
    REFUSED((void)gemm, "padding bit");
    weights[3] = 0, weights[32] = 8;
    REFUSED(gemm.epilogue = ONEBIT_EPILOGUE_BITS; gemm.threshold = thresholds;
            gemm.flip = weights + 32, "padding bit");
#undef REFUSED
    CHECK_EQ(onebit_plan_ops(plan), 0, "a failed call adds no op");
    GOOD(onebit_plan_gemm(plan, &good, &value));
    onebit_plan_release(plan);
}

static void test_order(void) {
    onebit_value value;
    onebit_thread_pool *pool = NULL;
    onebit_engine *engine = NULL;
    onebit_plan *plan = new_plan();
    onebit_value x = new_input(plan, ONEBIT_F32, 1, 4);
    GOOD(onebit_thread_pool_create(1, ONEBIT_SHARE_LARGE, &pool));
    BAD(onebit_plan_finish(plan), ONEBIT_ERROR_ORDER, "output");
    GOOD(onebit_plan_output(plan, x));
    BAD(onebit_engine_create(plan, pool, &engine), ONEBIT_ERROR_ORDER, "not finished");
    GOOD(onebit_plan_finish(plan));
    BAD(onebit_plan_finish(plan), ONEBIT_ERROR_ORDER, "finished");
    BAD(onebit_plan_unary(plan, ONEBIT_RELU, x, NULL, 0, &value), ONEBIT_ERROR_ORDER, "finished");
    BAD(onebit_plan_input(plan, ONEBIT_F32, 1, 4, &value), ONEBIT_ERROR_ORDER, "finished");
    BAD(onebit_plan_output(plan, x), ONEBIT_ERROR_ORDER, "finished");
    BAD(onebit_engine_create(plan, NULL, &engine), ONEBIT_ERROR_ARGUMENT, "pool");
    CHECK(engine == NULL, "no engine");
    GOOD(onebit_engine_create(plan, pool, &engine));
    onebit_plan_release(plan);
    onebit_thread_pool_release(pool);
    float in[4] = {1, -2, 3, -4}, out[4];
    const void *inputs[] = {in}, *missing[] = {NULL};
    void *outputs[] = {out}, *nowhere[] = {NULL};
    GOOD(onebit_engine_run(engine, 0, NULL, NULL, NULL));
    GOOD(onebit_engine_run(engine, 1, inputs, outputs, NULL));
    CHECK(memcmp(in, out, sizeof in) == 0, "an input that is an output is copied");
    BAD(onebit_engine_run(engine, 1, NULL, outputs, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_engine_run(engine, 1, inputs, NULL, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_engine_run(engine, 1, missing, outputs, NULL), ONEBIT_ERROR_ARGUMENT, "input 0");
    BAD(onebit_engine_run(engine, 1, inputs, nowhere, NULL), ONEBIT_ERROR_ARGUMENT, "output 0");
    BAD(onebit_engine_run(engine, UINT64_MAX, inputs, outputs, NULL), ONEBIT_ERROR_LIMIT, "batch");
    in[2] = NAN;
    BAD(onebit_engine_run(engine, 1, inputs, outputs, NULL), ONEBIT_ERROR_INPUT, "NaN");
    onebit_engine_destroy(engine);
}

static void test_isa(void) {
    onebit_plan *plan = (onebit_plan *)&plan;
    BAD(onebit_plan_create("sse9", PLENTY, &plan), ONEBIT_ERROR_ISA, "sse9");
    CHECK(plan == NULL, "no plan");
    onebit_isa_info info;
    for (uint32_t i = 0; onebit_isa_at(i, &info) == ONEBIT_OK; ++i) {
        CHECK_EQ(info.available, (onebit_isas_here() & onebit_isa_from_name(info.name)) != 0, "%s",
                 info.name);
        const onebit_status status = onebit_plan_create(info.name, PLENTY, &plan);
        CHECK_EQ(status, info.available ? ONEBIT_OK : ONEBIT_ERROR_ISA, "%s", info.name);
        onebit_plan_release(plan);
    }
}

#include "engine/test_threads.h"

/* ---- limits ---- */

static void test_limits(void) {
    onebit_value value, x;
    onebit_plan *plan = NULL;
    onebit_engine *engine = NULL;
    float constant[1024] = {0};
    GOOD(onebit_plan_create(NULL, 4096, &plan));
    BAD(onebit_plan_input(plan, ONEBIT_F32, 0, 1, &x), ONEBIT_ERROR_ARGUMENT, "0 rows");
    BAD(onebit_plan_input(plan, ONEBIT_F32, UINT64_MAX, UINT64_MAX, &x), ONEBIT_ERROR_ARGUMENT, "rows");
    BAD(onebit_plan_input(plan, ONEBIT_F32, INT32_MAX, INT32_MAX, &x), ONEBIT_ERROR_LIMIT, "max_memory");
    BAD(onebit_plan_input(plan, ONEBIT_F32, 1, 1025, &x), ONEBIT_ERROR_LIMIT, "4096");
    GOOD(onebit_plan_input(plan, ONEBIT_F32, 1, 1024, &x));
    BAD(onebit_plan_affine(plan, x, constant, constant, 1024, &value), ONEBIT_ERROR_LIMIT, "max_memory");
    onebit_plan_release(plan);

    /* x -> a, x -> b, a + b: two buffers of 4096 bytes must be alive together, in any layout. */
    for (int enough = 0; enough < 2; ++enough) {
        onebit_value a, b;
        GOOD(onebit_plan_create(NULL, enough ? 8192 : 8191, &plan));
        x = new_input(plan, ONEBIT_F32, 1, 1024);
        GOOD(onebit_plan_unary(plan, ONEBIT_RELU, x, NULL, 0, &a));
        GOOD(onebit_plan_unary(plan, ONEBIT_HARDTANH, x, (float[]){-1, 1}, 2, &b));
        GOOD(onebit_plan_binary(plan, ONEBIT_ADD, a, b, &value));
        GOOD(onebit_plan_output(plan, value));
        if (!enough) {
            BAD(onebit_plan_finish(plan), ONEBIT_ERROR_LIMIT, "8191");
        } else {
            onebit_memory memory = {0};
            GOOD(onebit_plan_finish(plan));
            onebit_thread_pool *pool;
            engine = new_engine(plan, 3, ONEBIT_SHARE_LARGE, &pool);
            onebit_thread_pool_release(pool);
            GOOD(onebit_engine_memory(engine, &memory));
            CHECK_EQ(memory.arena, 8192, "two buffers");
            CHECK_EQ(memory.chunk, 1, "no room for more samples");
        }
        onebit_plan_release(plan);
    }
    onebit_engine_destroy(engine);
}

/* Ops one after another work in place: the arena is one buffer, however long the chain. */
static void test_in_place(void) {
    onebit_plan *plan = new_plan();
    onebit_engine *engine = NULL;
    onebit_memory memory = {0};
    onebit_value value = new_input(plan, ONEBIT_I32, 1, 1000);
    GOOD(onebit_plan_to_float(plan, value, &value));
    for (int i = 0; i < 20; ++i)
        GOOD(onebit_plan_unary(plan, ONEBIT_RELU, value, NULL, 0, &value));
    GOOD(onebit_plan_sign(plan, value, &value));
    GOOD(onebit_plan_output(plan, value));
    GOOD(onebit_plan_finish(plan));
    onebit_thread_pool *pool;
    engine = new_engine(plan, 1, ONEBIT_SHARE_LARGE, &pool);
    onebit_thread_pool_release(pool);
    GOOD(onebit_engine_memory(engine, &memory));
    CHECK(memory.arena <= memory.chunk * (4000 + 128) + 128, "arena %llu of %llu samples",
          (unsigned long long)memory.arena, (unsigned long long)memory.chunk);
    onebit_engine_destroy(engine);
    onebit_plan_release(plan);
}

/* ---- a network against its definition ---- */

enum { ROWS = 2, K = 65, N = 40, M = ROWS * N, LAST = 33, BATCH = 300 };

typedef struct {
    uint32_t w1[N * 3], w2[LAST * 3], flip[2];
    int32_t threshold[N];
    float scale[LAST], bias[LAST];
    int8_t x[BATCH][ROWS][K], hidden[BATCH][ROWS][N];
    float y[BATCH][LAST];
} network;

static int sign_at(const uint32_t *row, size_t channel) {
    return (int)(row[channel / 32] >> (channel % 32) & 1) * 2 - 1;
}

static void make_network(test_random *random, network *net) {
    test_fill_bits(random, net->w1, N, K);
    test_fill_bits(random, net->w2, LAST, M);
    test_fill_bits(random, net->flip, 1, N);
    for (size_t n = 0; n < N; ++n)
        net->threshold[n] = n == 0 ? INT32_MIN : (int32_t)test_below(random, 21) - 10;
    for (size_t n = 0; n < LAST; ++n)
        net->scale[n] = test_float(random), net->bias[n] = test_float(random);
    for (size_t b = 0; b < BATCH; ++b) {
        for (size_t r = 0; r < ROWS; ++r) {
            for (size_t k = 0; k < K; ++k)
                net->x[b][r][k] = test_below(random, 2) ? 1 : -1;
            for (size_t n = 0; n < N; ++n) {
                int sum = 0;
                for (size_t k = 0; k < K; ++k)
                    sum += net->x[b][r][k] * sign_at(net->w1 + 3 * n, k);
                net->hidden[b][r][n] =
                    (int8_t)((sum >= net->threshold[n]) ? sign_at(net->flip, n) * -1 : sign_at(net->flip, n));
            }
        }
        for (size_t n = 0; n < LAST; ++n) {
            int sum = 0;
            for (size_t k = 0; k < M; ++k)
                sum += net->hidden[b][k / N][k % N] * sign_at(net->w2 + 3 * n, k);
            net->y[b][n] = fmaf((float)sum, net->scale[n], net->bias[n]);
        }
    }
}

/* Outputs: y, the hidden bits (which are read on), y once more under another shape. */
static onebit_plan *plan_network(const network *net, const char *isa) {
    onebit_plan *plan = NULL;
    onebit_value hidden, flat, y, reshaped;
    GOOD(onebit_plan_create(isa, PLENTY, &plan));
    onebit_gemm first = {.family = ONEBIT_BINARY_GEMM,
                         .input = new_input(plan, ONEBIT_BITS, ROWS, K),
                         .n = N,
                         .k = K,
                         .weights = net->w1,
                         .weights_bytes = sizeof net->w1,
                         .epilogue = ONEBIT_EPILOGUE_BITS,
                         .threshold = net->threshold,
                         .flip = net->flip};
    GOOD(onebit_plan_gemm(plan, &first, &hidden));
    GOOD(onebit_plan_reshape(plan, hidden, 1, M, &flat));
    onebit_gemm last = {.family = ONEBIT_BINARY_GEMM,
                        .input = flat,
                        .n = LAST,
                        .k = M,
                        .weights = net->w2,
                        .weights_bytes = sizeof net->w2,
                        .epilogue = ONEBIT_EPILOGUE_F32,
                        .scale = net->scale,
                        .bias = net->bias};
    GOOD(onebit_plan_gemm(plan, &last, &y));
    GOOD(onebit_plan_reshape(plan, y, LAST, 1, &reshaped));
    GOOD(onebit_plan_output(plan, y));
    GOOD(onebit_plan_output(plan, hidden));
    GOOD(onebit_plan_output(plan, reshaped));
    GOOD(onebit_plan_finish(plan));
    return plan;
}

typedef struct {
    const network *net;
    onebit_engine *engine;
    int wrong;
} runner;

static void *run_batches(void *context) {
    runner *job = context;
    static const size_t batches[] = {1, 2, 63, BATCH};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; ++i) {
        size_t batch = batches[i];
        float *y = test_alloc(batch * LAST * sizeof *y), *again = test_alloc(batch * LAST * sizeof *again);
        int8_t *hidden = test_alloc(batch * M);
        const void *inputs[] = {job->net->x};
        void *outputs[] = {y, hidden, again};
        job->wrong |= onebit_engine_run(job->engine, batch, inputs, outputs, NULL) != ONEBIT_OK;
        job->wrong |= memcmp(y, job->net->y, batch * LAST * sizeof *y) != 0;
        job->wrong |= memcmp(again, job->net->y, batch * LAST * sizeof *y) != 0;
        job->wrong |= memcmp(hidden, job->net->hidden, batch * M) != 0;
        job->wrong |= !test_guards(y) || !test_guards(hidden) || !test_guards(again);
        test_free(y), test_free(hidden), test_free(again);
    }
    return NULL;
}

static void test_network(test_random *random) {
    network *net = malloc(sizeof *net);
    if (!net)
        abort();
    make_network(random, net);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const char *name = onebit_isa_name(onebit_isa_best(left));
        for (unsigned threads = 1; threads <= 3; ++threads) {
            onebit_plan *plan = plan_network(net, name);
            runner job = {.net = net}, copy = {.net = net};
            onebit_op_info info;
            GOOD(onebit_plan_op(plan, 0, &info));
            CHECK(strstr(info.variant, name) != NULL, "%s runs %s", name, info.variant);
            CHECK_EQ(info.macs, ROWS * K * N, "products");
            BAD(onebit_plan_op(plan, onebit_plan_ops(plan), &info), ONEBIT_ERROR_ARGUMENT, "op 3");
            onebit_thread_pool *pool;
            job.engine = new_engine(plan, threads, (onebit_sharing)(threads % 2), &pool);
            onebit_plan_release(plan);
            GOOD(onebit_engine_clone(job.engine, &copy.engine));
            pthread_t other;
            CHECK(pthread_create(&other, NULL, run_batches, &copy) == 0, "a thread");
            run_batches(&job);
            pthread_join(other, NULL);
            CHECK(!job.wrong && !copy.wrong, "%s, %u threads", name, threads);
            if (threads == 3)
                check_all_worked(pool, threads);
            onebit_engine_destroy(job.engine);
            onebit_thread_pool_release(pool);
            net->x[1][1][64] = 0;
            run_batches(&copy);
            CHECK(copy.wrong && strstr(onebit_last_error(), "+1 or -1"), "a bit that is 0 is refused");
            net->x[1][1][64] = (int8_t)sign_at(net->w1, 0);
            onebit_engine_destroy(copy.engine);
            make_network(random, net);
        }
    }
    free(net);
}

#include "engine/test_direct.h"
#include "engine/test_fuzz.h"
#include "engine/test_images.h"
#include "engine/test_packed.h"

int main(void) {
    test_random random = test_seed(20260729);
    test_threads(&random);
    test_null();
    test_types();
    test_gemm_misuse();
    test_order();
    test_isa();
    test_limits();
    test_in_place();
    test_network(&random);
    test_direct(&random);
    test_images(&random);
    test_packed(&random);
    test_fuzz(&random);
    return test_finish();
}
