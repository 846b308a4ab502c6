/* Tests of concat and permute: included by test.c, which defines ops and rng. */

enum { MAX_PARTS = 5 };

static void check_concat(size_t rows, size_t parts, const size_t *channels) {
    for (size_t element = 1; element <= 4; element += 3) {
        onebit_part part[MAX_PARTS];
        size_t all = 0;
        for (size_t p = 0; p < parts; all += channels[p++]) {
            void *data = test_alloc_input(rows * channels[p] * element);
            test_fill(&rng, data, rows * channels[p] * element);
            part[p] = (onebit_part){data, channels[p]};
        }
        unsigned char *out = test_alloc(rows * all * element);
        ops->concat(rows, parts, part, element, out);
        CHECK(test_guards(out), "%s concat wrote outside of out", ops->name);
        for (size_t row = 0; row < rows; ++row)
            for (size_t p = 0, at = 0; p < parts; at += channels[p++])
                CHECK(memcmp(out + (row * all + at) * element,
                             (const unsigned char *)part[p].data + row * channels[p] * element,
                             channels[p] * element) == 0,
                      "%s concat of %zu parts: row %zu part %zu differs", ops->name, parts, row, p);
        for (size_t p = 0; p < parts; ++p)
            free((void *)part[p].data);
        test_free(out);
    }
}

static int bit_of(const uint32_t *rows, size_t channels, size_t row, size_t c) {
    return rows[row * onebit_words(channels) + c / 32] >> c % 32 & 1;
}

static void check_concat_bits(size_t rows, size_t parts, const size_t *channels) {
    onebit_part part[MAX_PARTS];
    size_t all = 0;
    for (size_t p = 0; p < parts; all += channels[p++]) {
        uint32_t *data = test_alloc_input(rows * onebit_words(channels[p]) * sizeof *data);
        test_fill_bits(&rng, data, rows, channels[p]);
        part[p] = (onebit_part){data, channels[p]};
    }
    const size_t words = onebit_words(all);
    uint32_t *out = test_alloc(rows * words * sizeof *out);
    ops->concat_bits(rows, parts, part, out);
    CHECK(test_guards(out), "%s concat_bits wrote outside of out", ops->name);
    for (size_t row = 0; row < rows; ++row) {
        size_t at = 0;
        for (size_t p = 0; p < parts; ++p)
            for (size_t c = 0; c < channels[p]; ++c, ++at)
                CHECK_EQ(bit_of(out, all, row, at), bit_of(part[p].data, channels[p], row, c),
                         "%s concat_bits: row %zu bit %zu of %zu", ops->name, row, at, all);
        for (; at < 32 * words; ++at)
            CHECK_EQ(out[row * words + at / 32] >> at % 32 & 1, 0, "%s padding bit %zu", ops->name, at);
    }
    for (size_t p = 0; p < parts; ++p)
        free((void *)part[p].data);
    test_free(out);
}

/* Where each output element comes from, one at a time. */
static void check_permute(const onebit_permutation *p) {
    size_t whole = 1, steps[ONEBIT_MAX_AXES], words[2] = {1, 1};
    for (size_t axis = p->rank; axis-- > 0; whole *= p->sizes[axis])
        steps[axis] = whole;
    const size_t last[2] = {p->sizes[p->rank - 1], p->sizes[p->axes[p->rank - 1]]}; /* of input and output */
    for (int side = 0; side < 2; ++side)
        words[side] = p->samples * whole / last[side] * onebit_words(last[side]);
    for (size_t element = 0; element <= 12; element += element == 1 ? 3 : element == 4 ? 8 : 1) {
        const size_t in_size = element ? p->samples * whole * element : words[0] * 4;
        const size_t out_size = element ? in_size : words[1] * 4;
        unsigned char *x = test_alloc_input(in_size), *out = test_alloc(out_size);
        test_fill(&rng, x, in_size);
        if (element) {
            ops->permute(p, element, x, out);
        } else {
            test_fill_bits(&rng, (uint32_t *)(void *)x, p->samples * whole / last[0], last[0]);
            ops->permute_bits(p, (const uint32_t *)(void *)x, (uint32_t *)(void *)out);
        }
        CHECK(test_guards(out), "%s permute wrote outside of out", ops->name);
        for (size_t to = 0; to < p->samples * whole; ++to) {
            size_t from = to / whole * whole, rest = to % whole;
            for (size_t j = p->rank; j-- > 0; rest /= p->sizes[p->axes[j]])
                from += rest % p->sizes[p->axes[j]] * steps[p->axes[j]];
            const int same = element
                                 ? memcmp(out + to * element, x + from * element, element) == 0
                                 : bit_of((uint32_t *)(void *)out, last[1], to / last[1], to % last[1]) ==
                                       bit_of((uint32_t *)(void *)x, last[0], from / last[0], from % last[0]);
            CHECK(same, "%s permute of rank %zu, element %zu (0: bit): output %zu is not input %zu",
                  ops->name, p->rank, element, to, from);
        }
        for (size_t i = 0; !element && i < words[1]; ++i) /* padding bits */
            if (i % onebit_words(last[1]) + 1 == onebit_words(last[1]))
                CHECK_EQ(((uint32_t *)(void *)out)[i] & ~onebit_tail_mask(last[1]), 0, "%s word %zu",
                         ops->name, i);
        free(x), test_free(out);
    }
}

static void check_layout_ops(void) {
    static const size_t sizes[] = {1, 2, 3, 7, 16, 31, 32, 33, 63, 64, 65, 96, 127};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (int i = 0; i < 60; ++i) {
        const size_t parts = 1 + test_below(&rng, MAX_PARTS);
        size_t channels[MAX_PARTS];
        for (size_t p = 0; p < parts; ++p)
            channels[p] = sizes[test_below(&rng, SIZES)];
        check_concat(1 + test_below(&rng, 3), parts, channels);
        check_concat_bits(1 + test_below(&rng, 3), parts, channels);
    }
    for (int i = 0; i < 120; ++i) {
        size_t shape[ONEBIT_MAX_AXES], axes[ONEBIT_MAX_AXES], rank = 1 + test_below(&rng, 5);
        for (size_t j = 0; j < rank; ++j)
            shape[j] = rank < 3 ? sizes[test_below(&rng, SIZES)] : 1 + test_below(&rng, rank < 4 ? 40 : 6),
            axes[j] = j;
        for (size_t j = rank; j-- > 1;) {
            const size_t other = test_below(&rng, j + 1), kept = axes[j];
            axes[j] = axes[other], axes[other] = kept;
        }
        check_permute(&(onebit_permutation){1 + test_below(&rng, 2), rank, shape, axes});
    }
    static const size_t chw[] = {3, 17, 19}, hwc[] = {17, 19, 3}, to_hwc[] = {1, 2, 0}, to_chw[] = {2, 0, 1};
    check_permute(&(onebit_permutation){2, 3, chw, to_hwc});
    check_permute(&(onebit_permutation){2, 3, hwc, to_chw});
    static const size_t most[] = {2, 1, 3, 2, 2, 1, 2, 3}, reverse[] = {7, 6, 5, 4, 3, 2, 1, 0};
    check_permute(&(onebit_permutation){2, ONEBIT_MAX_AXES, most, reverse});
}
