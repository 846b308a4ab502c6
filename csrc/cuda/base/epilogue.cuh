/* What becomes of a finished sum v of row m and column n: the macro EPILOGUE chooses one of four.
 *
 *   0  I32   out[m][n] = v + column[n]                                   int32  [rows, columns]
 *   1  F32   out[m][n] = fma((float)(v + column[n]), scale[n], bias[n])  float32 [rows, columns]
 *   2  BITS  bit n of out[m] = (v >= column[n]) xor bit n of flip        packed rows (bits.cuh)
 *   3  SUM   x = fma(fma((float)(v + column[n]), scale[n], bias[n]), scale2[n], bias2[n]) + residual[m][n];
 *            out[m][n] = x if out is not null                            float32 [rows, columns]
 *            bit n of signs[m] = x >= 0 if signs is not null             packed rows
 *
 * v + offset[n] is the exact ±1 product. For all but BITS `column` is that offset; for BITS it is the
 * threshold less the offset, so that one comparison decides. `more` holds (scale, bias) pairs for F32, the
 * words of flip for BITS, (scale, bias, scale2, bias2) for SUM. Constants have a value for every column up to
 * a multiple of 256. For BITS those beyond the last column are column = 2^31 − 1, which no v reaches, and
 * flip = 0: that makes the padding bits zero.
 *
 * SUM is the end of a residual block: the floats go on to the next sum, their signs to the next product, and
 * neither is read again only to make the other.
 *
 * BITS and SUM also add the number of ones to sums[m], unless that is null: the popc(a) of the next product.
 * Several blocks add to one row, so the sums must be zero at the start. */
#pragma once

#include "cuda/base/bits.cuh"

#define EPILOGUE_I32  0
#define EPILOGUE_F32  1
#define EPILOGUE_BITS 2
#define EPILOGUE_SUM  3

struct Epilogue {
    const int *column;
    const void *more;
    void *out;
    int *sums;
    int rows;
    int columns;
    const float *residual; /* of SUM */
    u32 *signs;
};

/* The columns that must be stored, so that tiles cover the padding of a packed row too. */
__device__ __forceinline__ int stored_columns(int columns) {
    return EPILOGUE == EPILOGUE_BITS || EPILOGUE == EPILOGUE_SUM ? padded_words(columns) * 32 : columns;
}

/* One int32 or float32 for an exact product; `more` is (scale, bias). */
__device__ __forceinline__ int finish(int product, float2 more) {
#if EPILOGUE == EPILOGUE_F32
    return __float_as_int(fmaf(static_cast<float>(product), more.x, more.y));
#else
    return product;
#endif
}

/* The float of SUM before the residual is added. */
__device__ __forceinline__ float scaled_twice(int product, float4 more) {
    return fmaf(fmaf(static_cast<float>(product), more.x, more.y), more.z, more.w);
}

/* ---- a warp that holds 32 neighbouring columns of a row, one in each lane ---- */

/* Stores v of row m and column first + lane; first is a multiple of 32. All lanes of the warp call it, with
 * one m. */
__device__ __forceinline__ void store_row_of_warp(const Epilogue &e, int m, int first, int v) {
    const int n = first + lane_id();
    const int column = __ldg(e.column + n);
#if EPILOGUE == EPILOGUE_BITS
    const u32 reached = __ballot_sync(0xFFFFFFFFu, v >= column);
    const int stride = padded_words(e.columns);
    if (lane_id() == 0 && m < e.rows && first / 32 < stride) {
        const u32 word = reached ^ __ldg(static_cast<const u32 *>(e.more) + first / 32);
        static_cast<u32 *>(e.out)[static_cast<u64>(m) * stride + first / 32] = word;
        if (e.sums != nullptr && word != 0)
            atomicAdd(e.sums + m, __popc(word));
    }
#elif EPILOGUE == EPILOGUE_SUM
    const bool inside = m < e.rows && n < e.columns;
    float x = -1.0f;
    if (inside) {
        const u64 at = static_cast<u64>(m) * e.columns + n;
        x = scaled_twice(v + column, __ldg(static_cast<const float4 *>(e.more) + n)) + __ldg(e.residual + at);
        if (e.out != nullptr)
            static_cast<float *>(e.out)[at] = x;
    }
    const u32 word = __ballot_sync(0xFFFFFFFFu, x >= 0.0f);
    const int stride = padded_words(e.columns);
    if (lane_id() == 0 && m < e.rows && first / 32 < stride && e.signs != nullptr) {
        e.signs[static_cast<u64>(m) * stride + first / 32] = word;
        if (e.sums != nullptr && word != 0)
            atomicAdd(e.sums + m, __popc(word));
    }
#else
    if (m >= e.rows || n >= e.columns)
        return;
    float2 more = make_float2(1.0f, 0.0f);
    if (EPILOGUE == EPILOGUE_F32)
        more = __ldg(static_cast<const float2 *>(e.more) + n);
    static_cast<int *>(e.out)[static_cast<u64>(m) * e.columns + n] = finish(v + column, more);
#endif
}

/* ---- a warp that holds 16 rows × COLUMNS in the fragment layout of mma.sync and wgmma ----
 *
 * With g = lane / 4 and q = lane % 4, v[4j + 2h + c] is that of row g + 8h and column 8j + 2q + c. */

/* The constants of columns 8j + 2q and 8j + 2q + 1, for rows g and g + 8. */
struct Columns {
    int2 of_row[2];
};

/* The constants of a warp's COLUMNS columns, the same for all rows: lane l holds those of columns 64i + 2l
 * and 64i + 2l + 1, so a load is coalesced; the lane that needs the pair of columns 8j + 2q asks lane
 * 4(j % 8) + q for entry j / 8. */
template <int COLUMNS> struct ColumnPairs {
    int2 value[COLUMNS / 64];

    __device__ __forceinline__ void load(const int *column, int first) {
#pragma unroll
        for (int i = 0; i < COLUMNS / 64; i++)
            value[i] = __ldg(reinterpret_cast<const int2 *>(column + first + 64 * i) + lane_id());
    }

    __device__ __forceinline__ Columns of(int j) const {
        const int source = 4 * (j % 8) + lane_id() % 4;
        const int2 pair = make_int2(__shfl_sync(0xFFFFFFFFu, value[j / 8].x, source),
                                    __shfl_sync(0xFFFFFFFFu, value[j / 8].y, source));
        return {pair, pair};
    }
};

/* Constants that differ from row to row: `of_row` points at those of a lane's two rows, from the warp's first
 * column on. Read where they are used, for their lines stay in L1. */
struct ColumnsOfRows {
    const int *of_row[2];

    __device__ __forceinline__ Columns of(int j) const {
        const int pair = 4 * j + lane_id() % 4;
        return {__ldg(reinterpret_cast<const int2 *>(of_row[0]) + pair),
                __ldg(reinterpret_cast<const int2 *>(of_row[1]) + pair)};
    }
};

#if EPILOGUE == EPILOGUE_BITS || EPILOGUE == EPILOGUE_SUM
/* Gathers bits into words and stores them to out, which has a row of padded_words(columns) for each row;
 * flip, if not null, inverts some columns. word[h·W + i] holds a lane's 8 bits of row g + 8h and word i,
 * those of group j at 8·(j % 4), not yet shifted to its place 2q.
 *
 * A word of a row is spread over the four lanes of a quad. There are 2 rows × W words a quad, W = COLUMNS /
 * 32; in two exchanges each lane hands over the words that others keep and ors what it gets, and ends with W
 * / 2 whole words: of row h = q / 2, from word (q % 2)·W/2 on. So COLUMNS = 256 stores 16 bytes a lane. */
template <int COLUMNS>
__device__ __forceinline__ void store_words(const Epilogue &e, u32 *out, const u32 *flip, int row, int first,
                                            const u32 (&word)[COLUMNS / 16]) {
    constexpr int W = COLUMNS / 32;
    const int q = lane_id() % 4;
    u32 half[W];
#pragma unroll
    for (int i = 0; i < W; i++) {
        const u32 kept = (q & 2 ? word[W + i] : word[i]) << 2 * q;
        const u32 given = (q & 2 ? word[i] : word[W + i]) << 2 * q;
        half[i] = kept | __shfl_xor_sync(0xFFFFFFFFu, given, 2);
    }
    u32 whole[W / 2];
#pragma unroll
    for (int i = 0; i < W / 2; i++) {
        const u32 kept = q & 1 ? half[W / 2 + i] : half[i];
        const u32 given = q & 1 ? half[i] : half[W / 2 + i];
        whole[i] = kept | __shfl_xor_sync(0xFFFFFFFFu, given, 1);
    }
    const int m = row + lane_id() / 4 + 8 * (q / 2);
    const int at = first / 32 + (q % 2) * (W / 2);
    const int stride = padded_words(e.columns);
    int ones = 0;
    if (m < e.rows && at < stride) {
        u32 *const to = out + static_cast<u64>(m) * stride + at;
#pragma unroll
        for (int i = 0; i < W / 2; i++) {
            if (flip != nullptr)
                whole[i] ^= __ldg(flip + at + i);
            ones += __popc(whole[i]);
        }
        if constexpr (W == 8)
            *reinterpret_cast<uint4 *>(to) = make_uint4(whole[0], whole[1], whole[2], whole[3]);
        else if constexpr (W == 4)
            *reinterpret_cast<uint2 *>(to) = make_uint2(whole[0], whole[1]);
        else
            *to = whole[0];
    }
    if (e.sums != nullptr) { /* the same for all lanes */
        ones += __shfl_xor_sync(0xFFFFFFFFu, ones, 1);
        if (q % 2 == 0 && m < e.rows && ones != 0)
            atomicAdd(e.sums + m, ones);
    }
}
#endif

#if EPILOGUE == EPILOGUE_BITS
template <int COLUMNS, class Constants>
__device__ __forceinline__ void store_sums(const Epilogue &e, int row, int first, const int (&v)[COLUMNS / 2],
                                           const Constants &constants) {
    constexpr int W = COLUMNS / 32;
    u32 word[2 * W] = {};
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
        const Columns column = constants.of(j);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const u32 low = v[4 * j + 2 * h] >= column.of_row[h].x;
            const u32 high = v[4 * j + 2 * h + 1] >= column.of_row[h].y;
            word[h * W + j / 4] |= (low | high << 1) << (8 * (j % 4));
        }
    }
    store_words<COLUMNS>(e, static_cast<u32 *>(e.out), static_cast<const u32 *>(e.more), row, first, word);
}

#elif EPILOGUE == EPILOGUE_SUM
/* Pairs of columns as for floats below; the bits of columns beyond the last are zero. All of the residual is
 * asked for before the first of it is needed, so that a warp waits for memory once. */
template <int COLUMNS, class Constants>
__device__ __forceinline__ void store_sums(const Epilogue &e, int row, int first, const int (&v)[COLUMNS / 2],
                                           const Constants &constants) {
    constexpr int W = COLUMNS / 32;
    const int q = lane_id() % 4;
    const bool even = e.columns % 2 == 0;
    const u64 corner = static_cast<u64>(row + lane_id() / 4) * e.columns + first + 2 * q;
    float *const out = static_cast<float *>(e.out);
    float2 residual[COLUMNS / 8][2];
#pragma unroll
    for (int i = 0; i < COLUMNS / 4; i++) {
        const int m = row + lane_id() / 4 + 8 * (i % 2), n = first + 8 * (i / 2) + 2 * q;
        const float *const from =
            e.residual + (corner + 8 * (i % 2) * static_cast<u64>(e.columns) + 8 * (i / 2));
        const bool inside = m < e.rows && n < e.columns, both = inside && n + 1 < e.columns;
        float2 r = make_float2(0.0f, 0.0f);
        if (even && inside)
            r = __ldg(reinterpret_cast<const float2 *>(from));
        if (!even && inside)
            r.x = __ldg(from);
        if (!even && both)
            r.y = __ldg(from + 1);
        residual[i / 2][i % 2] = r;
    }
    u32 word[2 * W] = {};
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
        const Columns column = constants.of(j);
        const int n = first + 8 * j + 2 * q;
        const float4 left = __ldg(static_cast<const float4 *>(e.more) + n);
        const float4 right = __ldg(static_cast<const float4 *>(e.more) + n + 1);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const bool inside = row + lane_id() / 4 + 8 * h < e.rows && n < e.columns;
            const bool both = inside && n + 1 < e.columns;
            const float2 r = residual[j][h];
            const float x = scaled_twice(v[4 * j + 2 * h] + column.of_row[h].x, left) + r.x;
            const float y = scaled_twice(v[4 * j + 2 * h + 1] + column.of_row[h].y, right) + r.y;
            float *const to = out + (corner + 8 * h * static_cast<u64>(e.columns) + 8 * j);
            if (out != nullptr && inside && even)
                *reinterpret_cast<float2 *>(to) = make_float2(x, y);
            if (out != nullptr && inside && !even)
                to[0] = x;
            if (out != nullptr && both && !even)
                to[1] = y;
            const u32 low = inside && x >= 0.0f, high = both && y >= 0.0f;
            word[h * W + j / 4] |= (low | high << 1) << (8 * (j % 4));
        }
    }
    if (e.signs != nullptr)
        store_words<COLUMNS>(e, e.signs, nullptr, row, first, word);
}

#else
/* Stores pairs of columns: with an even number of columns each pair is one 8-byte store, and a quad fills a
 * sector. */
template <int COLUMNS, class Constants>
__device__ __forceinline__ void store_sums(const Epilogue &e, int row, int first, const int (&v)[COLUMNS / 2],
                                           const Constants &constants) {
    const int q = lane_id() % 4;
    const bool even = e.columns % 2 == 0;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
        const Columns column = constants.of(j);
        const int n = first + 8 * j + 2 * q;
        float4 more = make_float4(1.0f, 0.0f, 1.0f, 0.0f);
        if (EPILOGUE == EPILOGUE_F32)
            more = __ldg(static_cast<const float4 *>(e.more) + n / 2);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int m = row + lane_id() / 4 + 8 * h;
            const int2 c = column.of_row[h];
            const int x = finish(v[4 * j + 2 * h] + c.x, make_float2(more.x, more.y));
            const int y = finish(v[4 * j + 2 * h + 1] + c.y, make_float2(more.z, more.w));
            int *out = static_cast<int *>(e.out) + static_cast<u64>(m) * e.columns + n;
            if (m >= e.rows || n >= e.columns)
                continue;
            if (even) {
                *reinterpret_cast<int2 *>(out) = make_int2(x, y);
            } else {
                out[0] = x;
                if (n + 1 < e.columns)
                    out[1] = y;
            }
        }
    }
}
#endif

/* The same for v = 4·count − row_term, count being popc(a and b). */
template <int COLUMNS, class Constants>
__device__ __forceinline__ void store_fragment(const Epilogue &e, int row, int first,
                                               const int (&count)[COLUMNS / 2], const int (&row_term)[2],
                                               const Constants &constants) {
    int v[COLUMNS / 2];
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++)
        v[i] = 4 * count[i] - row_term[i / 2 % 2];
    store_sums<COLUMNS>(e, row, first, v, constants);
}

/* 2·popc(a) of a lane's two rows, zero for those beyond the last. */
__device__ __forceinline__ void load_row_terms(int (&row_term)[2], const int *sums, int row, int rows) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int m = row + lane_id() / 4 + 8 * h;
        row_term[h] = m < rows ? 2 * __ldg(sums + m) : 0;
    }
}
