// Collectives of a warp: each waits until all threads of its mask have come, then is computed for all of them
// at once. Fragment layouts are those of the PTX ISA, sections "Matrix Fragments for mma.m16n8k256" and "...
// m16n8k32".
#include <string.h>

#include <algorithm>

#include "core.h"

namespace onebit_emulation {

struct Meeting {
    const char *what;
    Where where;
    std::vector<int> fibers;
    std::vector<void *> brought; // by place in [first, first + count)
};

static std::map<std::pair<int, uint32_t>, Meeting> meetings;
static std::vector<int> elected; // a warp

void *rendezvous(int first, int count, uint32_t mask, const char *what, void *mine,
                 const std::function<void(const std::vector<int> &, void *const *)> &act,
                 const Where &where) {
    Fiber &fiber = self();
    int place_in_group = fiber.index - first;
    int expected = count;
    if (count <= 32) {
        int exist = std::min(32, cluster.threads - first % cluster.threads);
        if (exist < 32)
            mask &= (1u << exist) - 1;
        expected = __builtin_popcount(mask);
        if (!(mask >> place_in_group & 1))
            fail(std::string(what) + " at " + place(where) + ": " + name(fiber) + " is not in its own mask");
    }
    auto [found, is_new] = meetings.try_emplace({count <= 32 ? first : -1 - first, mask});
    Meeting &meeting = found->second;
    if (is_new) {
        meeting.what = what;
        meeting.where = where;
        meeting.brought.assign(count, nullptr);
    } else if (strcmp(meeting.what, what) != 0) {
        fail(name(fiber) + " comes to " + what + " at " + place(where) + " while others of its warp are in " +
             meeting.what + " at " + place(meeting.where));
    }
    meeting.brought[place_in_group] = mine;
    meeting.fibers.push_back(fiber.index);
    if (static_cast<int>(meeting.fibers.size()) < expected) {
        wait(&meeting, what, where);
        return nullptr;
    }
    Meeting complete = meeting;
    const void *key = &meeting;
    act(complete.fibers, complete.brought.data());
    wake(key);
    meetings.erase(found);
    return nullptr;
}

void reset_warps() {
    meetings.clear();
    elected.assign(cluster.blocks * ((cluster.threads + 31) / 32), -1);
}

static int first_of_warp() {
    return self().index - self().lane;
}

template <class Mine, class Act>
static void meet(uint32_t mask, const char *what, Mine &mine, Act act, const Where &where) {
    rendezvous(
        first_of_warp(), 32, mask, what, &mine,
        [&](const std::vector<int> &fibers, void *const *brought) {
            act(fibers, reinterpret_cast<Mine *const *>(brought));
        },
        where);
}

void warp_sync(uint32_t mask, Where where) {
    int nothing = 0;
    meet(
        mask, "__syncwarp", nothing, [](const std::vector<int> &fibers, int *const *) { order(fibers); },
        where);
}

struct Shuffle {
    uint32_t value, result;
    int source;
    const Where *where;
};

uint32_t shuffle(uint32_t mask, uint32_t value, int source_lane, Where where) {
    Shuffle mine = {value, 0, source_lane & 31, &where};
    meet(
        mask, "a shuffle", mine,
        [](const std::vector<int> &, Shuffle *const *all) {
            for (int i = 0; i < 32; i++) {
                if (!all[i])
                    continue;
                if (!all[all[i]->source])
                    fail("shuffle at " + place(*all[i]->where) + ": lane " + std::to_string(i) +
                         " reads lane " + std::to_string(all[i]->source) + ", which does not take part");
                all[i]->result = all[all[i]->source]->value;
            }
        },
        where);
    return mine.result;
}

uint32_t ballot(uint32_t mask, int predicate, Where where) {
    struct Vote {
        int predicate;
        uint32_t result;
    } mine = {predicate, 0};
    meet(
        mask, "a vote", mine,
        [](const std::vector<int> &, Vote *const *all) {
            uint32_t bits = 0;
            for (int i = 0; i < 32; i++)
                bits |= (all[i] && all[i]->predicate ? 1u : 0u) << i;
            for (int i = 0; i < 32; i++)
                if (all[i])
                    all[i]->result = bits;
        },
        where);
    return mine.result;
}

bool elect(Where where) {
    int nothing = 0;
    meet(~0u, "elect_one", nothing, [](const std::vector<int> &, int *const *) {}, where);
    int &chosen = elected[self().warp];
    if (chosen < 0)
        chosen = static_cast<int>(draw(32)); // any lane, but the same each time
    return self().lane == chosen;
}

// ---- mma ----
struct Mma {
    int32_t *d;
    const uint32_t *a, *b;
};

// Element i of a fragment of 128 (A) or 64 (B) single bits, 32 a register, to its place in the matrix.
static int a_row(int lane, int i) {
    return i < 32 || (i >= 64 && i < 96) ? lane >> 2 : (lane >> 2) + 8;
}
static int a_column(int lane, int i) {
    return (lane % 4) * 32 + (i & 31) + (i >= 64 ? 128 : 0);
}
static int b_row(int lane, int i) {
    return (lane % 4) * 32 + (i & 31) + (i >= 32 ? 128 : 0);
}
static int d_row(int lane, int i) {
    return i < 2 ? lane >> 2 : (lane >> 2) + 8;
}
static int d_column(int lane, int i) {
    return (lane % 4) * 2 + (i & 1);
}

static void need_whole_warp(Mma *const *all) {
    for (int lane = 0; lane < 32; lane++)
        if (!all[lane])
            fail("mma or ldmatrix in a warp of fewer than 32 threads");
}

void mma_b1(int32_t *d, const uint32_t *a, const uint32_t *b, Where where) {
    Mma mine = {d, a, b};
    meet(
        ~0u, "mma_b1", mine,
        [](const std::vector<int> &, Mma *const *all) {
            need_whole_warp(all);
            // Rows of A and columns of B as 8 words; a whole register lies in one word, since i & 31 is its
            // bit.
            uint32_t a_words[16][8], b_words[8][8];
            for (int lane = 0; lane < 32; lane++) {
                for (int i = 0; i < 128; i += 32)
                    a_words[a_row(lane, i)][a_column(lane, i) / 32] = all[lane]->a[i / 32];
                for (int i = 0; i < 64; i += 32)
                    b_words[lane >> 2][b_row(lane, i) / 32] = all[lane]->b[i / 32];
            }
            for (int lane = 0; lane < 32; lane++)
                for (int i = 0; i < 4; i++)
                    for (int word = 0; word < 8; word++)
                        all[lane]->d[i] += __builtin_popcount(a_words[d_row(lane, i)][word] &
                                                              b_words[d_column(lane, i)][word]);
        },
        where);
}

void mma_int8(int32_t *d, const uint32_t *a, const uint32_t *b, bool a_signed, bool b_signed, Where where) {
    Mma mine = {d, a, b};
    meet(
        ~0u, "mma_int8", mine,
        [=](const std::vector<int> &, Mma *const *all) {
            need_whole_warp(all);
            auto number = [](const uint32_t *registers, int i, bool is_signed) {
                uint8_t byte = static_cast<uint8_t>(registers[i / 4] >> (i % 4 * 8));
                return is_signed ? static_cast<int>(static_cast<int8_t>(byte)) : static_cast<int>(byte);
            };
            int a_numbers[16][32], b_numbers[32][8];
            for (int lane = 0; lane < 32; lane++) {
                for (int i = 0; i < 16;
                     i++) { // row g for registers 0 and 2; column + 16 for registers 2 and 3
                    int row = i / 4 % 2 == 0 ? lane >> 2 : (lane >> 2) + 8;
                    a_numbers[row][(lane % 4) * 4 + i % 4 + (i >= 8 ? 16 : 0)] =
                        number(all[lane]->a, i, a_signed);
                }
                for (int i = 0; i < 8; i++)
                    b_numbers[(lane % 4) * 4 + i % 4 + (i >= 4 ? 16 : 0)][lane >> 2] =
                        number(all[lane]->b, i, b_signed);
            }
            for (int lane = 0; lane < 32; lane++)
                for (int i = 0; i < 4; i++)
                    for (int k = 0; k < 32; k++)
                        all[lane]->d[i] += a_numbers[d_row(lane, i)][k] * b_numbers[k][d_column(lane, i)];
        },
        where);
}

// ---- ldmatrix ----
struct Load {
    uint32_t *registers;
    uint32_t address;
    const Fiber *fiber;
};

void load_matrix(uint32_t *registers, int count, uint32_t address, Where where) {
    Load mine = {registers, address, &self()};
    meet(
        ~0u, "ldmatrix", mine,
        [&](const std::vector<int> &fibers, Load *const *all) {
            if (fibers.size() != 32)
                fail("ldmatrix in a warp of fewer than 32 threads");
            for (int i = 0; i < count; i++) {
                for (int row = 0; row < 8; row++) {
                    const Load &from = *all[i * 8 + row];
                    int rank = from.fiber->rank;
                    const uint8_t *bytes = shared_pointer(rank, from.address, 16, 16, "ldmatrix", where);
                    shared_access(rank, from.address, 16, Access::read, *from.fiber, 0, where);
                    for (int q = 0; q < 4; q++)
                        memcpy(&all[row * 4 + q]->registers[i], bytes + q * 4, 4);
                }
            }
        },
        where);
}

} // namespace onebit_emulation
