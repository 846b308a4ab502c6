/* The memory plan: where each value lives, how many samples a pass takes, and where in the arena each
 * buffer stands. Buffers of values that are never alive together share bytes, and an elementwise op works
 * in place where its input dies. */
#include <stdlib.h>

#include "engine/internal.h"

typedef struct {
    size_t begin, end;
    onebit_value owner;
} live_range;

typedef struct {
    live_range *live; /* sorted by begin */
    size_t count;
    size_t peak;
} arena_map;

static plan_value *root_of(const onebit_plan *plan, onebit_value value) {
    return &plan->values[plan->values[value].root];
}

static bool is_input(const onebit_plan *plan, onebit_value value) {
    for (size_t i = 0; i < plan->input_count; ++i)
        if (plan->inputs[i] == value)
            return true;
    return false;
}

/* Inputs and outputs stay in the caller's memory, where they have the caller's form: everything but int8 bits
 * has, and each output needs a value of its own. */
static void place_values(onebit_plan *plan) {
    for (size_t i = 0; i < plan->value_count; ++i) {
        plan->values[i].place = PLACE_ARENA;
        plan->values[i].last_reader = plan->values[i].last = 0;
    }
    for (size_t i = 0; i < plan->input_count; ++i) {
        plan_value *value = &plan->values[plan->inputs[i]];
        if (value->dtype != ONEBIT_BITS || value->packed)
            value->place = PLACE_INPUT;
        value->slot = i;
    }
    for (size_t i = 0; i < plan->output_count; ++i) {
        plan_value *root = root_of(plan, plan->outputs[i]);
        const bool as_stored = root->dtype != ONEBIT_BITS || plan->values[plan->outputs[i]].packed;
        if (root->place == PLACE_ARENA && as_stored && !is_input(plan, root->root)) {
            root->place = PLACE_OUTPUT;
            root->slot = i;
        }
    }
}

/* Bytes of a row of all that an op reads and writes. */
static size_t touched_bytes(const plan_op *op, const plan_value *values) {
    size_t bytes = values[op->output].row_bytes;
    for (int i = 0; i < op->input_count; ++i)
        bytes += values[op->inputs[i]].row_bytes;
    return bytes;
}

static void form_groups(plan_op *ops, size_t count, const plan_value *values) {
    for (size_t i = 0; i < count; i += ops[i].group) {
        size_t bytes = touched_bytes(&ops[i], values), end = i + 1;
        for (; ops[i].by_rows && end < count && ops[end].by_rows && ops[end].rows == ops[i].rows; ++end) {
            bytes += touched_bytes(&ops[end], values);
            ops[end].group = 0;
        }
        ops[i].group = end - i;
        ops[i].group_rows = bytes < GROUP_BYTES ? GROUP_BYTES / bytes : 1;
    }
}

static void find_lifetimes(plan_op *ops, size_t count, const onebit_plan *plan) {
    for (size_t i = 0, end = 0; i < count; ++i) {
        end = ops[i].group ? i + ops[i].group - 1 : end;
        plan_value *out = root_of(plan, ops[i].output);
        out->last_reader = i;
        out->last = end;
        for (int j = 0; j < ops[i].input_count; ++j) {
            plan_value *in = root_of(plan, ops[i].inputs[j]);
            in->last_reader = i;
            in->last = end;
        }
    }
    for (size_t i = 0; i < plan->output_count; ++i) {
        plan_value *root = root_of(plan, plan->outputs[i]);
        root->last_reader = root->last = count;
    }
}

/* First fit. */
static bool allocate(arena_map *map, onebit_value owner, size_t bytes, size_t *offset) {
    size_t at = 0, index = 0, end;
    for (; index < map->count && map->live[index].begin - at < bytes; ++index)
        at = map->live[index].end;
    if (!onebit_add(at, bytes, &end))
        return false;
    for (size_t i = map->count++; i > index; --i)
        map->live[i] = map->live[i - 1];
    map->live[index] = (live_range){at, end, owner};
    if (end > map->peak)
        map->peak = end;
    *offset = at;
    return true;
}

static void release(arena_map *map, onebit_value owner) {
    size_t kept = 0;
    for (size_t i = 0; i < map->count; ++i)
        if (map->live[i].owner != owner)
            map->live[kept++] = map->live[i];
    map->count = kept;
}

/* Gives the output the buffer of an input that no one reads any more. */
static bool take_over(onebit_plan *plan, arena_map *map, size_t index) {
    const plan_op *op = &plan->ops[index];
    plan_value *out = root_of(plan, op->output);
    for (int j = 0; op->in_place && j < op->input_count; ++j) {
        plan_value *in = root_of(plan, op->inputs[j]);
        if (in->place != PLACE_ARENA || in->last_reader != index || in->sample_bytes != out->sample_bytes)
            continue;
        out->offset = in->offset;
        for (size_t i = 0; i < map->count; ++i)
            if (map->live[i].owner == in->root)
                map->live[i].owner = out->root;
        return true;
    }
    return false;
}

static bool place_buffer(arena_map *map, plan_value *value, size_t chunk) {
    size_t bytes;
    return onebit_multiply(chunk, value->sample_bytes, &bytes) && onebit_align(bytes, &bytes) &&
           allocate(map, value->root, bytes, &value->offset);
}

/* What the group first .. last was the last to read, or wrote for nobody. */
static void release_group(const onebit_plan *plan, arena_map *map, size_t first, size_t last) {
    for (size_t i = first; i <= last; ++i) {
        const plan_op *op = &plan->ops[i];
        for (int j = 0; j < op->input_count; ++j)
            if (root_of(plan, op->inputs[j])->last == last)
                release(map, plan->values[op->inputs[j]].root);
        if (root_of(plan, op->output)->last == last)
            release(map, plan->values[op->output].root);
    }
}

static bool place_buffers(onebit_plan *plan, arena_map *map, size_t chunk) {
    map->count = map->peak = 0;
    for (size_t i = 0; i < plan->input_count; ++i) {
        plan_value *value = &plan->values[plan->inputs[i]];
        if (value->place == PLACE_ARENA && !place_buffer(map, value, chunk))
            return false;
    }
    for (size_t i = 0, group = 0; i < plan->op_count; ++i) {
        const plan_op *op = &plan->ops[i];
        plan_value *out = root_of(plan, op->output);
        if (out->place == PLACE_ARENA && !take_over(plan, map, i) && !place_buffer(map, out, chunk))
            return false;
        group = op->group ? i : group;
        if (i + 1 == group + plan->ops[group].group)
            release_group(plan, map, group, i);
    }
    return true;
}

/* The arena and one thread's scratch for a pass of `chunk` samples; false when a size overflows. */
static bool measure(onebit_plan *plan, arena_map *map, size_t chunk) {
    size_t bytes;
    for (size_t i = 0; i < plan->value_count; ++i)
        if (!onebit_multiply(chunk, plan->values[i].sample_bytes, &bytes) || bytes > SIZE_MAX / 256)
            return false;
    if (!place_buffers(plan, map, chunk))
        return false;
    plan->chunk = chunk;
    plan->arena_bytes = map->peak;
    plan->scratch_bytes = 0;
    for (size_t i = 0; i < plan->op_count; ++i) {
        const plan_op *op = &plan->ops[i];
        size_t scratch = op->gemm   ? op->gemm->scratch_size(chunk * op->rows, op->k)
                         : op->conv ? op->conv->scratch_size(&op->conv_shape)
                                    : 0;
        if (scratch > plan->scratch_bytes)
            plan->scratch_bytes = scratch;
    }
    return onebit_align(plan->scratch_bytes, &plan->scratch_bytes);
}

static bool within_limit(const onebit_plan *plan, size_t *needed) {
    return onebit_add(plan->weight_bytes + plan->constant_bytes, plan->arena_bytes, needed) &&
           onebit_add(*needed, plan->scratch_bytes, needed) && *needed <= plan->max_memory;
}

static size_t product_rows(const plan_op *op) {
    return op->gemm ? op->rows : op->out_rows;
}

/* Whether the weights that products of few rows read again for each sample outweigh all activations. */
static bool weights_are_heavy(const plan_op *ops, size_t count) {
    uint64_t weights = 0, activations = 0;
    for (size_t i = 0; i < count; ++i) {
        if ((ops[i].gemm || ops[i].conv) && product_rows(&ops[i]) < CHUNK_ROWS_MIN)
            weights += ops[i].weight_bytes;
        activations += 8 * (uint64_t)ops[i].out_rows * ops[i].out_channels; /* written and read */
    }
    return weights > 2 * activations;
}

/* As many samples as keep a pass's activations in cache, but enough rows to use each weight often. */
static size_t preferred_chunk(const plan_op *ops, size_t count, size_t arena_bytes) {
    size_t min_rows = SIZE_MAX, max_rows = 1;
    for (size_t i = 0; i < count; ++i)
        if (ops[i].gemm || ops[i].conv) {
            min_rows = product_rows(&ops[i]) < min_rows ? product_rows(&ops[i]) : min_rows;
            max_rows = product_rows(&ops[i]) > max_rows ? product_rows(&ops[i]) : max_rows;
        }
    const size_t bytes = arena_bytes ? arena_bytes : 1, max_chunk = CHUNK_ROWS_MAX / max_rows;
    size_t min_chunk = (CHUNK_ROWS_MIN - 1) / (min_rows < max_rows ? min_rows : max_rows) + 1,
           chunk = CHUNK_BYTES / bytes;
    if (max_rows > 1 && min_chunk > CHUNK_BYTES_MAX / bytes) {
        min_chunk = CHUNK_BYTES_MAX / bytes;
        if (min_chunk < CHUNK_HEAVY && CHUNK_HEAVY <= CHUNK_HEAVY_BYTES / bytes &&
            weights_are_heavy(ops, count))
            min_chunk = CHUNK_HEAVY;
    }
    chunk = chunk < max_chunk ? chunk : max_chunk;
    chunk = chunk > min_chunk ? chunk : min_chunk;
    return chunk ? chunk : 1;
}

onebit_status onebit_plan_arena(onebit_plan *plan) {
    arena_map map = {.live = calloc(plan->value_count + 1, sizeof *map.live)};
    if (!map.live)
        return onebit_fail(ONEBIT_ERROR_MEMORY, "the system refused memory for the layout");
    place_values(plan);
    form_groups(plan->ops, plan->op_count, plan->values);
    find_lifetimes(plan->ops, plan->op_count, plan);
    size_t needed = 0;
    bool fits = measure(plan, &map, 1) && within_limit(plan, &needed);
    if (fits) {
        size_t chunk = preferred_chunk(plan->ops, plan->op_count, plan->arena_bytes);
        while (chunk > 1 && !(measure(plan, &map, chunk) && within_limit(plan, &needed)))
            chunk /= 2;
        fits = chunk > 1 || (measure(plan, &map, 1) && within_limit(plan, &needed));
    }
    free(map.live);
    if (!fits)
        return onebit_fail(
            ONEBIT_ERROR_LIMIT,
            "one sample needs %zu bytes (constants %zu, arena %zu, scratch %zu); the limit is %zu "
            "(max_memory)",
            needed, plan->weight_bytes + plan->constant_bytes, plan->arena_bytes, plan->scratch_bytes,
            plan->max_memory);
    return ONEBIT_OK;
}
