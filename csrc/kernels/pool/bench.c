/* The pools of the networks, as JSON lines: microseconds of a call and GB/s of input and output together.
 * bench_pool [--isa NAME] */
#include "base/bits.h"
#include "kernels/bench_conv.h"
#include "kernels/families.h"

typedef struct {
    void (*run)(const onebit_pool_args *);
    const onebit_pool *ops;
    onebit_pool_args args;
} call;

static void call_maximum(void *context) {
    const call *c = context;
    c->run(&c->args);
}

static void call_average(void *context) {
    const call *c = context;
    c->ops->average_f32(&c->args, 1);
}

static void report(const onebit_pool *ops, const char *what, void (*run)(const onebit_pool_args *),
                   size_t size, size_t channels, size_t kernel, size_t stride, size_t pad) {
    const size_t out_size = (size + 2 * pad - kernel) / stride + 1;
    const onebit_pool_shape s = {size,   size,   channels, out_size, out_size, kernel, kernel,
                                 stride, stride, 1,        1,        pad,      pad};
    const size_t pixel = run == ops->max_bits ? onebit_words(channels) * 4
                         : run == ops->max_u8 ? channels
                                              : channels * 4;
    const size_t bytes = (size * size + out_size * out_size) * pixel;
    unsigned char *in = test_alloc_input(size * size * pixel),
                  *out = test_alloc_input(out_size * out_size * pixel);
    memset(in, 1, size * size * pixel);
    call c = {run, ops, {&s, 0, out_size, in, out}};
    const double seconds = bench_best(run ? call_maximum : call_average, &c);
    printf("{\"what\": \"pool\", \"variant\": \"%s\", \"op\": \"%s\", \"shape\": \"%zux%zux%zu kernel %zu "
           "stride %zu pad "
           "%zu\", \"us\": %.2f, \"gb_per_s\": %.1f}\n",
           ops->name, what, size, size, channels, kernel, stride, pad, seconds * 1e6,
           (double)bytes / seconds * 1e-9);
    fflush(stdout);
    free(in), free(out);
}

int main(int argc, char **argv) {
    onebit_isas isas = onebit_isas_here();
    if (argc == 3 && strcmp(argv[1], "--isa") == 0)
        isas &= onebit_isa_from_name(argv[2]);
    for (; isas; isas &= isas - 1) {
        const onebit_pool *ops = onebit_pool_variant(onebit_isa_best(isas));
        if (!ops)
            continue;
        report(ops, "max_bits", ops->max_bits, 32, 128, 2, 2, 0);
        report(ops, "max_bits", ops->max_bits, 16, 256, 2, 2, 0);
        report(ops, "max_bits", ops->max_bits, 27, 256, 3, 2, 0);
        report(ops, "max_u8", ops->max_u8, 32, 64, 2, 2, 0);
        report(ops, "max_i32", ops->max_i32, 32, 128, 2, 2, 0);
        report(ops, "max_f32", ops->max_f32, 112, 64, 3, 2, 1);
        report(ops, "max_f32", ops->max_f32, 56, 64, 2, 1, 0);
        report(ops, "average", NULL, 56, 64, 2, 2, 0);
        report(ops, "average", NULL, 13, 1, 3, 1, 1);
        report(ops, "average", NULL, 7, 512, 7, 1, 0);
    }
    return 0;
}
