// Asynchronous copies into shared memory: cp.async and the copy engine (TMA).
#include <string.h>

#include <algorithm>

#include "core.h"

namespace onebit_emulation {

// ---- cp.async: done when its thread waits for its group; seen by others after a barrier behind that ----
void copy_async(uint32_t shared, const void *global, uint32_t bytes, uint32_t source_bytes, Where where) {
    Fiber &fiber = self();
    int rank = fiber.rank, index = fiber.index;
    if ((bytes != 4 && bytes != 8 && bytes != 16) || source_bytes > bytes)
        fail("cp.async at " + place(where) + ": " + std::to_string(bytes) + " bytes");
    uint8_t *to = shared_pointer(rank, shared, bytes, bytes, "cp.async", where);
    if (source_bytes)
        check_global(global, source_bytes, bytes,
                     [&] { return name(fiber) + ", cp.async at " + place(where); });
    Work work = std::make_shared<Async>();
    Clocks known = fiber.known;
    work->execute = [=] {
        async_write(rank, shared, bytes, index, kNever, known, index, where);
        memset(to, 0, bytes);
        if (source_bytes)
            memcpy(to, global, source_bytes);
    };
    fiber.open_copies.push_back({work, shared, bytes});
    submit(work, false);
}

void copy_async_commit() {
    Fiber &fiber = self();
    fiber.committed_copies.push_back(std::move(fiber.open_copies));
    fiber.open_copies.clear();
}

void copy_async_wait(int groups_left) {
    Fiber &fiber = self();
    auto &groups = fiber.committed_copies;
    while (static_cast<int>(groups.size()) > groups_left) {
        for (Copy &copy : groups.front()) {
            force(copy.work);
            settle_write(fiber.rank, copy.address, copy.bytes, fiber.index, fiber.clock);
        }
        groups.erase(groups.begin());
    }
}

// ---- TMA ----
void proxy_fence() {
    Fiber &fiber = self();
    fiber.proxy_fence = fiber.clock;
    fiber.clock = ++cluster.sequence;
}

static TensorMapFields read_map(const void *map, const Where &where) {
    TensorMapFields fields;
    if (reinterpret_cast<uintptr_t>(map) % 64)
        fail("tma_load at " + place(where) + ": a map not aligned to 64 bytes");
    memcpy(&fields, map, sizeof fields);
    if (fields.magic != kTensorMapMagic)
        fail("tma_load at " + place(where) + ": the argument is no tensor map");
    return fields;
}

// Where the byte at `address` of an unswizzled box goes: 16-byte chunks change places within 8 (4, 2) times
// 128 bytes, by the address bits above them.
static uint32_t swizzled(uint32_t address, uint64_t swizzle) {
    uint32_t chunks = swizzle == 128 ? 7 : swizzle == 64 ? 3 : swizzle == 32 ? 1 : 0;
    return address ^ ((address >> 7 & chunks) << 4);
}

static void load_box(int rank, uint32_t shared, const TensorMapFields &map, int64_t column, int64_t row) {
    const uint8_t *from = reinterpret_cast<const uint8_t *>(map.address);
    for (uint64_t i = 0; i < map.box_rows; i++) {
        for (uint64_t j = 0; j < map.box_bytes; j++) {
            int64_t r = row + static_cast<int64_t>(i), c = column + static_cast<int64_t>(j);
            bool inside = r >= 0 && c >= 0 && r < static_cast<int64_t>(map.rows) &&
                          c < static_cast<int64_t>(map.row_bytes);
            uint32_t address = swizzled(static_cast<uint32_t>(shared + i * map.box_bytes + j), map.swizzle);
            *shared_pointer(rank, address, 1, 1, "tma_load", {"", 0}) =
                inside ? from[r * map.row_bytes + c] : 0;
        }
    }
}

void tensor_load(uint32_t shared, const void *map, int column, int row, uint32_t barrier, uint32_t blocks,
                 Where where) {
    Fiber &fiber = self();
    int issuer = fiber.index;
    TensorMapFields fields = read_map(map, where);
    uint32_t bytes = static_cast<uint32_t>(fields.box_rows * fields.box_bytes);
    if (blocks == 0 || blocks >> cluster.blocks)
        fail("tma_load at " + place(where) + ": blocks that the cluster does not have");
    Clocks known = fiber.known;
    known[issuer] = fiber.clock;
    fiber.clock = ++cluster.sequence;
    for (int rank = 0; rank < cluster.blocks; rank++) {
        if (!(blocks >> rank & 1))
            continue;
        shared_pointer(rank, shared, bytes, 128, "tma_load", where);
        Work work = std::make_shared<Async>();
        work->execute = [=] {
            int agent = engine_agent(rank, barrier);
            uint32_t clock = ++cluster.sequence;
            async_write(rank, shared, bytes, agent, clock, known, issuer, where);
            load_box(rank, shared, fields, column, row);
            Clocks after = known;
            after[agent] = clock;
            if (rank != cluster.fibers[issuer].rank)
                note_remote(rank, agent, clock, where);
            complete_tx(rank, barrier, bytes, after, where);
        };
        submit(work, true);
    }
}

} // namespace onebit_emulation
