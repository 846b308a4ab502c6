/* Thread pools, who works in them, and the floating-point environment that they and the caller compute in.
 * Included by test.c. */
#ifndef ONEBIT_ENGINE_TEST_THREADS_H
#define ONEBIT_ENGINE_TEST_THREADS_H

#include <fenv.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static void check_all_worked(const onebit_thread_pool *pool, unsigned threads) {
    uint64_t shares[ONEBIT_MAX_THREADS] = {0};
    GOOD(onebit_thread_pool_shares(pool, shares));
    for (unsigned i = 0; threads > 1 && i < threads; ++i)
        CHECK(shares[i] > 0, "thread %u of %u did nothing", i, threads);
}

/* ---- the threads themselves ---- */

/* CHECK counts without locks: threads note what they see, and the main thread checks it. */
static atomic_uint shares_done[ONEBIT_MAX_THREADS], wrong_shares;

static bool count_share(void *context, unsigned index, unsigned count) {
    if (index >= count || count != *(unsigned *)context)
        atomic_fetch_add(&wrong_shares, 1);
    else
        atomic_fetch_add(&shares_done[index], 1);
    return index != 1;
}

static void test_shares(bool own) {
    enum { RUNS = 500 };
    for (unsigned threads = 1; threads <= 5; ++threads) {
        uint64_t done[5] = {0}, all = 0;
        memset(shares_done, 0, sizeof shares_done);
        onebit_threads *pool = onebit_threads_create(threads, own);
        CHECK(pool != NULL, "%u threads", threads);
        for (int run = 0; pool && run < RUNS; ++run)
            onebit_threads_run(pool, count_share, &threads);
        for (unsigned share = 0; share < ONEBIT_MAX_THREADS; ++share)
            CHECK_EQ(atomic_load(&shares_done[share]), share < threads ? RUNS : 0, "share %u", share);
        onebit_threads_shares(pool, done);
        for (unsigned i = 0; i < threads; ++i) {
            all += done[i];
            if (own && threads > 1)
                CHECK_EQ(done[i], i == 1 ? 0 : RUNS, "thread %u: share 1 has nothing to do", i);
        }
        CHECK_EQ(all, threads > 1 ? (threads - 1) * RUNS : 0, "shares of %u threads", threads);
        onebit_threads_destroy(pool);
    }
    CHECK_EQ(atomic_load(&wrong_shares), 0, "each share knows its place");
}

static void test_pool_calls(void) {
    onebit_thread_pool *pool = (onebit_thread_pool *)&pool;
    uint64_t shares[1];
    CHECK(onebit_threads_create(0, false) == NULL, "no threads");
    CHECK(onebit_threads_create(1 << 16, false) == NULL, "too many");
    onebit_threads_destroy(NULL);
    BAD(onebit_thread_pool_create(1, ONEBIT_SHARE_LARGE, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    BAD(onebit_thread_pool_create(0, ONEBIT_SHARE_LARGE, &pool), ONEBIT_ERROR_ARGUMENT, "threads is 0");
    CHECK(pool == NULL, "no pool");
    BAD(onebit_thread_pool_create(257, ONEBIT_SHARE_LARGE, &pool), ONEBIT_ERROR_ARGUMENT, "threads is 257");
    BAD(onebit_thread_pool_create(1, (onebit_sharing)2, &pool), ONEBIT_ERROR_ARGUMENT, "sharing 2");
    BAD(onebit_thread_pool_create(1, (onebit_sharing)-1, &pool), ONEBIT_ERROR_ARGUMENT, "sharing -1");
    BAD(onebit_thread_pool_shares(NULL, shares), ONEBIT_ERROR_ARGUMENT, "NULL");
    GOOD(onebit_thread_pool_create(ONEBIT_MAX_THREADS, ONEBIT_SHARE_LARGE, &pool));
    BAD(onebit_thread_pool_shares(pool, NULL), ONEBIT_ERROR_ARGUMENT, "NULL");
    onebit_thread_pool_release(pool);
    onebit_thread_pool_release(NULL);
}

/* ---- the floating-point environment ---- */

/* What a caller may have set: a rounding mode, and on x86 the flushing of subnormals, or a trap at whatever
 * is inexact, subnormal or invalid. */
static void set_environment(int which) {
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    fesetround(modes[which % 4]);
#if defined(__x86_64__)
    if (which == 8)
        _mm_setcsr(_mm_getcsr() & ~0x1FBFu); /* no flag, no mask */
    else if (which >= 4)
        _mm_setcsr(_mm_getcsr() | 0x8040); /* FTZ, DAZ */
#endif
}
enum { ENVIRONMENTS = 9 };

enum { FLOATS = 1024, FLOAT_ROWS = 64 };

/* (x / 3) * 1e-38 - 1e-40: every result rounds; subnormals arise in the middle and in the other output. */
static onebit_plan *plan_floats(void) {
    onebit_plan *plan = new_plan();
    onebit_value x = new_input(plan, ONEBIT_F32, FLOAT_ROWS, FLOATS), tiny, sum, bits;
    GOOD(onebit_plan_binary_constant(plan, ONEBIT_DIV, x, (float[]){3}, 1, 0, &tiny));
    GOOD(onebit_plan_binary_constant(plan, ONEBIT_MUL, tiny, (float[]){1e-38f}, 1, 0, &tiny));
    GOOD(onebit_plan_binary_constant(plan, ONEBIT_ADD, tiny, (float[]){-1e-40f}, 1, 0, &sum));
    GOOD(onebit_plan_sign(plan, sum, &bits));
    GOOD(onebit_plan_output(plan, tiny));
    GOOD(onebit_plan_output(plan, bits));
    GOOD(onebit_plan_finish(plan));
    return plan;
}

typedef struct {
    float x[FLOAT_ROWS * FLOATS], tiny[FLOAT_ROWS * FLOATS];
    int8_t bits[FLOAT_ROWS * FLOATS];
} float_case;

static void run_floats(onebit_engine *engine, float_case *c) {
    const void *inputs[] = {c->x};
    void *outputs[] = {c->tiny, c->bits};
    memset(c->tiny, 0x5A, sizeof c->tiny);
    GOOD(onebit_engine_run(engine, 1, inputs, outputs, NULL));
}

typedef struct {
    onebit_engine *engine;
    float_case *got;
    int environment;
} float_job;

static void *run_floats_elsewhere(void *context) {
    const float_job *job = context;
    const void *inputs[] = {job->got->x};
    void *outputs[] = {job->got->tiny, job->got->bits};
    set_environment(job->environment);
    return onebit_engine_run(job->engine, 1, inputs, outputs, NULL) == ONEBIT_OK ? NULL : context;
}

/* Pools, plans and engines made in one environment and run in another, from the same thread and another one,
 * give the results of the default one; and the caller's environment is as it was. */
static void test_environments(test_random *random) {
    float_case *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    fenv_t before;
    onebit_thread_pool *pool;
    for (size_t i = 0; i < FLOAT_ROWS * FLOATS; ++i)
        want->x[i] = got->x[i] = test_float(random);
    onebit_plan *plan = plan_floats();
    onebit_engine *engine = new_engine(plan, 1, ONEBIT_SHARE_LARGE, &pool);
    run_floats(engine, want);
    CHECK(want->tiny[0] != 0 && fabsf(want->tiny[0]) < 1e-38f, "a subnormal: %g", want->tiny[0]);
    onebit_engine_destroy(engine), onebit_plan_release(plan), onebit_thread_pool_release(pool);
    fegetenv(&before);
    for (int made = 0; made < ENVIRONMENTS; ++made)
        for (int run = 0; run < ENVIRONMENTS; ++run) {
            onebit_engine *clone = NULL;
            set_environment(made);
            plan = plan_floats();
            engine = new_engine(plan, 2, ONEBIT_SHARE_ALWAYS, &pool);
            GOOD(onebit_engine_clone(engine, &clone));
            fesetenv(&before);
            set_environment(run);
            const int mode = fegetround();
            feclearexcept(FE_ALL_EXCEPT);
            run_floats(run % 2 ? clone : engine, got);
            const int raised = fetestexcept(FE_ALL_EXCEPT), after = fegetround();
            float_job job = {engine, got, made};
            pthread_t other;
            int same = memcmp(want, got, sizeof *want) == 0;
            void *failed = &job;
            if (pthread_create(&other, NULL, run_floats_elsewhere, &job) == 0)
                pthread_join(other, &failed);
            fesetenv(&before);
            CHECK(same, "made in environment %d, run in %d", made, run);
            CHECK(!failed && memcmp(want, got, sizeof *want) == 0, "run by another thread in %d", made);
            CHECK_EQ(after, mode, "the caller's rounding");
            CHECK_EQ(raised, 0, "the caller's exception flags");
            check_all_worked(pool, 2);
            onebit_engine_destroy(engine), onebit_engine_destroy(clone);
            onebit_plan_release(plan), onebit_thread_pool_release(pool);
        }
    free(want), free(got);
}

/* The calls without an engine, and the checks of a builder, know subnormals apart. */
static void test_environment_of_calls(void) {
    float x[2] = {-1e-40f, 1e-40f};
    uint32_t packed = 9, planes[2] = {9, 9};
    fenv_t before;
    fegetenv(&before);
    for (int which = 0; which < ENVIRONMENTS; ++which) {
        onebit_plan *plan = new_plan();
        onebit_value value = new_input(plan, ONEBIT_F32, 1, 2);
        set_environment(which);
        const onebit_status pack = onebit_pack_sign(NULL, 1, 2, x, &packed);
        const onebit_status images = onebit_pack_sign_planes(NULL, 1, 1, 2, x, planes);
        const onebit_status crossed =
            onebit_plan_unary(plan, ONEBIT_HARDTANH, value, (float[]){1e-40f, -1e-40f}, 2, &value);
        fesetenv(&before);
        CHECK(pack == ONEBIT_OK && packed == 2, "environment %d: signs are %u", which, packed);
        CHECK(images == ONEBIT_OK && planes[0] == 0 && planes[1] == 1, "environment %d", which);
        CHECK_EQ(crossed, ONEBIT_ERROR_ARGUMENT, "environment %d: -1e-40 is less than 1e-40", which);
        onebit_plan_release(plan);
    }
}

/* Small work stays with the caller, unless sharing is asked for. */
static void test_small_work(void) {
    onebit_plan *plan = new_plan();
    onebit_value value = new_input(plan, ONEBIT_F32, 2, 3);
    GOOD(onebit_plan_unary(plan, ONEBIT_ABS, value, NULL, 0, &value));
    GOOD(onebit_plan_output(plan, value));
    GOOD(onebit_plan_finish(plan));
    for (int sharing = ONEBIT_SHARE_LARGE; sharing <= ONEBIT_SHARE_ALWAYS; ++sharing) {
        onebit_thread_pool *pool;
        onebit_engine *engine = new_engine(plan, 2, (onebit_sharing)sharing, &pool);
        uint64_t shares[2] = {9, 9};
        float x[6] = {-1, 2, -3, 4, -5, 6}, y[6];
        const void *inputs[] = {x};
        void *outputs[] = {y};
        GOOD(onebit_engine_run(engine, 1, inputs, outputs, NULL));
        GOOD(onebit_thread_pool_shares(pool, shares));
        for (int i = 0; i < 2; ++i)
            CHECK_EQ(shares[i], sharing == ONEBIT_SHARE_ALWAYS, "sharing %d: thread %d", sharing, i);
        for (int i = 0; i < 6; ++i)
            CHECK(y[i] == (float)i + 1, "|%g| is %g", x[i], y[i]);
        onebit_engine_destroy(engine);
        onebit_thread_pool_release(pool);
    }
    onebit_plan_release(plan);
}

static void test_threads(test_random *random) {
    test_pool_calls();
    test_shares(false);
    test_shares(true);
    test_small_work();
    test_environments(random);
    test_environment_of_calls();
}

#endif
