/* The kernels without a network. Included by test.c. */
#ifndef ONEBIT_ENGINE_TEST_DIRECT_H
#define ONEBIT_ENGINE_TEST_DIRECT_H

static void test_direct(test_random *random) {
    enum { A = 7, B = 65, C = 33 };
    uint32_t a[A * 2], w[B * 2], packed[A * 2];
    int32_t out[A][B];
    float x[A][C];
    test_fill_bits(random, a, A, C);
    test_fill_bits(random, w, B, C);
    onebit_thread_pool *pool = NULL;
    GOOD(onebit_thread_pool_create(2, ONEBIT_SHARE_ALWAYS, &pool));
    GOOD(onebit_binary_matmul("generic", pool, A, B, C, a, w, &out[0][0]));
    check_all_worked(pool, 2);
    for (size_t m = 0; m < A; ++m)
        for (size_t c = 0; c < C; ++c)
            x[m][c] = sign_at(a + 2 * m, c) > 0 ? -0.0f : -1e-30f;
    for (size_t m = 0; m < A; ++m)
        for (size_t n = 0; n < B; ++n) {
            int sum = 0;
            for (size_t c = 0; c < C; ++c)
                sum += sign_at(a + 2 * m, c) * sign_at(w + 2 * n, c);
            CHECK_EQ(out[m][n], sum, "m=%zu n=%zu", m, n);
        }
    GOOD(onebit_pack_sign(NULL, A, C, &x[0][0], packed));
    CHECK(memcmp(packed, a, sizeof a) == 0, "packed signs");
    x[3][4] = NAN;
    BAD(onebit_pack_sign(NULL, A, C, &x[0][0], packed), ONEBIT_ERROR_INPUT, "NaN");
    BAD(onebit_pack_sign(NULL, UINT64_MAX, 2, &x[0][0], packed), ONEBIT_ERROR_LIMIT, "size");
    BAD(onebit_binary_matmul(NULL, pool, 1, UINT64_MAX, 1, a, w, &out[0][0]), ONEBIT_ERROR_ARGUMENT,
        "n and k");
    BAD(onebit_binary_matmul(NULL, NULL, A, B, C, a, w, &out[0][0]), ONEBIT_ERROR_ARGUMENT, "pool");
    a[1] |= 4;
    BAD(onebit_binary_matmul(NULL, pool, A, B, C, a, w, &out[0][0]), ONEBIT_ERROR_ARGUMENT, "padding");
    onebit_thread_pool_release(pool);
}

#endif
