/* An engine: the memory and threads of one run at a time, over a finished plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/float_env.h"
#include "engine/internal.h"

/* An op of less effort (about cycles) than this runs on the calling thread: waking others costs as much. */
enum { EFFORT_WORTH_THREADS = 6000 };

struct onebit_engine {
    onebit_plan *plan;
    onebit_thread_pool *pool;
    unsigned char *arena;
    unsigned char *scratch; /* [threads] of plan->scratch_bytes */
    unsigned char **bytes;  /* [values]: where each root's bytes are in this pass */
    /* What the pool is at: `group` ops from op on. */
    const plan_op *op;
    size_t group, samples;
};

static onebit_status refuse(onebit_engine *engine, const char *what) {
    onebit_engine_destroy(engine);
    return onebit_fail(ONEBIT_ERROR_MEMORY, "the system refused %s for an engine", what);
}

onebit_status onebit_engine_create(onebit_plan *plan, onebit_thread_pool *pool, onebit_engine **engine) {
    if (!plan || !pool || !engine)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the plan, the pool or the place for the engine is NULL");
    *engine = NULL;
    if (!plan->finished)
        return onebit_fail(ONEBIT_ERROR_ORDER, "the plan is not finished");
    size_t scratch, needed, constants = plan->weight_bytes + plan->constant_bytes;
    if (!onebit_multiply(plan->scratch_bytes, pool->count, &scratch) ||
        !onebit_add(constants + plan->arena_bytes, scratch, &needed) || needed > plan->max_memory)
        return onebit_fail(ONEBIT_ERROR_LIMIT,
                           "%u threads need %zu bytes of scratch each; the limit is %zu "
                           "bytes in all (max_memory)",
                           pool->count, plan->scratch_bytes, plan->max_memory);
    onebit_engine *made = calloc(1, sizeof *made);
    if (!made)
        return refuse(NULL, "memory");
    atomic_fetch_add(&plan->references, 1);
    made->plan = plan;
    atomic_fetch_add(&pool->references, 1);
    made->pool = pool;
    made->arena = onebit_alloc(plan->arena_bytes);
    made->scratch = onebit_alloc(scratch);
    made->bytes = calloc(plan->value_count + 1, sizeof *made->bytes);
    if (!made->arena || !made->scratch || !made->bytes)
        return refuse(made, "memory");
    *engine = made;
    return ONEBIT_OK;
}

onebit_status onebit_engine_clone(const onebit_engine *engine, onebit_engine **clone) {
    if (!engine || !clone)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the engine or the place for its clone is NULL");
    *clone = NULL;
    onebit_thread_pool *pool;
    onebit_status status = onebit_thread_pool_create(engine->pool->count, engine->pool->sharing, &pool);
    if (status != ONEBIT_OK)
        return status;
    status = onebit_engine_create(engine->plan, pool, clone);
    onebit_thread_pool_release(pool);
    return status;
}

void onebit_engine_destroy(onebit_engine *engine) {
    if (!engine)
        return;
    onebit_thread_pool_release(engine->pool);
    free(engine->arena);
    free(engine->scratch);
    free(engine->bytes);
    onebit_plan_release(engine->plan);
    free(engine);
}

onebit_status onebit_engine_memory(const onebit_engine *engine, onebit_memory *memory) {
    if (!engine || !memory)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the engine or the place for the answer is NULL");
    const onebit_plan *plan = engine->plan;
    *memory = (onebit_memory){.weights = plan->weight_bytes,
                              .constants = plan->constant_bytes,
                              .arena = plan->arena_bytes,
                              .scratch = plan->scratch_bytes * engine->pool->count,
                              .chunk = plan->chunk};
    return ONEBIT_OK;
}

/* ---- the caller's form of bits: int8, +1 or -1 ---- */

static bool pack_signs(size_t rows, size_t channels, const int8_t *from, uint32_t *to) {
    int bad = 0;
    for (size_t row = 0; row < rows; ++row) {
        for (size_t begin = 0; begin < channels; begin += ONEBIT_WORD_BITS) {
            size_t count = channels - begin < ONEBIT_WORD_BITS ? channels - begin : ONEBIT_WORD_BITS;
            uint32_t word = 0;
            for (size_t i = 0; i < count; ++i) {
                bad |= from[begin + i] != 1 && from[begin + i] != -1;
                word |= (uint32_t)(from[begin + i] > 0) << i;
            }
            *to++ = word;
        }
        from += channels;
    }
    return !bad;
}

/* Bytes of one sample in the caller's memory. */
static size_t caller_bytes(const plan_value *value) {
    return value->dtype == ONEBIT_BITS && !value->packed ? value->rows * value->channels
                                                         : value->sample_bytes;
}

/* ---- a run ---- */

static onebit_status check_run(const onebit_engine *engine, uint64_t batch, const void *const *inputs,
                               void *const *outputs) {
    const onebit_plan *plan = engine->plan;
    if (batch == 0)
        return ONEBIT_OK;
    if ((plan->input_count && !inputs) || !outputs)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the list of inputs or of outputs is NULL");
    for (size_t i = 0; i < plan->input_count; ++i)
        if (!inputs[i])
            return onebit_fail(ONEBIT_ERROR_ARGUMENT, "input %zu is NULL", i);
    for (size_t i = 0; i < plan->output_count; ++i)
        if (!outputs[i])
            return onebit_fail(ONEBIT_ERROR_ARGUMENT, "output %zu is NULL", i);
    for (size_t i = 0; i < plan->value_count; ++i) {
        size_t bytes;
        if (!onebit_multiply(caller_bytes(&plan->values[i]), (size_t)batch, &bytes) || bytes > PTRDIFF_MAX)
            return onebit_fail(ONEBIT_ERROR_LIMIT, "a batch of %llu is more than a size can count",
                               (unsigned long long)batch);
    }
    return ONEBIT_OK;
}

/* Where each value's bytes are for the pass that begins at sample `done`; packs bits, refuses NaN. */
static onebit_status enter(onebit_engine *engine, size_t done, size_t samples, const void *const *inputs,
                           void *const *outputs) {
    const onebit_plan *plan = engine->plan;
    for (size_t i = 0; i < plan->value_count; ++i) {
        const plan_value *value = &plan->values[i];
        if (value->place == PLACE_ARENA)
            engine->bytes[i] = engine->arena + value->offset;
        else if (value->place == PLACE_OUTPUT)
            engine->bytes[i] = (unsigned char *)outputs[value->slot] + done * value->sample_bytes;
    }
    for (size_t i = 0; i < plan->input_count; ++i) {
        const plan_value *value = &plan->values[plan->inputs[i]];
        const unsigned char *from = (const unsigned char *)inputs[i] + done * caller_bytes(value);
        if (value->place == PLACE_ARENA) {
            if (!pack_signs(samples * value->rows, value->channels, (const int8_t *)from,
                            (uint32_t *)(void *)engine->bytes[plan->inputs[i]]))
                return onebit_fail(ONEBIT_ERROR_INPUT, "input %zu: bits must be +1 or -1", i);
            continue;
        }
        /* Never written through: no op's output is placed in an input. */
        engine->bytes[plan->inputs[i]] = (unsigned char *)(uintptr_t)from;
        if (value->packed) {
            char what[32];
            snprintf(what, sizeof what, "input %zu", i);
            const onebit_status status = onebit_check_bits((const uint32_t *)(const void *)from,
                                                           samples * value->rows, value->channels, what);
            if (status != ONEBIT_OK)
                return status;
        }
        if (value->dtype == ONEBIT_F32 && plan->elementwise->has_nan(samples * value->rows * value->channels,
                                                                     (const float *)(const void *)from))
            return onebit_fail(ONEBIT_ERROR_INPUT, "input %zu has a NaN", i);
    }
    return ONEBIT_OK;
}

static void leave(onebit_engine *engine, size_t done, size_t samples, void *const *outputs) {
    const onebit_plan *plan = engine->plan;
    for (size_t i = 0; i < plan->output_count; ++i) {
        const plan_value *value = &plan->values[plan->outputs[i]];
        const plan_value *root = &plan->values[value->root];
        unsigned char *to = (unsigned char *)outputs[i] + done * caller_bytes(value);
        if (value->dtype == ONEBIT_BITS && !value->packed)
            plan->pack->unpack(samples * value->rows, value->channels,
                               (const uint32_t *)(const void *)engine->bytes[value->root], (int8_t *)to);
        else if (root->place != PLACE_OUTPUT || root->slot != i)
            memcpy(to, engine->bytes[value->root], samples * value->sample_bytes);
    }
}

static void run_rows(const onebit_engine *engine, const plan_op *op, op_call *call) {
    const plan_value *values = engine->plan->values;
    for (int i = 0; i < op->input_count; ++i)
        call->a[i] = engine->bytes[values[op->inputs[i]].root];
    call->out = engine->bytes[op->output];
    op->run(op, call);
}

/* A share of the group that begins at engine->op: its rows, block by block, each op in turn. */
static bool run_share(void *context, unsigned index, unsigned count) {
    const onebit_engine *engine = context;
    const plan_op *op = engine->op;
    bool worked = false;
    op_call call = {.samples = engine->samples, .index = index, .count = count, .worked = &worked};
    call.scratch = engine->scratch + index * engine->plan->scratch_bytes;
    if (engine->group == 1) {
        run_rows(engine, op, &call);
        return worked;
    }
    const op_share all = onebit_rows(op, &call);
    op_share block = {all.begin, all.begin};
    call.rows = &block;
    for (; block.begin < all.end; block.begin = block.end) {
        block.end = all.end - block.begin < op->group_rows ? all.end : block.begin + op->group_rows;
        for (size_t i = 0; i < engine->group; ++i)
            run_rows(engine, op + i, &call);
    }
    return worked;
}

static void run_group(onebit_engine *engine, const plan_op *op, size_t group, size_t samples) {
    uint64_t effort = 0;
    for (size_t i = 0; i < group; ++i)
        effort += op[i].effort;
    engine->op = op;
    engine->group = group;
    engine->samples = samples;
    const onebit_thread_pool *pool = engine->pool;
    const bool small = effort < (EFFORT_WORTH_THREADS + samples - 1) / samples;
    if (pool->count == 1 || (small && pool->sharing == ONEBIT_SHARE_LARGE))
        run_share(engine, 0, 1);
    else
        onebit_threads_run(pool->threads, run_share, engine);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* To be timed, each op runs alone. */
static void run_ops(onebit_engine *engine, size_t samples, double *op_seconds) {
    const onebit_plan *plan = engine->plan;
    for (size_t i = 0, group; i < plan->op_count; i += group) {
        double start = op_seconds ? now() : 0;
        group = op_seconds ? 1 : plan->ops[i].group;
        run_group(engine, &plan->ops[i], group, samples);
        if (op_seconds)
            op_seconds[i] += now() - start;
    }
}

static onebit_status run_passes(onebit_engine *engine, size_t batch, const void *const *inputs,
                                void *const *outputs, double *op_seconds) {
    for (size_t done = 0; done < batch;) {
        size_t samples = batch - done < engine->plan->chunk ? batch - done : engine->plan->chunk;
        onebit_status status = enter(engine, done, samples, inputs, outputs);
        if (status != ONEBIT_OK)
            return status;
        run_ops(engine, samples, op_seconds);
        leave(engine, done, samples, outputs);
        done += samples;
    }
    return ONEBIT_OK;
}

onebit_status onebit_engine_run(onebit_engine *engine, uint64_t batch, const void *const *inputs,
                                void *const *outputs, double *op_seconds) {
    if (!engine)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the engine is NULL");
    onebit_status status = check_run(engine, batch, inputs, outputs);
    if (status != ONEBIT_OK)
        return status;
    onebit_lock_acquire(engine->pool->lock);
    const onebit_float_env before = onebit_float_env_enter();
    status = run_passes(engine, (size_t)batch, inputs, outputs, op_seconds);
    onebit_float_env_leave(before);
    onebit_lock_release(engine->pool->lock);
    return status;
}
