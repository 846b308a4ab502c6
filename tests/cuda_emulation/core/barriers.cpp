// Barriers of a block and of a cluster, and mbarriers.
#include "core.h"

namespace onebit_emulation {

// ---- bar.sync, bar.arrive, __syncthreads ----
struct Barrier {
    std::vector<int> waiting;
    int arrived = 0, expected = 0, trues = 0, last_trues = 0;
    Clocks clocks; // of those who arrived without waiting
};

static std::map<std::pair<int, int>, Barrier> barriers; // by rank of the block and number
static std::vector<int> live_threads;                   // a block

static void try_to_complete(int rank, int id, Barrier &barrier) {
    bool whole = id == 0;
    if (barrier.arrived == 0 || barrier.arrived < (whole ? live_threads[rank] : barrier.expected))
        return;
    if (whole) {
        order_blocks(rank, rank);
    } else {
        for (int i : barrier.waiting)
            release(cluster.fibers[i], barrier.clocks);
        for (int i : barrier.waiting)
            acquire(cluster.fibers[i].known, barrier.clocks);
    }
    barrier.last_trues = barrier.trues;
    barrier.arrived = barrier.trues = 0;
    barrier.waiting.clear();
    barrier.clocks.clear();
    wake(&barrier);
}

static Barrier &arrive_at(int id, int threads, const char *what, const Where &where) {
    if (id < 0 || id > 15)
        fail(std::string(what) + " at " + place(where) + ": no barrier " + std::to_string(id));
    if (threads % 32 || (id != 0 && threads <= 0))
        fail(std::string(what) + " at " + place(where) + ": the count must be a multiple of 32, not " +
             std::to_string(threads));
    Barrier &barrier = barriers[{self().rank, id}];
    if (barrier.arrived && barrier.expected != threads)
        fail(std::string(what) + " at " + place(where) + ": " + std::to_string(threads) +
             " threads, but others of barrier " + std::to_string(id) + " said " +
             std::to_string(barrier.expected));
    barrier.expected = threads;
    barrier.arrived++;
    return barrier;
}

void barrier_sync(int id, int threads, Where where) {
    const char *what = id == 0 ? "__syncthreads" : "named barrier";
    Barrier &barrier = arrive_at(id, id == 0 ? 0 : threads, what, where);
    barrier.waiting.push_back(self().index);
    int complete = barrier.arrived;
    try_to_complete(self().rank, id, barrier);
    if (barrier.arrived == complete)
        wait(&barrier, what, where);
}

void barrier_arrive(int id, int threads, Where where) {
    Barrier &barrier = arrive_at(id, threads, "barrier arrival", where);
    release(self(), barrier.clocks);
    try_to_complete(self().rank, id, barrier);
}

int barrier_count(int predicate, Where where) {
    barriers[{self().rank, 0}].trues += predicate != 0;
    barrier_sync(0, 0, where);
    return barriers[{self().rank, 0}].last_trues;
}

// ---- clusters ----
static int cluster_waiting;

uint32_t cluster_rank() {
    return static_cast<uint32_t>(self().rank);
}

void cluster_sync(Where where) {
    if (++cluster_waiting < cluster.live) {
        wait(&cluster_waiting, "cluster_sync", where);
        return;
    }
    cluster_waiting = 0;
    order_blocks(0, cluster.blocks - 1);
    wake(&cluster_waiting);
}

void block_thread_ended(int rank) {
    live_threads[rank]--;
    auto found = barriers.find({rank, 0});
    if (found != barriers.end())
        try_to_complete(rank, 0, found->second);
    if (cluster_waiting && cluster_waiting == cluster.live)
        fail("a thread ended while others wait in cluster_sync: their shared memory may be gone");
}

// ---- mbarriers ----
struct Mbarrier {
    int arrivals = 0, pending = 0;
    int64_t bytes = 0;
    uint32_t phase = 0;
    int initialiser = 0;
    uint32_t init_clock = 0;
    bool fenced = false;
    Clocks clocks;
};

static std::map<std::pair<int, uint32_t>, Mbarrier> mbarriers; // by rank of the block and address

static Mbarrier &find(int rank, uint32_t address, const char *what, const Where &where) {
    auto found = mbarriers.find({rank, address});
    if (found == mbarriers.end())
        fail(std::string(what) + " at " + place(where) + ": no mbarrier was initialised at shared address " +
             std::to_string(address));
    return found->second;
}

static void check_initialised(const Mbarrier &barrier, int rank, const char *what, const Where &where) {
    Fiber &fiber = self();
    if (!before(barrier.initialiser, barrier.init_clock, fiber.known, fiber.index))
        fail(std::string(what) + " at " + place(where) + ": " + name(fiber) +
             " is not synchronised with the thread that initialised the mbarrier");
    if (rank != fiber.rank && !barrier.fenced)
        fail(std::string(what) + " at " + place(where) + ": no mbarrier_init_fence after the initialisation");
}

// Accesses to the shared memory of another block, the latest of each agent: that block must not have ended,
// so one of its threads must come to know of the access.
struct Remote {
    uint32_t clock = 0;
    Where where = {"", 0};
};
static std::map<std::pair<int, int>, Remote> remotes; // by rank of the block and agent

void note_remote(int rank, int agent, uint32_t clock, const Where &where) {
    remotes[{rank, agent}] = {clock, where};
}

static void check_remotes() {
    for (auto &[key, access] : remotes) {
        bool known = false;
        for (const Fiber &fiber : cluster.fibers)
            known = known ||
                    (fiber.rank == key.first && before(key.second, access.clock, fiber.known, fiber.index));
        if (!known)
            fail("a block of the cluster may have ended when " + name(key.second) +
                 " uses its shared memory at " + place(access.where) + ": nothing makes it wait for that");
    }
}

static void try_to_end_phase(Mbarrier &barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0)
        return;
    barrier.phase++;
    barrier.pending = barrier.arrivals;
    wake(&barrier);
}

void mbarrier_init(uint32_t address, int arrivals, Where where) {
    Fiber &fiber = self();
    shared_pointer(fiber.rank, address, 8, 8, "mbarrier_init", where);
    shared_access(fiber.rank, address, 8, Access::write, fiber, 0, where);
    if (arrivals < 1)
        fail("mbarrier_init at " + place(where) + ": " + std::to_string(arrivals) + " arrivals");
    Mbarrier &barrier = mbarriers[{fiber.rank, address}];
    barrier = Mbarrier();
    barrier.arrivals = barrier.pending = arrivals;
    barrier.initialiser = fiber.index;
    barrier.init_clock = fiber.clock;
}

void mbarrier_init_fence() {
    for (auto &[key, barrier] : mbarriers)
        if (barrier.initialiser == self().index)
            barrier.fenced = true;
    proxy_fence();
}

void mbarrier_arrive(uint32_t address, uint32_t rank, uint32_t expected_bytes, Where where) {
    Fiber &fiber = self();
    if (rank >= static_cast<uint32_t>(cluster.blocks))
        fail("mbarrier_arrive at " + place(where) + ": the cluster has no block " + std::to_string(rank));
    int r = static_cast<int>(rank);
    Mbarrier &barrier = find(r, address, "mbarrier_arrive", where);
    check_initialised(barrier, r, "mbarrier_arrive", where);
    shared_access(r, address, 8, Access::atomic, fiber, 0, where);
    if (r != fiber.rank)
        note_remote(r, fiber.index, fiber.clock, where);
    if (barrier.pending == 0)
        fail("mbarrier_arrive at " + place(where) + ": more arrivals in one phase than the " +
             std::to_string(barrier.arrivals) + " of mbarrier_init");
    barrier.bytes += expected_bytes;
    barrier.pending--;
    release(fiber, barrier.clocks);
    try_to_end_phase(barrier);
}

void mbarrier_wait(uint32_t address, uint32_t parity, Where where) {
    Fiber &fiber = self();
    if (parity > 1)
        fail("mbarrier_wait at " + place(where) + ": parity " + std::to_string(parity));
    for (;;) {
        Mbarrier &barrier = find(fiber.rank, address, "mbarrier_wait", where);
        check_initialised(barrier, fiber.rank, "mbarrier_wait", where);
        if ((barrier.phase & 1) != parity) {
            acquire(fiber.known, barrier.clocks);
            return;
        }
        std::string what = "mbarrier_wait for parity " + std::to_string(parity);
        wait(&barrier, what.c_str(), where);
    }
}

void complete_tx(int rank, uint32_t address, uint32_t bytes, const Clocks &known, const Where &where) {
    Mbarrier &barrier = find(rank, address, "tma_load", where);
    if (!barrier.fenced)
        fail("tma_load at " + place(where) + ": no mbarrier_init_fence after the initialisation");
    barrier.bytes -= bytes;
    if (barrier.clocks.empty())
        barrier.clocks.assign(known.size(), 0);
    acquire(barrier.clocks, known);
    try_to_end_phase(barrier);
}

std::string missing(const void *key) {
    for (auto &[where, barrier] : mbarriers)
        if (&barrier == key)
            return " (" + std::to_string(barrier.pending) + " arrivals and " + std::to_string(barrier.bytes) +
                   " bytes are missing)";
    return "";
}

void check_barriers_at_end() {
    for (auto &[key, barrier] : mbarriers)
        if (barrier.bytes != 0)
            fail("the block ended while an mbarrier still waits for " + std::to_string(barrier.bytes) +
                 " bytes");
    check_remotes();
}

void reset_barriers() {
    barriers.clear();
    mbarriers.clear();
    remotes.clear();
    cluster_waiting = 0;
    live_threads.assign(cluster.blocks, cluster.threads);
}

} // namespace onebit_emulation
