/* The portable variant: plain C that compilers turn into whatever vectors the target has. As in the binary
 * GEMM, lanes are the 32 channels of a panel; popcounts are done in parallel in the four bytes of a lane, and
 * bytes are added up for FLUSH words before they are widened: a byte gains at most 8 a word, 8 * 31 = 248. */
#include "kernels/binary_conv/driver.h"

enum { N_TILE = 32, FLUSH = 31 };

/* Popcounts of the four bytes of x, each in its byte. */
static inline uint32_t byte_counts(uint32_t x) {
    x -= x >> 1 & UINT32_C(0x55555555);
    x = (x & UINT32_C(0x33333333)) + (x >> 2 & UINT32_C(0x33333333));
    return (x + (x >> 4)) & UINT32_C(0x0F0F0F0F);
}

/* different[lane] = how many bits of the pixel at `a` differ from channel `lane`. Activations are fetched
 * first because GCC does not vectorize a loop that loads from computed addresses. */
static void count_different(const conv_tile *t, const char *a, uint32_t *different) {
    memset(different, 0, N_TILE * sizeof *different);
    for (size_t first = 0; first < t->words; first += FLUSH) {
        const size_t words = t->words - first < FLUSH ? t->words - first : FLUSH;
        const uint32_t *weights = t->weights + first * N_TILE;
        uint32_t activations[FLUSH], bytes[N_TILE] = {0};
        for (size_t word = 0; word < words; ++word)
            activations[word] = *(const uint32_t *)(const void *)(a + t->offsets[first + word]);
        for (size_t word = 0; word < words; ++word)
            for (size_t lane = 0; lane < N_TILE; ++lane)
                bytes[lane] += byte_counts(activations[word] ^ weights[word * N_TILE + lane]);
        for (size_t lane = 0; lane < N_TILE; ++lane) {
            uint32_t pairs = (bytes[lane] & 0x00FF00FF) + (bytes[lane] >> 8 & 0x00FF00FF);
            different[lane] += (pairs & 0xFFFF) + (pairs >> 16);
        }
    }
}

static void apply_epilogue(const conv_tile *t, const int32_t *bases, const uint32_t *different, char *out) {
    const onebit_epilogue *epilogue = t->epilogue;
    if (epilogue->kind == ONEBIT_EPILOGUE_BITS) {
        uint32_t bits = 0;
        for (size_t lane = 0; lane < t->count; ++lane)
            bits |= (uint32_t)((int32_t)different[lane] <= bases[lane]) << lane;
        ((uint32_t *)(void *)out)[t->n / N_TILE] =
            (bits ^ epilogue->flip[t->n / N_TILE]) & onebit_tail_mask(t->count);
        return;
    }
    for (size_t lane = 0; lane < t->count; ++lane) {
        int32_t v = bases[lane] - 2 * (int32_t)different[lane];
        if (epilogue->kind == ONEBIT_EPILOGUE_I32)
            ((int32_t *)(void *)out)[t->n + lane] = v;
        else
            ((float *)(void *)out)[t->n + lane] =
                fmaf((float)v, epilogue->scale[t->n + lane], epilogue->bias[t->n + lane]);
    }
}

static void tile(const conv_tile *t, size_t pixels) {
    for (size_t p = 0; p < pixels; ++p) {
        uint32_t different[N_TILE];
        count_different(t, t->a + p * t->a_stride, different);
        apply_epilogue(t, t->bases + t->classes[p], different, t->out + p * t->out_stride);
    }
}

static const conv_kernel kernel = {
    .n_tile = N_TILE, .pixels = MAX_PIXELS, .word_bytes = sizeof(uint32_t), .tile = tile};

static size_t packed_size(const onebit_conv_shape *shape) {
    return packed_bytes(shape, N_TILE);
}

static void prepack(const onebit_conv_shape *shape, const void *weights, void *packed) {
    prepack_panels(shape, N_TILE, weights, packed);
}

static size_t scratch_size(const onebit_conv_shape *shape) {
    return conv_scratch_size(&kernel, shape);
}

static void run(const onebit_conv_args *args) {
    conv_run(&kernel, args);
}

const onebit_conv_variant onebit_binary_conv_generic = {
    .isa = ONEBIT_ISA_GENERIC,
    .name = "binary_conv/generic",
    .n_tile = N_TILE,
    .packed_size = packed_size,
    .prepack = prepack,
    .scratch_size = scratch_size,
    .run = run,
};
