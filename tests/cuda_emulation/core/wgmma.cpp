// wgmma for b1 operands, from the PTX ISA's sections on asynchronous warpgroup-level matrix instructions.
//
// An operation is issued by the 128 threads of a warpgroup and reads shared memory at any moment until a
// wgmma_wait that covers its group has returned; till then its accumulator registers belong to it. Here they
// hold noise meanwhile, and the result is handed to each thread in its wait.
#include <string.h>

#include <algorithm>

#include "core.h"

namespace onebit_emulation {

constexpr int kGroup = 128;

struct Tile { // accumulators that operations are using: 64 × n numbers
    int n = 0;
    int32_t *registers[kGroup];
    std::vector<int32_t> values;
    int last_group = 0; // number of the commit group of its last operation
    bool delivered[kGroup] = {};
    int deliveries = 0;
};

struct Group { // of operations
    std::vector<Work> works;
    uint32_t clock = 0; // of the last
};

struct Warpgroup {
    uint32_t fences[kGroup] = {}; // how many wgmma_fence each thread has done
    std::vector<std::shared_ptr<Tile>> tiles;
    std::vector<Group> groups{1}; // the last one is open
    int retired = 0;              // groups below this number are done
    Work latest;
    // What the registers held when they were last handed back, and the fences done until then.
    struct Returned {
        std::vector<int32_t> values;
        uint32_t fences;
    };
    std::map<std::pair<int, int32_t *>, Returned> returned; // by thread and register
};

static std::map<int, Warpgroup> warpgroups; // by first fiber

void reset_wgmma() {
    warpgroups.clear();
}

static int first_of_group() {
    return self().index - self().index % cluster.threads % kGroup;
}
static int place_in_group() {
    return self().index % cluster.threads % kGroup;
}

// Accumulator i of a thread is D(16·warp + lane / 4 + 8·(i / 2 % 2), 8·(i / 4) + lane % 4 · 2 + i % 2).
static int tile_index(int n, int thread, int i) {
    int lane = thread % 32;
    return (thread / 32 * 16 + lane / 4 + (i / 2 % 2) * 8) * n + i / 4 * 8 + lane % 4 * 2 + i % 2;
}

// ---- operands ----
struct Operand {
    uint32_t start, leading, stride;
    int swizzle; // bytes
};

static Operand decode(uint64_t descriptor, const Where &where) {
    static const int swizzles[4] = {0, 128, 64, 32};
    Operand operand = {static_cast<uint32_t>(descriptor & 0x3fff) << 4,
                       static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4,
                       static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4, swizzles[descriptor >> 62]};
    if (descriptor >> 49 & 7)
        fail("wgmma at " + place(where) + ": a base offset, which the emulator does not know");
    uint32_t period = static_cast<uint32_t>(operand.swizzle) * 8;
    if (operand.swizzle && operand.start % period >= static_cast<uint32_t>(operand.swizzle))
        fail("wgmma at " + place(where) +
             ": the operand does not start in the first row of a swizzle period");
    return operand;
}

// The shared address of 16-byte chunk c (0 or 1) of row r of a K-major operand of 32 bytes a row.
static uint32_t chunk_address(const Operand &operand, int r, int c) {
    uint32_t group = static_cast<uint32_t>(r / 8) * operand.stride, row = static_cast<uint32_t>(r % 8);
    if (operand.swizzle == 0)
        return operand.start + group + static_cast<uint32_t>(c) * operand.leading + row * 16;
    uint32_t address =
        operand.start + group + row * static_cast<uint32_t>(operand.swizzle) + static_cast<uint32_t>(c) * 16;
    uint32_t chunks = static_cast<uint32_t>(operand.swizzle) / 16 - 1;
    return address ^ ((address >> 7 & chunks) << 4);
}

static std::vector<uint64_t> read_operand(const Operand &operand, int rows, const Fiber &reader,
                                          uint32_t clock, const Clocks &known, const Where &where) {
    std::vector<uint64_t> bits(static_cast<size_t>(rows) * 4);
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < 2; c++) {
            uint32_t address = chunk_address(operand, r, c);
            const uint8_t *bytes = shared_pointer(reader.rank, address, 16, 16, "wgmma", where);
            async_read(reader.rank, address, 16, warpgroup_agent(reader.index), clock, reader, known, where);
            memcpy(&bits[static_cast<size_t>(r) * 4 + c * 2], bytes, 16);
        }
    }
    return bits;
}

static void multiply(Tile &tile, const std::vector<uint64_t> &a, const std::vector<uint64_t> &b, bool add) {
    for (int i = 0; i < 64; i++) {
        for (int j = 0; j < tile.n; j++) {
            int sum = 0;
            for (int k = 0; k < 4; k++)
                sum += __builtin_popcountll(a[i * 4 + k] & b[static_cast<size_t>(j) * 4 + k]);
            int32_t &d = tile.values[static_cast<size_t>(i) * tile.n + j];
            d = (add ? d : 0) + sum;
        }
    }
}

// ---- issuing ----
struct Issue {
    int32_t *d;
    int n;
    uint64_t a, b;
    bool add;
};

// wgmma_fence orders what the threads do with registers before what wgmma does with them. It must follow each
// use of the registers by the threads; adding to registers that nobody changed needs none.
static void check_fences(Warpgroup &group, const Tile &tile, bool add, const Where &where) {
    for (int t = 0; t < kGroup; t++) {
        auto found = group.returned.find({t, tile.registers[t]});
        bool first = found == group.returned.end();
        if (first ? group.fences[t] > 0 : group.fences[t] > found->second.fences)
            continue;
        if (!first && add &&
            std::equal(found->second.values.begin(), found->second.values.end(), tile.registers[t]))
            continue;
        fail("wgmma at " + place(where) + ": no wgmma_fence between the use of the accumulators by " +
             name(first_of_group() + t) + " and this");
    }
}

static std::shared_ptr<Tile> take_tile(Warpgroup &group, Issue *const *all, const Where &where) {
    for (auto &tile : group.tiles) {
        if (tile->registers[0] != all[0]->d)
            continue;
        if (tile->deliveries)
            fail("wgmma at " + place(where) + ": not all threads of the warpgroup did wgmma_wait");
        if (tile->n != all[0]->n)
            fail("wgmma at " + place(where) + ": another shape for accumulators in use");
        return tile;
    }
    auto tile = std::make_shared<Tile>();
    tile->n = all[0]->n;
    tile->values.resize(static_cast<size_t>(64) * tile->n);
    for (int t = 0; t < kGroup; t++) {
        tile->registers[t] = all[t]->d;
        for (int i = 0; i < tile->n / 2; i++)
            tile->values[tile_index(tile->n, t, i)] = all[t]->d[i];
    }
    check_fences(group, *tile, all[0]->add, where);
    group.tiles.push_back(tile);
    return tile;
}

static void issue(Issue *const *all, const Where &where) {
    int first = first_of_group();
    for (int t = 1; t < kGroup; t++)
        if (all[t]->a != all[0]->a || all[t]->b != all[0]->b || all[t]->add != all[0]->add ||
            all[t]->n != all[0]->n)
            fail("wgmma at " + place(where) +
                 ": the threads of the warpgroup do not agree about the operands");
    Warpgroup &group = warpgroups[first];
    std::shared_ptr<Tile> tile = take_tile(group, all, where);
    tile->last_group = static_cast<int>(group.groups.size()) - 1;
    uint32_t noise = static_cast<uint32_t>(cluster.random());
    for (int t = 0; t < kGroup; t++)
        for (int i = 0; i < tile->n / 2; i++)
            tile->registers[t][i] = static_cast<int32_t>(noise += 0x9e3779b9u);
    Clocks known = cluster.fibers[first].known; // what all four warps know
    for (int warp = 1; warp < 4; warp++)
        for (size_t i = 0; i < known.size(); i++)
            known[i] = std::min(known[i], cluster.fibers[first + warp * 32].known[i]);
    Operand a = decode(all[0]->a, where), b = decode(all[0]->b, where);
    bool add = all[0]->add;
    uint32_t clock = group.groups.back().clock = ++cluster.sequence;
    Work work = std::make_shared<Async>();
    Work previous = group.latest;
    work->execute = [=]() mutable {
        if (previous)
            force(previous); // they are done in order
        previous.reset();
        const Fiber &reader = cluster.fibers[first];
        multiply(*tile, read_operand(a, 64, reader, clock, known, where),
                 read_operand(b, tile->n, reader, clock, known, where), add);
    };
    group.latest = work;
    group.groups.back().works.push_back(work);
    submit(work, false);
}

void wgmma_b1(int32_t *d, int n, uint64_t a, uint64_t b, bool add, Where where) {
    if (n % 8 || n < 8 || n > 256)
        fail("wgmma at " + place(where) + ": n = " + std::to_string(n));
    if (first_of_group() % cluster.threads + kGroup > cluster.threads)
        fail("wgmma at " + place(where) + ": the block has no whole warpgroup here");
    Issue mine = {d, n, a, b, add};
    rendezvous(
        first_of_group(), kGroup, ~0u, "wgmma_b1", &mine,
        [&](const std::vector<int> &, void *const *all) {
            issue(reinterpret_cast<Issue *const *>(all), where);
        },
        where);
}

void wgmma_fence(Where) {
    warpgroups[first_of_group()].fences[place_in_group()]++;
}

void wgmma_commit(Where where) {
    int nothing = 0;
    rendezvous(
        first_of_group(), kGroup, ~0u, "wgmma_commit", &nothing,
        [](const std::vector<int> &, void *const *) { warpgroups[first_of_group()].groups.emplace_back(); },
        where);
}

static void deliver(Warpgroup &group, Tile &tile, int thread) {
    Warpgroup::Returned &returned = group.returned[{thread, tile.registers[thread]}];
    returned.fences = group.fences[thread];
    returned.values.resize(static_cast<size_t>(tile.n) / 2);
    for (int i = 0; i < tile.n / 2; i++)
        returned.values[i] = tile.registers[thread][i] = tile.values[tile_index(tile.n, thread, i)];
    tile.delivered[thread] = true;
    tile.deliveries++;
}

void wgmma_wait(int groups_left, Where) {
    Warpgroup &group = warpgroups[first_of_group()];
    int retired =
        static_cast<int>(group.groups.size()) - 1 - groups_left; // groups below this number are done
    for (; group.retired < retired; group.retired++) {
        for (Work &work : group.groups[group.retired].works)
            force(work);
        group.groups[group.retired].works.clear();
    }
    if (retired > 0) { // whoever waited may hand on that the operands were read
        uint32_t &known = self().known[warpgroup_agent(self().index)];
        for (int i = retired - 1; i >= 0; i--) {
            if (group.groups[i].clock == 0)
                continue; // an empty group
            known = std::max(known, group.groups[i].clock);
            break;
        }
    }
    int thread = place_in_group();
    for (auto &tile : group.tiles)
        if (tile->last_group < retired && !tile->delivered[thread])
            deliver(group, *tile, thread);
    auto finished = [](const std::shared_ptr<Tile> &tile) { return tile->deliveries == kGroup; };
    group.tiles.erase(std::remove_if(group.tiles.begin(), group.tiles.end(), finished), group.tiles.end());
}

} // namespace onebit_emulation
