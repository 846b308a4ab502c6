/* A plan's life, its values, its memory; the builder calls that add ops are in build_*.c. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "engine/internal.h"

onebit_status onebit_check_open(const onebit_plan *plan) {
    if (!plan)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the plan is NULL");
    if (plan->finished)
        return onebit_fail(ONEBIT_ERROR_ORDER, "the plan is finished and cannot change any more");
    return ONEBIT_OK;
}

onebit_status onebit_check_value(const onebit_plan *plan, onebit_value value, const plan_value **found) {
    *found = NULL;
    if (value < 0 || (size_t)value >= plan->value_count)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "value %d is not one of the plan's %zu values", (int)value,
                           plan->value_count);
    *found = &plan->values[value];
    return ONEBIT_OK;
}

onebit_status onebit_check_dtype(const plan_value *value, onebit_dtype wanted, const char *op) {
    if (value->dtype != wanted)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s takes %s, not %s", op, onebit_dtype_name(wanted),
                           onebit_dtype_name(value->dtype));
    return ONEBIT_OK;
}

/* Room for one more element in a growing array. */
static bool make_room(void **items, size_t count, size_t *room, size_t item_bytes) {
    if (count < *room)
        return true;
    size_t wanted = *room ? *room * 2 : 16, bytes;
    void *grown = onebit_multiply(wanted, item_bytes, &bytes) ? realloc(*items, bytes) : NULL;
    if (!grown)
        return false;
    *items = grown;
    *room = wanted;
    return true;
}

static onebit_status out_of_memory(size_t bytes) {
    return onebit_fail(ONEBIT_ERROR_MEMORY, "the system refused %zu bytes of memory", bytes);
}

onebit_status onebit_plan_create(const char *isa, uint64_t max_memory, onebit_plan **plan) {
    if (!plan)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no place to store the plan: it is NULL");
    *plan = NULL;
    onebit_isas isas;
    onebit_status status = onebit_choose_isas(isa, &isas);
    if (status != ONEBIT_OK)
        return status;
    onebit_plan *made = calloc(1, sizeof *made);
    if (!made)
        return out_of_memory(sizeof *made);
    atomic_init(&made->references, 1);
    made->isas = isas;
    made->elementwise = onebit_elementwise_variant(isas);
    made->pack = onebit_pack_variant(isas);
    made->pool = onebit_pool_variant(isas);
    made->max_memory = max_memory > SIZE_MAX ? SIZE_MAX : (size_t)max_memory;
    *plan = made;
    return ONEBIT_OK;
}

void onebit_plan_release(onebit_plan *plan) {
    if (!plan || atomic_fetch_sub(&plan->references, 1) != 1)
        return;
    while (plan->blocks) {
        memory_block *next = plan->blocks->next;
        free(plan->blocks);
        plan->blocks = next;
    }
    free(plan->values);
    free(plan->ops);
    free(plan->inputs);
    free(plan->outputs);
    free(plan);
}

onebit_status onebit_plan_memory(onebit_plan *plan, size_t bytes, bool weights, void **memory) {
    size_t owned = plan->weight_bytes + plan->constant_bytes, total, block_bytes;
    if (!onebit_align(bytes, &bytes) || !onebit_add(owned, bytes, &total) || total > plan->max_memory)
        return onebit_fail(ONEBIT_ERROR_LIMIT,
                           "constants of %zu more bytes, after %zu, exceed the limit of %zu bytes "
                           "(max_memory)",
                           bytes, owned, plan->max_memory);
    if (!onebit_add(bytes, ONEBIT_ALIGN, &block_bytes))
        return out_of_memory(bytes);
    memory_block *block = onebit_alloc(block_bytes);
    if (!block)
        return out_of_memory(block_bytes);
    block->next = plan->blocks;
    plan->blocks = block;
    *(weights ? &plan->weight_bytes : &plan->constant_bytes) += bytes;
    *memory = (unsigned char *)block + ONEBIT_ALIGN;
    memset(*memory, 0, bytes);
    return ONEBIT_OK;
}

onebit_status onebit_plan_copy(onebit_plan *plan, const void *source, size_t count, size_t element_bytes,
                               const char *what, const void **copy) {
    size_t bytes;
    void *memory = NULL;
    if (!source)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the %s are NULL", what);
    if (!onebit_multiply(count, element_bytes, &bytes))
        return onebit_fail(ONEBIT_ERROR_LIMIT, "%zu %s are more than a size can count", count, what);
    onebit_status status = onebit_plan_memory(plan, bytes, false, &memory);
    if (status != ONEBIT_OK)
        return status;
    memcpy(memory, source, bytes);
    *copy = memory;
    return ONEBIT_OK;
}

static size_t element_bytes(onebit_dtype dtype) {
    return dtype == ONEBIT_U8 || dtype == ONEBIT_I8 ? 1 : 4;
}

onebit_status onebit_check_size(const onebit_plan *plan, onebit_dtype dtype, size_t rows, size_t channels,
                                plan_value *made) {
    if (rows < 1 || channels < 1 || rows > INT32_MAX || channels > INT32_MAX)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "a value of %zu rows of %zu channels: both must be 1 .. %d",
                           rows, channels, INT32_MAX);
    size_t stored = dtype == ONEBIT_BITS ? onebit_words(channels) : channels;
    *made = (plan_value){
        .dtype = dtype, .rows = rows, .channels = channels, .row_bytes = stored * element_bytes(dtype)};
    if (!onebit_multiply(rows, made->row_bytes, &made->sample_bytes) || made->sample_bytes > plan->max_memory)
        return onebit_fail(ONEBIT_ERROR_LIMIT,
                           "one sample of %zu rows of %zu channels alone exceeds the limit of %zu bytes "
                           "(max_memory)",
                           rows, channels, plan->max_memory);
    return ONEBIT_OK;
}

onebit_status onebit_plan_value(onebit_plan *plan, onebit_dtype dtype, size_t rows, size_t channels,
                                onebit_value *value) {
    plan_value made;
    onebit_status status = onebit_check_size(plan, dtype, rows, channels, &made);
    if (status != ONEBIT_OK)
        return status;
    if (plan->value_count >= MAX_VALUES)
        return onebit_fail(ONEBIT_ERROR_LIMIT, "a plan may have %d values", MAX_VALUES);
    if (!make_room((void **)&plan->values, plan->value_count, &plan->value_room, sizeof *plan->values))
        return out_of_memory(plan->value_room * 2 * sizeof *plan->values);
    *value = made.root = (onebit_value)plan->value_count;
    plan->values[plan->value_count++] = made;
    return ONEBIT_OK;
}

onebit_status onebit_plan_add(onebit_plan *plan, plan_op *op, onebit_dtype dtype, size_t rows,
                              size_t channels, onebit_value *value) {
    if (!make_room((void **)&plan->ops, plan->op_count, &plan->op_room, sizeof *plan->ops))
        return out_of_memory(plan->op_room * 2 * sizeof *plan->ops);
    op->rows = plan->values[op->inputs[0]].rows;
    op->channels = plan->values[op->inputs[0]].channels;
    op->out_rows = rows;
    op->out_channels = channels;
    onebit_status status = onebit_plan_value(plan, dtype, rows, channels, &op->output);
    if (status != ONEBIT_OK)
        return status;
    *value = op->output;
    plan->ops[plan->op_count++] = *op;
    return ONEBIT_OK;
}

onebit_status onebit_plan_input(onebit_plan *plan, onebit_dtype dtype, uint64_t rows, uint64_t channels,
                                onebit_value *value) {
    onebit_status status = onebit_check_open(plan);
    if (status != ONEBIT_OK)
        return status;
    if (!value)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no place to store the value: it is NULL");
    if ((unsigned)dtype > ONEBIT_I8)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no dtype %d", (int)dtype);
    if (!make_room((void **)&plan->inputs, plan->input_count, &plan->input_room, sizeof *plan->inputs))
        return out_of_memory(plan->input_room * 2 * sizeof *plan->inputs);
    status = onebit_plan_value(plan, dtype, (size_t)rows, (size_t)channels, value);
    if (status == ONEBIT_OK)
        plan->inputs[plan->input_count++] = *value;
    return status;
}

onebit_status onebit_plan_packed_input(onebit_plan *plan, uint64_t rows, uint64_t channels,
                                       onebit_value *value) {
    onebit_status status = onebit_plan_input(plan, ONEBIT_BITS, rows, channels, value);
    if (status == ONEBIT_OK)
        plan->values[*value].packed = true;
    return status;
}

onebit_status onebit_plan_output(onebit_plan *plan, onebit_value value) {
    const plan_value *found;
    onebit_status status = onebit_check_open(plan);
    if (status == ONEBIT_OK)
        status = onebit_check_value(plan, value, &found);
    if (status != ONEBIT_OK)
        return status;
    if (plan->output_count >= MAX_VALUES)
        return onebit_fail(ONEBIT_ERROR_LIMIT, "a plan may have %d outputs", MAX_VALUES);
    if (!make_room((void **)&plan->outputs, plan->output_count, &plan->output_room, sizeof *plan->outputs))
        return out_of_memory(plan->output_room * 2 * sizeof *plan->outputs);
    plan->outputs[plan->output_count++] = value;
    return ONEBIT_OK;
}

static bool is_among(const onebit_value *values, size_t count, onebit_value value) {
    for (size_t i = 0; i < count; ++i)
        if (values[i] == value)
            return true;
    return false;
}

onebit_status onebit_plan_packed_output(onebit_plan *plan, onebit_value value) {
    const plan_value *found;
    onebit_status status = onebit_check_open(plan);
    if (status == ONEBIT_OK)
        status = onebit_check_value(plan, value, &found);
    if (status == ONEBIT_OK)
        status = onebit_check_dtype(found, ONEBIT_BITS, "a packed output");
    if (status == ONEBIT_OK && !found->packed &&
        (is_among(plan->inputs, plan->input_count, value) ||
         is_among(plan->outputs, plan->output_count, value)))
        status =
            onebit_fail(ONEBIT_ERROR_ARGUMENT, "value %d already is an input or output as int8", (int)value);
    if (status == ONEBIT_OK)
        status = onebit_plan_output(plan, value);
    if (status == ONEBIT_OK)
        plan->values[value].packed = true;
    return status;
}

onebit_status onebit_plan_finish(onebit_plan *plan) {
    onebit_status status = onebit_check_open(plan);
    if (status != ONEBIT_OK)
        return status;
    if (plan->output_count == 0)
        return onebit_fail(ONEBIT_ERROR_ORDER, "a plan needs at least one output before it is finished");
    status = onebit_plan_arena(plan);
    if (status == ONEBIT_OK)
        plan->finished = true;
    return status;
}

uint64_t onebit_plan_ops(const onebit_plan *plan) {
    return plan ? plan->op_count : 0;
}

onebit_status onebit_plan_op(const onebit_plan *plan, uint64_t index, onebit_op_info *info) {
    if (!plan || !info)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the plan or the place for the answer is NULL");
    if (index >= plan->op_count)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "op %llu is not one of the plan's %zu",
                           (unsigned long long)index, plan->op_count);
    *info = (onebit_op_info){plan->ops[index].variant, plan->ops[index].macs};
    return ONEBIT_OK;
}
