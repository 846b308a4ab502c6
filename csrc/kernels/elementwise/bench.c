/* The layout ops of the networks, as JSON lines. bench_elementwise [--isa NAME] */
#include "kernels/bench_conv.h"
#include "kernels/families.h"

typedef struct {
    const onebit_elementwise *ops;
    onebit_permutation permutation;
    size_t element;
    void *x, *out;
    onebit_part part[2];
    size_t rows;
} call;

static void call_permute(void *context) {
    const call *c = context;
    c->ops->permute(&c->permutation, c->element, c->x, c->out);
}

static void call_concat_bits(void *context) {
    const call *c = context;
    c->ops->concat_bits(c->rows, 2, c->part, c->out);
}

static void report(const onebit_elementwise *ops, const char *what, double seconds) {
    printf("{\"what\": \"layout\", \"variant\": \"%s\", \"op\": \"%s\", \"us\": %.2f}\n", ops->name, what,
           seconds * 1e6);
    fflush(stdout);
}

int main(int argc, char **argv) {
    onebit_isas isas = onebit_isas_here();
    if (argc == 3 && strcmp(argv[1], "--isa") == 0)
        isas &= onebit_isa_from_name(argv[2]);
    static const size_t chw[] = {3, 224, 224}, hwc[] = {28, 28, 128}, to_hwc[] = {1, 2, 0},
                        to_chw[] = {2, 0, 1};
    void *x = test_alloc_input(1 << 20), *out = test_alloc_input(1 << 20);
    memset(x, 1, 1 << 20);
    for (; isas; isas &= isas - 1) {
        const onebit_elementwise *ops = onebit_elementwise_variant(onebit_isa_best(isas));
        if (!ops)
            continue;
        call c = {ops, {1, 3, chw, to_hwc}, 1, x, out, {{x, 64}, {x, 64}}, 28 * 28};
        report(ops, "permute u8 3x224x224 to 224x224x3", bench_best(call_permute, &c));
        c.element = 4;
        report(ops, "permute f32 3x224x224 to 224x224x3", bench_best(call_permute, &c));
        c.permutation = (onebit_permutation){1, 3, hwc, to_chw};
        report(ops, "permute f32 28x28x128 to 128x28x28", bench_best(call_permute, &c));
        report(ops, "concat_bits 784x(64 + 64)", bench_best(call_concat_bits, &c));
        c.part[0].channels = 48;
        report(ops, "concat_bits 784x(48 + 64)", bench_best(call_concat_bits, &c));
    }
    free(x), free(out);
    return 0;
}
