/* Random builder calls, most of them wrong: none may crash, and whatever finishes must run, give the same on
 * every thread count, and touch nothing outside its buffers. Included by test.c. */
#ifndef ONEBIT_ENGINE_TEST_FUZZ_H
#define ONEBIT_ENGINE_TEST_FUZZ_H

enum { FUZZ_PLANS = 1500, FUZZ_CALLS = 40, FUZZ_MEMORY = 1 << 15, FUZZ_BATCH = 3, FUZZ_PORTS = 4 };

static uint64_t fuzz_size(test_random *random) {
    static const uint64_t usual[] = {1, 2, 33, 64}, odd[] = {0, INT32_MAX, UINT32_MAX, UINT64_MAX, 1 << 20};
    return test_below(random, 24) ? usual[test_below(random, 4)] : odd[test_below(random, 5)];
}

static onebit_status fuzz_gemm(test_random *random, onebit_plan *plan, onebit_value x, const void *zeros,
                               onebit_value *value) {
    onebit_gemm gemm = {.family = (int32_t)test_below(random, 5),
                        .input = x,
                        .n = fuzz_size(random),
                        .k = fuzz_size(random),
                        .weights = zeros,
                        .multiplier = (int32_t)test_u64(random) >> (test_below(random, 2) * 24),
                        .offset = (int32_t)test_below(random, 9) - 4,
                        .epilogue = (int32_t)test_below(random, 4),
                        .scale = zeros,
                        .bias = zeros,
                        .threshold = zeros,
                        .flip = zeros};
    uint64_t row = 4 * (gemm.family == ONEBIT_F32_GEMM ? gemm.k : onebit_words((size_t)gemm.k));
    gemm.weights_bytes = test_below(random, 16) ? gemm.n * row : test_u64(random);
    return onebit_plan_gemm(plan, &gemm, value);
}

/* Sizes that fit the values mostly: an image is one column of `rows` pixels. */
static onebit_window fuzz_window(test_random *random) {
    onebit_window window = {fuzz_size(random), 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0};
    uint64_t *fields = &window.height;
    enum { FIELDS = sizeof window / sizeof *fields };
    for (int changes = (int)test_below(random, 4); changes > 0; --changes)
        fields[1 + test_below(random, FIELDS - 1)] = fuzz_size(random);
    return window;
}

static onebit_status fuzz_conv(test_random *random, onebit_plan *plan, onebit_value x, const void *zeros,
                               onebit_value *value) {
    onebit_conv conv = {.family = (int32_t)test_below(random, 5),
                        .input = x,
                        .window = fuzz_window(random),
                        .n = fuzz_size(random),
                        .groups = test_below(random, 4) ? 1 : fuzz_size(random),
                        .weights = zeros,
                        .padding_value = test_below(random, 4) ? 0 : (int32_t)test_below(random, 5) - 2,
                        .multiplier = 1,
                        .epilogue = (int32_t)test_below(random, 4),
                        .scale = zeros,
                        .bias = zeros,
                        .threshold = zeros,
                        .flip = zeros};
    uint64_t channels = fuzz_size(random) / (conv.groups ? conv.groups : 1);
    uint64_t row = 4 * (conv.family == ONEBIT_F32_CONV ? channels : onebit_words((size_t)channels));
    conv.weights_bytes = conv.n * conv.window.kernel_h * conv.window.kernel_w * row;
    return onebit_plan_conv(plan, &conv, value);
}

static onebit_status fuzz_image_call(test_random *random, onebit_plan *plan, onebit_value x,
                                     onebit_value other, const void *zeros, onebit_value *value) {
    const onebit_window window = fuzz_window(random);
    const onebit_value parts[] = {x, other, x};
    const uint64_t sizes[] = {fuzz_size(random), fuzz_size(random), fuzz_size(random)};
    const uint64_t axes[] = {test_below(random, 3), test_below(random, 3), test_below(random, 3)};
    const onebit_pooling kind = (onebit_pooling)test_below(random, 4);
    switch (test_below(random, 6)) {
    case 0:
        return onebit_plan_pool(plan, kind, x, &window, test_below(random, 4) ? NULL : zeros, value);
    case 1:
        return onebit_plan_channel_mean(plan, x, value);
    case 2:
        return onebit_plan_concat(plan, parts, test_below(random, 4), value);
    case 3:
        return onebit_plan_permute(plan, x, 1 + test_below(random, 3), sizes, axes, value);
    default:
        return fuzz_conv(random, plan, x, zeros, value);
    }
}

/* Every op of the two lists, and numbers beyond them. */
static onebit_status fuzz_elementwise(test_random *random, onebit_plan *plan, onebit_value x,
                                      const void *zeros, onebit_value *value) {
    const float parameters[] = {test_float(random), 0.5f, NAN};
    const onebit_unary unary = (onebit_unary)test_below(random, ONEBIT_UNARY_COUNT + 1);
    const onebit_binary binary = (onebit_binary)test_below(random, ONEBIT_BINARY_COUNT + 1);
    switch (test_below(random, 4)) {
    case 0:
        return onebit_plan_binary(plan, binary, x, (onebit_value)test_below(random, 8), value);
    case 1:
        return onebit_plan_binary_constant(plan, binary, x, zeros, fuzz_size(random),
                                           (int32_t)test_below(random, 2), value);
    default:
        return onebit_plan_unary(plan, unary, x, parameters, test_below(random, 4), value);
    }
}

static onebit_status fuzz_call(test_random *random, onebit_plan *plan, onebit_value known, const void *zeros,
                               onebit_value *value) {
    onebit_value x = (onebit_value)test_below(random, (uint64_t)known + 2);
    uint64_t size = fuzz_size(random), other = fuzz_size(random);
    switch (test_below(random, 25)) {
    case 0:
        return onebit_plan_sign(plan, x, value);
    case 1:
        return onebit_plan_threshold(plan, x, zeros, zeros, size, value);
    case 2:
        return onebit_plan_to_float(plan, x, value);
    case 3:
        return onebit_plan_scale_pixels(plan, x, value);
    case 4:
        return onebit_plan_affine(plan, x, zeros, zeros, size, value);
    case 5:
        return onebit_plan_reshape(plan, x, size, other, value);
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
        return fuzz_elementwise(random, plan, x, zeros, value);
    case 11:
    case 12:
    case 13:
    case 14:
        return fuzz_gemm(random, plan, x, zeros, value);
    default:
        return fuzz_image_call(random, plan, x, (onebit_value)test_below(random, 8), zeros, value);
    }
}

/* Outputs of the first run and of one with more threads must be the same bytes. */
static void fuzz_run(onebit_plan *plan, size_t outputs, const void *ones, uint8_t *results[2], int *helped) {
    const size_t port = (size_t)FUZZ_BATCH * FUZZ_MEMORY * 8;
    const void *inputs[FUZZ_PORTS] = {ones, ones, ones, ones};
    for (int run = 0; run < 2; ++run) {
        void *places[FUZZ_PORTS];
        onebit_engine *engine = NULL;
        for (size_t i = 0; i < outputs; ++i)
            memset(places[i] = results[run] + i * port, 0x5A, 4096);
        onebit_thread_pool *pool = NULL;
        GOOD(onebit_thread_pool_create(run ? 3 : 1, ONEBIT_SHARE_ALWAYS, &pool));
        onebit_status status = onebit_engine_create(plan, pool, &engine);
        if (status == ONEBIT_OK)
            CHECK(onebit_engine_run(engine, FUZZ_BATCH, inputs, places, NULL) == ONEBIT_OK, "%s",
                  onebit_last_error());
        else
            CHECK(run && status == ONEBIT_ERROR_LIMIT, "%s", onebit_last_error());
        uint64_t shares[3] = {0};
        GOOD(onebit_thread_pool_shares(pool, shares));
        *helped += shares[1] + shares[2] > 0;
        onebit_engine_destroy(engine);
        onebit_thread_pool_release(pool);
        if (status != ONEBIT_OK)
            return;
    }
    for (size_t i = 0; i < outputs; ++i)
        CHECK(memcmp(results[0] + i * port, results[1] + i * port, 4096) == 0, "output %zu", i);
}

static void test_fuzz(test_random *random) {
    const size_t port = (size_t)FUZZ_BATCH * FUZZ_MEMORY * 8;
    void *zeros = calloc(1, FUZZ_MEMORY * 4), *ones = malloc(port);
    uint8_t *results[2] = {calloc(FUZZ_PORTS, port), calloc(FUZZ_PORTS, port)};
    if (!zeros || !ones || !results[0] || !results[1])
        abort();
    memset(ones, 1, port);
    int finished = 0, refused = 0, accepted = 0, helped = 0;
    for (int round = 0; round < FUZZ_PLANS; ++round) {
        onebit_plan *plan = NULL;
        onebit_isas isas = onebit_isas_here(); /* one of them, the worst if the draw passes over the others */
        while ((isas & (isas - 1)) && test_below(random, 2))
            isas &= isas - 1;
        const char *isa = onebit_isa_name(onebit_isa_best(isas));
        GOOD(onebit_plan_create(isa, FUZZ_MEMORY, &plan));
        onebit_value known = -1, value;
        for (int i = 0; i < FUZZ_PORTS; ++i)
            if (onebit_plan_input(plan, (onebit_dtype)i, fuzz_size(random), fuzz_size(random), &value) ==
                ONEBIT_OK)
                known = value;
        for (int i = 0; i < FUZZ_CALLS; ++i) {
            if (fuzz_call(random, plan, known, zeros, &value) == ONEBIT_OK)
                ++accepted, known = value;
            else
                ++refused;
        }
        size_t outputs = 0;
        for (int i = 0; i < FUZZ_PORTS; ++i)
            outputs += onebit_plan_output(plan, known - (onebit_value)test_below(random, 4)) == ONEBIT_OK;
        if (onebit_plan_finish(plan) == ONEBIT_OK) {
            ++finished;
            fuzz_run(plan, outputs, ones, results, &helped);
        }
        onebit_plan_release(plan);
    }
    printf("random plans: %d finished of %d, %d calls accepted, %d refused\n", finished, FUZZ_PLANS, accepted,
           refused);
    CHECK(helped > FUZZ_PLANS / 4, "other threads had work in %d plans only", helped);
    CHECK(finished > FUZZ_PLANS / 4 && accepted > FUZZ_PLANS && refused > FUZZ_PLANS, "the calls are no mix");
    free(zeros), free(ones), free(results[0]), free(results[1]);
}

#endif
