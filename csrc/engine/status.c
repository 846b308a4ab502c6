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

onebit_status onebit_isa_at(uint32_t index, onebit_isa_info *info) {
    if (!info || index >= ONEBIT_ISA_COUNT)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no instruction set %u in the list", index);
    const onebit_isa isa = (onebit_isa)(UINT32_C(1) << index);
    *info = (onebit_isa_info){.name = onebit_isa_name(isa),
                              .architecture = onebit_isa_architecture(isa),
                              .features = onebit_isa_features(isa),
                              .native = (onebit_isas_native() & isa) != 0,
                              .available = (onebit_isas_here() & isa) != 0};
    return ONEBIT_OK;
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

onebit_status onebit_choose_isas(const char *name, onebit_isas *isas) {
    const onebit_isas here = onebit_isas_here();
    const onebit_isa chosen = name ? onebit_isa_from_name(name) : onebit_isa_best(here);
    if (chosen == ONEBIT_ISA_NONE)
        return onebit_fail(ONEBIT_ERROR_ISA, "there is no instruction set \"%.40s\" here", name);
    if (!(here & chosen))
        return onebit_fail(ONEBIT_ERROR_ISA, "this machine has no %s (%s); its best is %s", name,
                           onebit_isa_architecture(chosen), onebit_isa_name(onebit_isa_best(here)));
    *isas = onebit_isas_from(chosen);
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
