/* Bits that cross as words, images packed from planes, and engines that share threads. Included by test.c. */
#ifndef ONEBIT_ENGINE_TEST_PACKED_H
#define ONEBIT_ENGINE_TEST_PACKED_H

static void test_packed_misuse(void) {
    onebit_value value, reshaped;
    onebit_plan *plan = new_plan();
    onebit_value bytes = new_input(plan, ONEBIT_BITS, 1, 33), floats = new_input(plan, ONEBIT_F32, 1, 33);
    BAD(onebit_plan_packed_input(NULL, 1, 1, &value), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_packed_input(plan, 1, 0, &value), ONEBIT_ERROR_ARGUMENT, "0 channels");
    BAD(onebit_plan_packed_output(NULL, 0), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_plan_packed_output(plan, 9), ONEBIT_ERROR_ARGUMENT, "value 9");
    BAD(onebit_plan_packed_output(plan, floats), ONEBIT_ERROR_ARGUMENT, "bits, not f32");
    BAD(onebit_plan_packed_output(plan, bytes), ONEBIT_ERROR_ARGUMENT, "as int8");
    GOOD(onebit_plan_sign(plan, floats, &value));
    GOOD(onebit_plan_output(plan, value));
    BAD(onebit_plan_packed_output(plan, value), ONEBIT_ERROR_ARGUMENT, "as int8");
    GOOD(onebit_plan_reshape(plan, bytes, 1, 33, &reshaped));
    GOOD(onebit_plan_packed_output(plan, reshaped));
    GOOD(onebit_plan_finish(plan));
    BAD(onebit_plan_packed_output(plan, value), ONEBIT_ERROR_ORDER, "finished");
    onebit_plan_release(plan);
}

enum { WIDE = 65, ROWS_IN = 3, SAMPLES = 200 };

/* in: packed bits; outputs: in itself, its permutation packed, the same again, the same as int8. */
static onebit_plan *transposing_plan(const char *isa) {
    static const uint64_t sizes[] = {ROWS_IN, WIDE}, axes[] = {1, 0};
    onebit_plan *plan = NULL;
    onebit_value in = -1, turned = -1, renamed = -1;
    GOOD(onebit_plan_create(isa, PLENTY, &plan));
    GOOD(onebit_plan_packed_input(plan, ROWS_IN, WIDE, &in));
    GOOD(onebit_plan_permute(plan, in, 2, sizes, axes, &turned));
    GOOD(onebit_plan_reshape(plan, turned, WIDE, ROWS_IN, &renamed));
    GOOD(onebit_plan_output(plan, in));
    GOOD(onebit_plan_packed_output(plan, turned));
    GOOD(onebit_plan_packed_output(plan, turned));
    GOOD(onebit_plan_output(plan, renamed));
    GOOD(onebit_plan_finish(plan));
    return plan;
}

typedef struct {
    uint32_t in[SAMPLES][ROWS_IN][3], same[SAMPLES][ROWS_IN][3];
    uint32_t turned[2][SAMPLES][WIDE];
    int8_t signs[SAMPLES][WIDE][ROWS_IN];
} packed_case;

static void check_packed(const packed_case *c) {
    CHECK(memcmp(c->in, c->same, sizeof c->in) == 0, "a packed input that is an output");
    CHECK(memcmp(c->turned[0], c->turned[1], sizeof c->turned[0]) == 0, "an output twice");
    for (size_t s = 0; s < SAMPLES; ++s)
        for (size_t w = 0; w < WIDE; ++w) {
            CHECK_EQ(c->turned[0][s][w] >> ROWS_IN, 0, "padding of sample %zu row %zu", s, w);
            for (size_t r = 0; r < ROWS_IN; ++r) {
                CHECK_EQ(sign_at(&c->turned[0][s][w], r), sign_at(c->in[s][r], w), "sample %zu", s);
                CHECK_EQ(c->signs[s][w][r], sign_at(c->in[s][r], w), "sample %zu as int8", s);
            }
        }
}

static void test_packed_networks(test_random *random) {
    packed_case *c = calloc(1, sizeof *c);
    for (onebit_isas left = onebit_isas_here(); left; left &= left - 1) {
        onebit_plan *plan = transposing_plan(onebit_isa_name(onebit_isa_best(left)));
        onebit_thread_pool *pool;
        onebit_engine *first = new_engine(plan, 3, ONEBIT_SHARE_ALWAYS, &pool), *second = NULL, *clone = NULL;
        onebit_memory memory = {0};
        GOOD(onebit_engine_create(plan, pool, &second));
        GOOD(onebit_engine_clone(second, &clone));
        onebit_plan_release(plan);
        const void *inputs[] = {c->in};
        void *outputs[] = {c->same, c->turned[0], c->turned[1], c->signs};
        onebit_engine *const engines[] = {first, second, clone};
        for (int i = 0; i < 3; ++i) {
            memset(c, 0, sizeof *c);
            test_fill_bits(random, &c->in[0][0][0], SAMPLES * ROWS_IN, WIDE);
            GOOD(onebit_engine_run(engines[i], SAMPLES, inputs, outputs, NULL));
            check_packed(c);
            GOOD(onebit_engine_memory(engines[i], &memory));
            CHECK(memory.arena == 0, "an arena of %llu bytes", (unsigned long long)memory.arena);
            onebit_engine_destroy(i == 1 ? NULL : engines[i]); /* the pool outlives its first engine */
        }
        check_all_worked(pool, 3);
        onebit_thread_pool_release(pool);
        c->in[SAMPLES - 1][1][2] |= 2;
        BAD(onebit_engine_run(second, SAMPLES, inputs, outputs, NULL), ONEBIT_ERROR_ARGUMENT, "padding");
        onebit_engine_destroy(second);
    }
    free(c);
}

static void test_planes(void) {
    enum { C = 33, PIXELS = 5 };
    float x[2][C][PIXELS];
    uint32_t out[2][PIXELS][2];
    for (size_t i = 0; i < 2 * C * PIXELS; ++i)
        (&x[0][0][0])[i] = i % 3 ? -1e-30f : -0.0f;
    GOOD(onebit_pack_sign_planes(NULL, 2, C, PIXELS, &x[0][0][0], &out[0][0][0]));
    for (size_t i = 0; i < 2 * C * PIXELS; ++i)
        CHECK_EQ(sign_at(out[i / (C * PIXELS)][i % PIXELS], i / PIXELS % C), i % 3 ? -1 : 1, "element %zu",
                 i);
    GOOD(onebit_pack_sign_planes(NULL, 2, C, 0, NULL, NULL));
    BAD(onebit_pack_sign_planes(NULL, 2, C, PIXELS, NULL, &out[0][0][0]), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_pack_sign_planes(NULL, 2, C, UINT64_MAX, &x[0][0][0], &out[0][0][0]), ONEBIT_ERROR_LIMIT,
        "size");
    BAD(onebit_pack_sign_planes("sse9", 2, C, PIXELS, &x[0][0][0], &out[0][0][0]), ONEBIT_ERROR_ISA, "sse9");
    x[1][32][4] = NAN;
    BAD(onebit_pack_sign_planes(NULL, 2, C, PIXELS, &x[0][0][0], &out[0][0][0]), ONEBIT_ERROR_INPUT, "NaN");
}

static void test_packed(test_random *random) {
    test_packed_misuse();
    test_packed_networks(random);
    test_planes();
}

#endif
