/* Statuses, messages, sizes that cannot wrap, and the choice of the instruction set. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "engine/internal.h"

static _Thread_local char last_error[512];

onebit_status onebit_fail(onebit_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

const char *onebit_last_error(void) {
    return last_error;
}

int32_t onebit_abi(void) {
    return ONEBIT_ABI;
}

const char *onebit_detect_isa(void) {
    return onebit_isa_name(onebit_isa_detect());
}

bool onebit_multiply(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

bool onebit_add(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

bool onebit_align(size_t bytes, size_t *out) {
    if (!onebit_add(bytes, ONEBIT_ALIGN - 1, out))
        return false;
    *out -= *out % ONEBIT_ALIGN;
    return true;
}

void *onebit_alloc(size_t bytes) {
    void *memory = NULL;
    size_t whole;
    if (!onebit_align(bytes ? bytes : 1, &whole) || posix_memalign(&memory, ONEBIT_ALIGN, whole) != 0)
        return NULL;
    return memory;
}

onebit_status onebit_choose_isa(const char *name, onebit_isa *isa) {
    onebit_isa best = onebit_isa_detect();
    int chosen = name ? onebit_isa_from_name(name) : (int)best;
    if (chosen < 0)
        return onebit_fail(ONEBIT_ERROR_ISA, "there is no instruction set \"%.40s\" here", name);
    if (chosen > (int)best)
        return onebit_fail(ONEBIT_ERROR_ISA, "this machine has no %s; its best is %s", name,
                           onebit_isa_name(best));
    *isa = (onebit_isa)chosen;
    return ONEBIT_OK;
}

const char *onebit_dtype_name(onebit_dtype dtype) {
    static const char *const names[] = {"bits", "u8", "i32", "f32", "i8"};
    return (unsigned)dtype < 5 ? names[dtype] : "unknown";
}

onebit_status onebit_check_bits(const uint32_t *words, size_t rows, size_t channels, const char *what) {
    size_t row_words = onebit_words(channels);
    uint32_t padding = ~onebit_tail_mask(channels);
    for (size_t row = 0; padding && row < rows; ++row)
        if (words[row * row_words + row_words - 1] & padding)
            return onebit_fail(ONEBIT_ERROR_ARGUMENT, "%s: row %zu has a padding bit that is not zero", what,
                               row);
    return ONEBIT_OK;
}

const onebit_elementwise *onebit_elementwise_of(onebit_isa isa) {
    const onebit_elementwise *table = NULL;
    for (int tier = (int)isa; tier >= 0 && !table; --tier)
        table = onebit_elementwise_variant((onebit_isa)tier);
    return table;
}

const onebit_pack *onebit_pack_of(onebit_isa isa) {
    const onebit_pack *table = NULL;
    for (int tier = (int)isa; tier >= 0 && !table; --tier)
        table = onebit_pack_variant((onebit_isa)tier);
    return table;
}

const onebit_pool *onebit_pool_of(onebit_isa isa) {
    const onebit_pool *table = NULL;
    for (int tier = (int)isa; tier >= 0 && !table; --tier)
        table = onebit_pool_variant((onebit_isa)tier);
    return table;
}
