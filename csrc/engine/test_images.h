/* Convolutions, pools and layout ops in the engine: misuse of the builder, geometry that overflows, and one
 * network against plain loops. Included by test.c. */
#ifndef ONEBIT_ENGINE_TEST_IMAGES_H
#define ONEBIT_ENGINE_TEST_IMAGES_H

static const onebit_window plain_window = {.height = 4,
                                           .width = 5,
                                           .kernel_h = 3,
                                           .kernel_w = 2,
                                           .stride_h = 1,
                                           .stride_w = 1,
                                           .dilation_h = 1,
                                           .dilation_w = 1,
                                           .pad_top = 1,
                                           .pad_bottom = 1};

/* What no window may be, whoever takes it: a change of a good one, and words of the message. */
typedef struct {
    size_t field; /* offset in onebit_window */
    uint64_t value;
    const char *words;
} window_defect;

#define FIELD(name) offsetof(onebit_window, name)
static const window_defect window_defects[] = {
    {FIELD(height), 5, "5 x 5 pixels in 20 rows"},
    {FIELD(height), 0, "height 0"},
    {FIELD(height), UINT64_MAX, "height 18446744073709551615"},
    {FIELD(width), (uint64_t)1 << 32, "width 4294967296"},
    {FIELD(kernel_h), 0, "kernel 0"},
    {FIELD(kernel_h), 7, "kernel of 7"},
    {FIELD(kernel_w), UINT64_MAX, "kernel 18446744073709551615"},
    {FIELD(kernel_w), INT32_MAX, "kernel of 2147483647"},
    {FIELD(stride_h), 0, "stride 0"},
    {FIELD(dilation_h), 0, "dilation 0"},
    {FIELD(dilation_h), 3, "dilation 3"},
    {FIELD(dilation_w), UINT64_MAX, "dilation 18446744073709551615"},
    {FIELD(pad_top), UINT64_MAX, "padding 18446744073709551615"},
    {FIELD(pad_left), (uint64_t)INT32_MAX + 1, "padding 2147483648"},
    {FIELD(pad_bottom), INT32_MAX, "at most that"},
};
#undef FIELD

static onebit_window changed(const window_defect *defect) {
    onebit_window window = plain_window;
    memcpy((char *)&window + defect->field, &defect->value, sizeof defect->value);
    return window;
}

static void test_conv_misuse(void) {
    enum { WINDOW_DEFECTS = sizeof window_defects / sizeof *window_defects };
    onebit_value value;
    onebit_plan *plan = new_plan();
    uint32_t weights[64] = {0}, padded[1] = {8};
    float floats[256] = {0};
    int32_t thresholds[3] = {0};
    onebit_value bits = new_input(plan, ONEBIT_BITS, 20, 4), real = new_input(plan, ONEBIT_F32, 20, 4);
    onebit_value bytes = new_input(plan, ONEBIT_U8, 20, 4);
    const onebit_conv good = {.family = ONEBIT_BINARY_CONV,
                              .input = bits,
                              .window = plain_window,
                              .n = 3,
                              .groups = 1,
                              .weights = weights,
                              .weights_bytes = 3 * 6 * 4,
                              .multiplier = 1,
                              .epilogue = ONEBIT_EPILOGUE_I32};
#define REFUSED(change, words)                                                                               \
    do {                                                                                                     \
        onebit_conv conv = good;                                                                             \
        change;                                                                                              \
        BAD(onebit_plan_conv(plan, &conv, &value), ONEBIT_ERROR_ARGUMENT, words);                            \
    } while (0)
    for (size_t i = 0; i < WINDOW_DEFECTS; ++i)
        REFUSED(conv.window = changed(&window_defects[i]), window_defects[i].words);
    REFUSED(conv.family = 4, "family 4");
    REFUSED(conv.family = -1, "family -1");
    REFUSED(conv.input = real, "bits, not f32");
    REFUSED(conv.input = 77, "value 77");
    REFUSED(conv.n = 0, "n = 0");
    REFUSED(conv.n = UINT64_MAX, "n = 18446744073709551615");
    REFUSED(conv.groups = 0, "0 groups");
    REFUSED(conv.groups = 2, "2 groups");
    REFUSED(conv.groups = 3, "3 groups");
    REFUSED(conv.weights = NULL, "NULL");
    REFUSED(conv.weights_bytes = 71, "71 bytes");
    REFUSED(conv.padding_value = 2, "padding value is 2");
    REFUSED(conv.padding_value = -2, "padding value is -2");
    REFUSED(conv.family = ONEBIT_U8_CONV; conv.input = bytes; conv.padding_value = 1, "padding value is 1");
    REFUSED(conv.family = ONEBIT_U8_CONV; conv.input = bytes; conv.multiplier = INT32_MIN, "accumulator");
    REFUSED(conv.family = ONEBIT_U8_CONV; conv.input = bytes; conv.offset = INT32_MAX / 24, "accumulator");
    REFUSED(conv.family = ONEBIT_F32_CONV; conv.input = real, "72 bytes");
    REFUSED(conv.family = ONEBIT_F32_BINARY_CONV; conv.input = real, "epilogue 0");
    REFUSED(conv.epilogue = 3, "epilogue 3");
    REFUSED(conv.epilogue = ONEBIT_EPILOGUE_F32; conv.scale = floats, "NULL");
    REFUSED(conv.epilogue = ONEBIT_EPILOGUE_BITS; conv.threshold = thresholds, "NULL");
    REFUSED(conv.epilogue = ONEBIT_EPILOGUE_BITS; conv.threshold = thresholds;
            conv.flip = padded, "padding bit");
    weights[17] = 16;
    REFUSED((void)conv, "row 17 has a padding bit");
#undef REFUSED
    BAD(onebit_plan_conv(NULL, &good, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_conv(plan, NULL, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_conv(plan, &good, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    CHECK_EQ(onebit_plan_ops(plan), 0, "a failed call adds no op");
    weights[17] = 0;
    GOOD(onebit_plan_conv(plan, &good, &value));
    onebit_plan_release(plan);
}

static void test_pool_misuse(void) {
    enum { WINDOW_DEFECTS = sizeof window_defects / sizeof *window_defects };
    onebit_value value;
    onebit_plan *plan = new_plan();
    const uint32_t flip[1] = {5}, padded[1] = {16};
    onebit_value bits = new_input(plan, ONEBIT_BITS, 20, 4), real = new_input(plan, ONEBIT_F32, 20, 4);
    onebit_value chars = new_input(plan, ONEBIT_I8, 20, 4);
    onebit_window window = plain_window;
#define REFUSED(kind, x, w, flips, words)                                                                    \
    BAD(onebit_plan_pool(plan, (onebit_pooling)(kind), x, w, flips, &value), ONEBIT_ERROR_ARGUMENT, words)
    for (size_t i = 0; i < WINDOW_DEFECTS; ++i) {
        window = changed(&window_defects[i]);
        REFUSED(ONEBIT_POOL_MAX, real, &window, NULL, window_defects[i].words);
    }
    window = plain_window;
    REFUSED(3, real, &window, NULL, "pooling 3");
    REFUSED(ONEBIT_POOL_MAX, chars, &window, NULL, "not i8");
    REFUSED(ONEBIT_POOL_MEAN, bits, &window, NULL, "f32, not bits");
    REFUSED(ONEBIT_POOL_MAX, real, NULL, NULL, "NULL");
    REFUSED(ONEBIT_POOL_MAX, real, &window, flip, "flips are for bits");
    REFUSED(ONEBIT_POOL_MAX, bits, &window, padded, "padding bit");
    window.pad_top = 3; /* three taps above an image: none inside */
    REFUSED(ONEBIT_POOL_MAX, real, &window, NULL, "no tap inside the height");
    window = plain_window, window.pad_right = 2;
    REFUSED(ONEBIT_POOL_MAX, real, &window, NULL, "no tap inside the width");
    window = plain_window, window.dilation_w = 6, window.pad_left = window.pad_right = 3;
    REFUSED(ONEBIT_POOL_MAX, real, &window, NULL, "no tap inside the width");
#undef REFUSED
    BAD(onebit_plan_pool(NULL, ONEBIT_POOL_MAX, real, &window, NULL, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_pool(plan, ONEBIT_POOL_MAX, real, &plain_window, NULL, NULL), ONEBIT_ERROR_ARGUMENT,
        "NULL");
    CHECK_EQ(onebit_plan_ops(plan), 0, "a failed call adds no op");
    GOOD(onebit_plan_pool(plan, ONEBIT_POOL_MAX, bits, &plain_window, flip, &value));
    /* Steps that are never made may be of any size. */
    window = plain_window, window.kernel_w = 1, window.dilation_w = window.stride_h = UINT64_MAX;
    window.kernel_h = 4, window.pad_top = window.pad_bottom = 0;
    GOOD(onebit_plan_pool(plan, ONEBIT_POOL_PADDED, real, &window, NULL, &value));
    onebit_plan_release(plan);
}

/* Windows that fit an int32 along each axis but no size together: the kernels' strips would wrap. */
static void test_image_limits(void) {
    onebit_value value, x;
    onebit_plan *plan = new_plan();
    uint32_t weights[4] = {0};
    onebit_conv conv = {.family = ONEBIT_BINARY_CONV,
                        .n = 1,
                        .groups = 1,
                        .weights = weights,
                        .weights_bytes = 16,
                        .window = {1, 1, 2, 2, 1, 1, 1u << 30, 1u << 30, 1u << 30, 1, 1u << 30, 1}};
    conv.input = x = new_input(plan, ONEBIT_BITS, 1, 3);
    BAD(onebit_plan_conv(plan, &conv, &value), ONEBIT_ERROR_LIMIT, "too many");
    conv.window = (onebit_window){1, 1, 1, 1, 1, 1, 1, 1, 1u << 30, 1, 1u << 30, 1}; /* output: 2^62 pixels */
    conv.weights_bytes = 4;
    BAD(onebit_plan_conv(plan, &conv, &value), ONEBIT_ERROR_LIMIT, "too many");
    conv.window.pad_left = conv.window.pad_right = 0; /* 2^30 pixels of 4 bytes */
    BAD(onebit_plan_conv(plan, &conv, &value), ONEBIT_ERROR_LIMIT, "max_memory");
    CHECK_EQ(onebit_plan_ops(plan), 0, "a failed call adds no op");
    CHECK_EQ(x, conv.input, "the same value");
    onebit_plan_release(plan);
}

static void test_layout_misuse(void) {
    onebit_value value;
    onebit_plan *plan = new_plan();
    onebit_value a = new_input(plan, ONEBIT_F32, 6, 4), b = new_input(plan, ONEBIT_F32, 6, 1);
    onebit_value c = new_input(plan, ONEBIT_F32, 4, 6), bits = new_input(plan, ONEBIT_BITS, 6, 4);
    const onebit_value parts[9] = {a, b, a, a, a, a, a, a, a}, other_rows[] = {a, c};
    const onebit_value other_type[] = {a, bits}, missing[] = {a, 99};
    const uint64_t sizes[] = {2, 3, 4}, wrong[] = {2, 3, 5}, huge[] = {UINT64_MAX, 2, 12}, flat[] = {2, 12};
    const uint64_t axes[] = {2, 0, 1}, twice[] = {0, 0, 1}, beyond[] = {0, 1, 3}, order[] = {0, 1, 2};
    BAD(onebit_plan_concat(plan, NULL, 2, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_concat(plan, parts, 0, &value), ONEBIT_ERROR_ARGUMENT, "of 0 values");
    BAD(onebit_plan_concat(plan, parts, 9, &value), ONEBIT_ERROR_ARGUMENT, "of 9 values");
    BAD(onebit_plan_concat(plan, parts, UINT64_MAX, &value), ONEBIT_ERROR_ARGUMENT, "values");
    BAD(onebit_plan_concat(plan, other_rows, 2, &value), ONEBIT_ERROR_ARGUMENT, "part 1 is 4 rows");
    BAD(onebit_plan_concat(plan, other_type, 2, &value), ONEBIT_ERROR_ARGUMENT, "6 rows of bits");
    BAD(onebit_plan_concat(plan, missing, 2, &value), ONEBIT_ERROR_ARGUMENT, "value 99");
    BAD(onebit_plan_permute(plan, a, 3, NULL, axes, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_permute(plan, a, 3, sizes, NULL, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_permute(plan, a, 0, sizes, axes, &value), ONEBIT_ERROR_ARGUMENT, "each of the 0");
    BAD(onebit_plan_permute(plan, a, 9, sizes, axes, &value), ONEBIT_ERROR_ARGUMENT, "each of the 9");
    BAD(onebit_plan_permute(plan, a, 3, wrong, axes, &value), ONEBIT_ERROR_ARGUMENT, "6 x 4 elements");
    BAD(onebit_plan_permute(plan, a, 3, huge, axes, &value), ONEBIT_ERROR_ARGUMENT, "6 x 4 elements");
    BAD(onebit_plan_permute(plan, a, 3, sizes, twice, &value), ONEBIT_ERROR_ARGUMENT, "once");
    BAD(onebit_plan_permute(plan, a, 3, sizes, beyond, &value), ONEBIT_ERROR_ARGUMENT, "once");
    BAD(onebit_plan_permute(plan, bits, 2, flat, order, &value), ONEBIT_ERROR_ARGUMENT, "bits");
    BAD(onebit_plan_binary(plan, ONEBIT_MUL, b, c, &value), ONEBIT_ERROR_ARGUMENT, "single channel");
    BAD(onebit_plan_unary(plan, ONEBIT_ABS, bits, NULL, 0, &value), ONEBIT_ERROR_ARGUMENT, "f32, not bits");
    BAD(onebit_plan_channel_mean(plan, bits, &value), ONEBIT_ERROR_ARGUMENT, "f32, not bits");
    CHECK_EQ(onebit_plan_ops(plan), 0, "a failed call adds no op");
    GOOD(onebit_plan_permute(plan, a, 3, sizes, order, &value));
    CHECK_EQ(onebit_plan_ops(plan), 0, "axes in their order are another name");
    GOOD(onebit_plan_binary(plan, ONEBIT_MUL, b, a, &value));
    GOOD(onebit_plan_concat(plan, parts, 8, &value));
    GOOD(onebit_plan_permute(plan, bits, 3, sizes, axes, &value));
    onebit_plan_release(plan);
}

/* ---- bits -> 3x3 convolution -> bits -> 2x2 pool with flips, against plain loops ---- */

enum { SIDE = 5, IN = 33, OUT = 65, HALF = 3, IMAGES = 7 };

typedef struct {
    uint32_t w[OUT * 9 * 2], flip[3];
    int32_t threshold[OUT];
    int8_t x[IMAGES][SIDE][SIDE][IN], y[IMAGES][HALF][HALF][OUT];
} image_network;

static int conv_at(const image_network *net, size_t image, int y, int x, size_t n) {
    int sum = 0;
    for (int i = 0; i < 9; ++i) {
        const int from_y = y + i / 3 - 1, from_x = x + i % 3 - 1;
        for (size_t c = 0; c < IN; ++c) {
            const bool inside = from_y >= 0 && from_x >= 0 && from_y < SIDE && from_x < SIDE;
            sum += (inside ? net->x[image][from_y][from_x][c] : -1) *
                   sign_at(net->w + 2 * (9 * n + (size_t)i), c);
        }
    }
    return sum;
}

static void make_image_network(test_random *random, image_network *net) {
    test_fill_bits(random, net->w, OUT * 9, IN);
    test_fill_bits(random, net->flip, 1, OUT);
    for (size_t n = 0; n < OUT; ++n)
        net->threshold[n] = (int32_t)test_below(random, 41) - 20;
    for (size_t i = 0; i < sizeof net->x; ++i)
        (&net->x[0][0][0][0])[i] = test_below(random, 2) ? 1 : -1;
    for (size_t i = 0; i < sizeof net->y; ++i) {
        const size_t n = i % OUT, pixel = i / OUT, image = pixel / (HALF * HALF);
        const int top = (int)(pixel / HALF % HALF) * 2, left = (int)(pixel % HALF) * 2;
        bool any = false;
        for (int tap = 0; tap < 4; ++tap)
            if (top + tap / 2 < SIDE && left + tap % 2 < SIDE)
                any |= conv_at(net, image, top + tap / 2, left + tap % 2, n) >= net->threshold[n];
        (&net->y[0][0][0][0])[i] = (int8_t)(any ? -sign_at(net->flip, n) : sign_at(net->flip, n));
    }
}

static onebit_plan *plan_image_network(const image_network *net, const char *isa) {
    static const uint32_t no_flip[3] = {0};
    onebit_plan *plan = NULL;
    onebit_value hidden, y;
    GOOD(onebit_plan_create(isa, PLENTY, &plan));
    const onebit_conv conv = {.family = ONEBIT_BINARY_CONV,
                              .input = new_input(plan, ONEBIT_BITS, SIDE * SIDE, IN),
                              .window = {SIDE, SIDE, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
                              .n = OUT,
                              .groups = 1,
                              .weights = net->w,
                              .weights_bytes = sizeof net->w,
                              .padding_value = -1,
                              .epilogue = ONEBIT_EPILOGUE_BITS,
                              .threshold = net->threshold,
                              .flip = no_flip};
    const onebit_window halves = {SIDE, SIDE, 2, 2, 2, 2, 1, 1, 0, 1, 0, 1};
    GOOD(onebit_plan_conv(plan, &conv, &hidden));
    GOOD(onebit_plan_pool(plan, ONEBIT_POOL_MAX, hidden, &halves, net->flip, &y));
    GOOD(onebit_plan_output(plan, y));
    GOOD(onebit_plan_finish(plan));
    return plan;
}

static void test_image_network(test_random *random) {
    image_network *net = malloc(sizeof *net);
    int8_t *y = test_alloc(sizeof net->y);
    if (!net)
        abort();
    make_image_network(random, net);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1)
        for (unsigned threads = 1; threads <= 5; ++threads) {
            onebit_plan *plan = plan_image_network(net, onebit_isa_name(onebit_isa_best(left)));
            onebit_thread_pool *pool;
            onebit_op_info info;
            GOOD(onebit_plan_op(plan, 0, &info));
            CHECK_EQ(info.macs, SIDE * SIDE * 9 * IN * OUT, "products");
            onebit_engine *engine = new_engine(plan, threads, ONEBIT_SHARE_ALWAYS, &pool);
            onebit_plan_release(plan);
            memset(y, 0, sizeof net->y);
            const void *inputs[] = {net->x};
            void *outputs[] = {y};
            GOOD(onebit_engine_run(engine, IMAGES, inputs, outputs, NULL));
            CHECK(memcmp(y, net->y, sizeof net->y) == 0, "%s, %u threads", info.variant, threads);
            CHECK(test_guards(y), "%s, %u threads: wrote outside", info.variant, threads);
            check_all_worked(pool, threads);
            onebit_engine_destroy(engine);
            onebit_thread_pool_release(pool);
        }
    test_free(y);
    free(net);
}

static void test_images(test_random *random) {
    test_conv_misuse();
    test_pool_misuse();
    test_image_limits();
    test_layout_misuse();
    test_image_network(random);
}

#endif
