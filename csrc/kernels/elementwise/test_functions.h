/* Tests of the functions of onebit_ops.h: included by test.c, which defines ops, rng, special, values and
 * compare. What they should be is written here once more, from their definitions in the Program. */

static float want_unary(onebit_unary op, float x, float p, float q) {
    switch (op) {
    case ONEBIT_ABS:
        return copysignf(x, 1.0f);
    case ONEBIT_RELU:
        return isless(x, 0.0f) ? 0.0f : x;
    case ONEBIT_HARDTANH:
        return isnan(x) ? x : isless(x, p) ? p : isgreater(x, q) ? q : x;
    case ONEBIT_HARDSWISH: {
        const volatile float moved = x + 3.0f, product = x * fmaxf(fminf(moved, 6.0f), 0.0f);
        return isnan(x) ? x : product / 6.0f;
    }
    }
    CHECK(0, "no test for unary op %d", (int)op);
    return 0;
}

/* Sums and products of floats are exact in double or close enough to round once more without harm, and so are
 * quotients: 53 bits are more than 2 * 24 + 2 (Figueroa 1995). Below the smallest normal float the quotient
 * of doubles is no longer enough; there the compiler's own scalar division stands. */
static float want_binary(onebit_binary op, float a, float b) {
    switch (op) {
    case ONEBIT_ADD:
        return (float)((double)a + (double)b);
    case ONEBIT_SUB:
        return (float)((double)a - (double)b);
    case ONEBIT_MUL:
        return (float)((double)a * (double)b);
    case ONEBIT_DIV: {
        const volatile float quotient = a / b;
        return fabsf(quotient) < FLT_MIN ? quotient : (float)((double)a / (double)b);
    }
    case ONEBIT_PRELU:
        return isgreaterequal(a, 0.0f) ? a : (float)((double)b * (double)a);
    }
    CHECK(0, "no test for binary op %d", (int)op);
    return 0;
}

static void check_unary(size_t count) {
    static const float parameters[][2] = {{-1, 1},        {0.25f, 6}, {-INFINITY, 1},
                                          {-1, INFINITY}, {0, 0},     {-FLT_MAX, FLT_MAX}};
    float *x = values(count), *want = values(count), *out = test_alloc(count * sizeof(float));
    for (int op = 0; op < ONEBIT_UNARY_COUNT; ++op)
        for (size_t j = 0; j < sizeof parameters / sizeof *parameters; ++j) {
            for (size_t i = 0; i < count; ++i)
                want[i] = want_unary((onebit_unary)op, x[i], parameters[j][0], parameters[j][1]);
            ops->unary[op](count, x, parameters[j], out);
            compare("unary", count, out, want);
            memcpy(out, x, count * sizeof(float));
            ops->unary[op](count, out, parameters[j], out);
            compare("unary in place", count, out, want);
            for (size_t i = 0; op == ONEBIT_ABS && i < count; ++i)
                CHECK(!signbit(out[i]), "%s: |%g| has its sign", ops->name, x[i]);
        }
    free(x), free(want), test_free(out);
}

static void check_binary(size_t rows, size_t channels) {
    const size_t count = rows * channels,
                 periods[][2] = {
                     {count, count}, {count, channels}, {channels, count}, {count, 1}, {1, count}};
    float *out = test_alloc(count * sizeof(float)), *want = test_alloc_input(count * sizeof(float));
    for (size_t i = 0; i < sizeof periods / sizeof *periods; ++i)
        for (int op = 0; op < ONEBIT_BINARY_COUNT; ++op) {
            const onebit_operand a = {values(periods[i][0]), periods[i][0]};
            const onebit_operand b = {values(periods[i][1]), periods[i][1]};
            for (size_t j = 0; j < count; ++j)
                want[j] = want_binary((onebit_binary)op, a.data[j % a.period], b.data[j % b.period]);
            ops->binary[op](count, a, b, out);
            compare("binary", count, out, want);
            const int left = a.period == count; /* which operand the output replaces */
            memcpy(out, left ? a.data : b.data, count * sizeof(float));
            ops->binary[op](count, left ? (onebit_operand){out, count} : a,
                            left ? b : (onebit_operand){out, count}, out);
            compare("binary in place", count, out, want);
            free((void *)a.data), free((void *)b.data);
        }
    free(want), test_free(out);
}

static void check_binary_rows(size_t rows, size_t channels) {
    const size_t widths[][2] = {{channels, 1}, {1, channels}, {channels, channels}}, count = rows * channels;
    float *out = test_alloc(count * sizeof(float)), *want = test_alloc_input(count * sizeof(float));
    for (size_t i = 0; i < 3; ++i)
        for (int op = 0; op < ONEBIT_BINARY_COUNT; ++op) {
            const size_t a_channels = widths[i][0], b_channels = widths[i][1];
            float *a = values(rows * a_channels), *b = values(rows * b_channels);
            for (size_t j = 0; j < count; ++j)
                want[j] = want_binary((onebit_binary)op,
                                      a[j / channels * a_channels + (a_channels > 1 ? j % channels : 0)],
                                      b[j / channels * b_channels + (b_channels > 1 ? j % channels : 0)]);
            ops->binary_rows[op](rows, channels, a, a_channels, b, b_channels, out);
            compare("binary_rows", count, out, want);
            const int left = a_channels == channels; /* which operand the output replaces */
            memcpy(out, left ? a : b, count * sizeof(float));
            ops->binary_rows[op](rows, channels, left ? out : a, a_channels, left ? b : out, b_channels, out);
            compare("binary_rows in place", count, out, want);
            free(a), free(b);
        }
    free(want), test_free(out);
}

/* Every special value against every other. */
static void check_special(void) {
    float a[SPECIAL * SPECIAL], b[SPECIAL * SPECIAL], want[SPECIAL * SPECIAL], *out = test_alloc(sizeof a);
    enum { COUNT = SPECIAL * SPECIAL };
    for (size_t i = 0; i < COUNT; ++i)
        a[i] = special[i / SPECIAL], b[i] = special[i % SPECIAL];
    for (int op = 0; op < ONEBIT_BINARY_COUNT; ++op) {
        for (size_t i = 0; i < COUNT; ++i)
            want[i] = want_binary((onebit_binary)op, a[i], b[i]);
        ops->binary[op](COUNT, (onebit_operand){a, COUNT}, (onebit_operand){b, COUNT}, out);
        compare("binary of special values", COUNT, out, want);
    }
    test_free(out);
}

static void check_functions(size_t rows, size_t channels) {
    check_unary(rows * channels);
    check_binary(rows, channels);
    check_binary_rows(rows, channels);
    check_special();
}
