/* Every variant against a naive sum in exact doubles, with ==. */
#include "base/bits.h"
#include "kernels/families.h"
#include "kernels/testing_conv.h"

typedef struct {
    uint8_t *x;
    uint32_t *w;
    double *v; /* integers below 2^53 */
    float *scale, *bias;
    int32_t *threshold;
    uint32_t *flip;
} data;

typedef enum { DENSE, SATURATED } filling;

static void make_epilogue(test_random *random, const onebit_conv_shape *s, size_t pixels, data *d) {
    static const int32_t extreme[] = {INT32_MIN, INT32_MAX, INT32_MIN + 1, 0};
    d->scale = test_alloc_input(s->n * sizeof(float)), d->bias = test_alloc_input(s->n * sizeof(float));
    d->threshold = test_alloc_input(s->n * sizeof(int32_t));
    d->flip = test_alloc_input(onebit_words(s->n) * sizeof(uint32_t));
    test_fill(random, d->flip, onebit_words(s->n) * sizeof(uint32_t)); /* with dirty padding */
    for (size_t n = 0; n < s->n; ++n) {
        const int32_t v = (int32_t)d->v[test_below(random, pixels) * s->n + n];
        const uint64_t choice = test_below(random, 6);
        d->threshold[n] = choice < 4 ? (int32_t)((uint32_t)v + (uint32_t)choice - 1) /* v - 1 .. v + 2 */
                                     : extreme[test_below(random, 4)];
        d->scale[n] = test_float(random) * 0x1p-8f;
        d->bias[n] = choice == 0 ? -0.0f : test_float(random);
    }
}

static data make(test_random *random, const onebit_conv_shape *s, size_t images, filling how) {
    const size_t inputs = test_conv_inputs(s, images), outputs = test_conv_outputs(s, images);
    const size_t channels = s->channels / s->groups, words = onebit_words(channels);
    const size_t rows = s->n * s->kernel_h * s->kernel_w;
    data d = {.x = test_alloc_input(inputs), .w = test_alloc_input(rows * words * sizeof *d.w)};
    d.v = test_alloc_input(outputs * sizeof(double));
    double *x = test_alloc_input(inputs * sizeof(double)),
           *magnitude = test_alloc_input(outputs * sizeof(double));
    double *w = test_alloc_input(rows * channels * sizeof(double));
    test_fill(random, d.x, inputs);
    test_fill_bits(random, d.w, rows, channels);
    if (how == SATURATED) { /* all weights of even channels +1: the largest sums that there are */
        memset(d.x, 255, inputs);
        for (size_t i = 0; i < rows * words; ++i)
            if (i / words / s->kernel_h / s->kernel_w % 2 == 0)
                d.w[i] = i % words + 1 == words ? onebit_tail_mask(channels) : UINT32_MAX;
    }
    for (size_t i = 0; i < inputs; ++i)
        x[i] = (double)s->multiplier * d.x[i] + s->offset;
    for (size_t i = 0; i < rows * channels; ++i)
        w[i] = d.w[i / channels * words + i % channels / 32] >> i % channels % 32 & 1 ? 1 : -1;
    test_conv_oracle(s, images, x, w, d.v, magnitude);
    for (size_t i = 0; i < outputs; ++i)
        CHECK(fabs(d.v[i]) <= INT32_MAX, "the test asks for v=%g", d.v[i]);
    make_epilogue(random, s, images * s->out_height * s->out_width, &d);
    free(x), free(w), free(magnitude);
    return d;
}

static void check(const onebit_conv_variant *variant, const onebit_conv_args *args, const void *context,
                  size_t pixel, size_t i, uint32_t got) {
    const data *d = context;
    const size_t n = args->shape->n;
    const double *v = d->v + pixel * n;
    uint32_t want = 0;
    if (args->epilogue->kind == ONEBIT_EPILOGUE_I32) {
        want = (uint32_t)(int32_t)v[i];
    } else if (args->epilogue->kind == ONEBIT_EPILOGUE_F32) {
        const float y = fmaf((float)v[i], d->scale[i], d->bias[i]);
        memcpy(&want, &y, sizeof want);
    } else {
        for (size_t j = 32 * i; j < n && j < 32 * i + 32; ++j)
            want |= (uint32_t)((v[j] >= d->threshold[j]) ^ (d->flip[j / 32] >> j % 32 & 1)) << j % 32;
    }
    CHECK_EQ(got, want, "%s pixel %zu word %zu: %s", variant->name, pixel, i, test_conv_text(args));
}

static void check_all(test_random *random, onebit_conv_shape s, size_t images, int32_t multiplier,
                      int32_t offset, filling how) {
    s.multiplier = multiplier, s.offset = offset;
    data d = make(random, &s, images, how);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        const onebit_conv_variant *variant = onebit_u8_conv_variant(onebit_isa_best(left));
        for (int kind = ONEBIT_EPILOGUE_I32; variant && kind <= ONEBIT_EPILOGUE_BITS; ++kind) {
            const onebit_epilogue epilogue = {kind, d.scale, d.bias, d.threshold, d.flip};
            test_conv_calls(random, variant, &s, images, d.x, d.w, &epilogue, check, &d);
        }
    }
    free(d.x), free(d.w), free(d.v), free(d.scale), free(d.bias), free(d.threshold), free(d.flip);
}

static onebit_conv_shape square(size_t size, size_t channels, size_t n, size_t kernel, size_t stride,
                                size_t pad, size_t groups) {
    const size_t out = test_conv_out(size, pad, pad, kernel, stride, 1);
    return (onebit_conv_shape){size,   size, channels, out, out, n,      kernel, kernel, stride,
                               stride, 1,    1,        pad, pad, groups, 0,      0,      0};
}

int main(void) {
    static const int32_t scales[][2] = {{1, 0},   {2, -255},    {-3, 77}, {0, 5},
                                        {-2, -1}, {1000, -123}, {256, 1}};
    test_random random = test_seed(3003);
    for (size_t i = 0; i < 140; ++i) {
        const int32_t *scale = scales[i % (sizeof scales / sizeof *scales)];
        check_all(&random, test_conv_shape(&random), 1 + test_below(&random, 2), scale[0], scale[1],
                  i % 5 ? DENSE : SATURATED);
    }
    /* Layers of the networks, smaller; sums that overflow 16 bits, in one lane of any width; words that
     * groups share. */
    check_all(&random, square(32, 3, 128, 3, 1, 1, 1), 1, 2, -255, DENSE);
    check_all(&random, square(33, 3, 64, 7, 2, 3, 1), 1, 2, -255, DENSE);
    check_all(&random, square(35, 3, 96, 11, 4, 0, 1), 2, 2, -255, DENSE);
    check_all(&random, square(5, 300, 66, 3, 1, 1, 1), 1, 1, 0, SATURATED);
    check_all(&random, square(4, 4000, 33, 1, 1, 0, 1), 2, 2, -255, SATURATED);
    check_all(&random, square(3, 1030, 48, 3, 1, 1, 1), 1, 200, 0, SATURATED);
    check_all(&random, square(6, 10, 50, 3, 1, 1, 5), 2, 2, -255, DENSE);
    check_all(&random, square(6, 4, 64, 3, 1, 1, 2), 2, 2, -255, DENSE);
    return test_finish();
}
