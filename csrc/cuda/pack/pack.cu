/* Packs numbers into bits.
 *
 * Bit = 1 where x >= 0 (so for 0.0 and −0.0), of a bool where it is true. A NaN gives 0, as the op `sign` of
 * a Program does; whoever takes numbers from a user refuses NaNs before.
 *
 * Macro: TYPE 0 float32, 1 float16, 2 bfloat16, 3 int8, 4 bool. */
#include "cuda/pack/row_sums.cuh"

#define TYPE_F32  0
#define TYPE_F16  1
#define TYPE_BF16 2
#define TYPE_I8   3
#define TYPE_BOOL 4

namespace {

constexpr int GROUP = 1024; /* elements that a warp packs at a time, a word a lane */
constexpr int AHEAD = 16;   /* loads under way at once */

#if TYPE == TYPE_F32
using Element = float;
#elif TYPE == TYPE_F16 || TYPE == TYPE_BF16
using Element = u16;
#elif TYPE == TYPE_I8
using Element = signed char;
#else
using Element = u8;
#endif

__device__ __forceinline__ bool is_positive(Element x) {
#if TYPE == TYPE_F16 || TYPE == TYPE_BF16
    /* Without a sign, all that is no NaN (infinity is the largest of those); of the rest −0.0 alone. */
    constexpr u16 INFINITY_BITS = TYPE == TYPE_F16 ? 0x7C00 : 0x7F80;
    return x <= INFINITY_BITS || x == 0x8000;
#elif TYPE == TYPE_BOOL
    return x != 0;
#else
    return x >= 0;
#endif
}

/* Stands for what lies beyond a row. */
constexpr Element NEGATIVE = static_cast<Element>(TYPE == TYPE_BOOL ? 0 : -1);

} // namespace

/* in [rows, columns] → out [rows, padded_words(columns)], sums [rows] (or null): the ones of each row.
 * Launch: 256 threads, 32 bytes of shared memory; warps_a_row, a power of two up to 8, share a row, so
 * rows·warps_a_row/8 blocks. */
extern "C" __global__ void __launch_bounds__(32 * WARPS, 4)
    pack_rows(const Element *__restrict__ in, u32 *__restrict__ out, int *__restrict__ sums, int rows,
              int columns, int warps_a_row) {
    const int warp = static_cast<int>(blockIdx.x) * WARPS + static_cast<int>(threadIdx.x) / 32;
    const int row = warp / warps_a_row;
    const int words = padded_words(columns);
    const Element *const from = in + static_cast<u64>(row) * columns;
    int ones = 0;
    for (int first = warp % warps_a_row * GROUP; row < rows && first < words * 32;
         first += warps_a_row * GROUP) {
        u32 mine = 0;
#pragma unroll
        for (int word = 0; word < 32; word += AHEAD) {
            Element x[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int c = first + 32 * (word + i) + lane_id();
                x[i] = c < columns ? from[c] : NEGATIVE;
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const u32 packed = __ballot_sync(0xFFFFFFFFu, is_positive(x[i]));
                mine = lane_id() == word + i ? packed : mine;
            }
        }
        ones += __popc(mine);
        if (first / 32 + lane_id() < words)
            out[static_cast<u64>(row) * words + first / 32 + lane_id()] = mine;
    }
    store_sum(sums, row, rows, warps_a_row, ones);
}
