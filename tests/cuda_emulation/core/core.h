// Inside the emulator. The blocks of one cluster (one block, without clusters) run together on one OS thread,
// each of their threads a fiber. A fiber runs until it waits (barrier, warp collective, mbarrier, ...) or
// ends; then the scheduler resumes another, chosen at random from a given seed. This code is compiled
// plainly; the kernel is compiled with -fsanitize=thread, whose callbacks memory.cpp defines: so every access
// of a kernel is seen.
#pragma once
#include <stdint.h>

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "interface.h"

namespace onebit_emulation {

constexpr int kMostFibers = 2048;
constexpr uint32_t kNever = 0xffffffffu; // the clock of an asynchronous write that nobody has waited for

// What an agent knows to have happened before now: the latest clock of each agent. Agents are the fibers,
// then kEngines that stand for the copy engine (one a hashed mbarrier), then one for each block: all fibers
// of that block, which a __syncthreads sets; then one for each warpgroup: its wgmma operations, which run
// beside its threads.
using Clocks = std::vector<uint32_t>;
constexpr int kEngines = 64;

// Asynchronous work. It is executed once: at once, at a random later moment, or when a wait forces it.
struct Async {
    std::function<void()> execute;
    bool done = false;
};
using Work = std::shared_ptr<Async>;

struct Copy { // one cp.async
    Work work;
    uint32_t address, bytes;
};

struct Fiber : Thread {
    int index = 0;          // in the cluster
    int rank = 0;           // of its block in the cluster
    int lane = 0, warp = 0; // warp: in the cluster
    void *stack_pointer = nullptr;
    enum { ready, waiting, done } state = ready;
    const void *key = nullptr; // what it waits for
    std::string waits_for;
    Where where = {"", 0};
    uint32_t clock = 0;
    uint32_t proxy_fence = 0; // its clock at its last fence.proxy.async
    Clocks known;
    std::vector<Copy> open_copies;                   // since the last commit
    std::vector<std::vector<Copy>> committed_copies; // groups, oldest first
};

struct Launch {      // mirrored in ../device.py
    uint32_t kernel; // its place in onebit_emulation_kernels
    Dim3 grid, block;
    uint32_t shared_bytes, seed, ranges, strict;
    const uint64_t *range_begin; // global memory that the kernel may touch
    const uint64_t *range_end;
    void **args;
};

struct Cluster {
    Launch launch;
    Dim3 shape;                  // in blocks
    int threads = 0, blocks = 0; // threads of a block, blocks of a cluster
    std::vector<Fiber> fibers;
    std::vector<int> ready;
    int live = 0;
    std::vector<Work> pending;
    uint32_t sequence = 1; // source of all clocks
    std::mt19937 random;
    std::string error;
};
extern Cluster cluster;

// ---- fibers.cpp ----
[[noreturn]] void fail(const std::string &message); // ends the launch
std::string place(const Where &where);
std::string name(const Fiber &fiber); // "thread (3,0,0) of block (0,0,0)"
std::string name(int agent);
Fiber &self();
void wait(const void *key, const char *what, const Where &where); // until wake(key)
void wake(const void *key);
void submit(const Work &work, bool must_progress);
void force(const Work &work);
uint32_t draw(uint32_t below);

// ---- order.cpp: happened-before ----
int engine_agent(int rank, uint32_t barrier);
int warpgroup_agent(int fiber);
size_t agent_count();
bool before(int agent, uint32_t clock, const Clocks &known, int reader);
void release(Fiber &fiber, Clocks &into); // the fiber's past becomes part of `into`
void acquire(Clocks &known, const Clocks &from);
void order(const std::vector<int> &fibers);       // as a barrier among these does
void order_blocks(int first_rank, int last_rank); // a barrier of all threads of these blocks

// ---- memory.cpp ----
enum class Access { read, write, atomic };
void prepare_shared();
uint8_t *shared_pointer(int rank, uint32_t address, uint32_t bytes, uint32_t alignment, const char *what,
                        const Where &where);
void check_global(const void *address, uint32_t bytes, uint32_t alignment,
                  const std::function<std::string()> &what);
void shared_access(int rank, uint32_t address, uint32_t bytes, Access access, const Fiber &fiber,
                   uintptr_t pc, const Where &where);
// A write by an asynchronous agent; `known` is what its issuer knew.
void async_write(int rank, uint32_t address, uint32_t bytes, int agent, uint32_t clock, const Clocks &known,
                 int issuer, const Where &where);
void settle_write(int rank, uint32_t address, uint32_t bytes, int agent, uint32_t clock);
// A read through the async proxy (wgmma) by `agent`, issued by `fiber`: what was written must be ordered
// before it and fenced.
void async_read(int rank, uint32_t address, uint32_t bytes, int agent, uint32_t clock, const Fiber &fiber,
                const Clocks &known, const Where &where);

// ---- state of a cluster in barriers.cpp, warps.cpp, wgmma.cpp, cleared before the next ----
void reset_barriers();
void reset_warps();
void reset_wgmma();
void block_thread_ended(int rank);
void complete_tx(int rank, uint32_t barrier, uint32_t bytes, const Clocks &known, const Where &where);
void note_remote(int rank, int agent, uint32_t clock,
                 const Where &where); // access to another block's shared memory
void check_barriers_at_end();
std::string missing(const void *key); // what an mbarrier still waits for; empty if it is none
// A rendezvous of the fibers [first, first + count) of the cluster whose bit is set in `mask` (all, if count
// > 32). The last to come runs `act` on what each brought; the others wait.
void *rendezvous(int first, int count, uint32_t mask, const char *what, void *mine,
                 const std::function<void(const std::vector<int> &, void *const *)> &act, const Where &where);

} // namespace onebit_emulation
