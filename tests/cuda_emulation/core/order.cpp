// Which access happened before which, by vector clocks. A fiber's clock rises whenever its past is handed on
// (barrier, arrival); an access at clock c of agent g is ordered before what a fiber does now if the fiber
// knows g's clock c or a later one. Shuffles and votes order nothing, as on the GPU.
#include <algorithm>

#include "core.h"

namespace onebit_emulation {

static int fiber_count() {
    return static_cast<int>(cluster.fibers.size());
}

int engine_agent(int rank, uint32_t barrier) {
    return fiber_count() + (rank * 8 + barrier / 8) % kEngines;
}

static int block_agent(int rank) {
    return fiber_count() + kEngines + rank;
}

int warpgroup_agent(int fiber) {
    int groups_a_block = (cluster.threads + 127) / 128;
    return block_agent(cluster.blocks) + cluster.fibers[fiber].rank * groups_a_block +
           fiber % cluster.threads / 128;
}

size_t agent_count() {
    return fiber_count() + kEngines + cluster.blocks * (1 + (cluster.threads + 127) / 128);
}

bool before(int agent, uint32_t clock, const Clocks &known, int reader) {
    if (agent == reader)
        return clock != kNever;
    if (clock <= known[agent])
        return true;
    return agent < fiber_count() && clock <= known[block_agent(cluster.fibers[agent].rank)];
}

void acquire(Clocks &known, const Clocks &from) {
    if (from.empty())
        return;
    for (size_t i = 0; i < known.size(); i++)
        known[i] = std::max(known[i], from[i]);
}

void release(Fiber &fiber, Clocks &into) {
    if (into.empty())
        into.assign(fiber.known.size(), 0);
    acquire(into, fiber.known);
    into[fiber.index] = std::max(into[fiber.index], fiber.clock);
    fiber.clock = ++cluster.sequence;
}

void order(const std::vector<int> &fibers) {
    Clocks all;
    for (int i : fibers)
        release(cluster.fibers[i], all);
    for (int i : fibers)
        cluster.fibers[i].known = all;
}

void order_blocks(int first_rank, int last_rank) {
    Clocks all;
    uint32_t now = cluster.sequence;
    for (Fiber &fiber : cluster.fibers)
        if (fiber.rank >= first_rank && fiber.rank <= last_rank) {
            if (all.empty())
                all = fiber.known;
            acquire(all, fiber.known);
        }
    for (int rank = first_rank; rank <= last_rank; rank++)
        all[block_agent(rank)] = now;
    uint32_t next = ++cluster.sequence;
    for (Fiber &fiber : cluster.fibers)
        if (fiber.rank >= first_rank && fiber.rank <= last_rank) {
            fiber.known = all;
            fiber.clock = next;
        }
}

} // namespace onebit_emulation
