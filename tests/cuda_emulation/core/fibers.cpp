// Fibers, the scheduler and the launch of a grid.
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <algorithm>

#include "core.h"

extern "C" const onebit_emulation::Kernel onebit_emulation_kernels[]; // in the generated file

namespace onebit_emulation {

Cluster cluster;
Thread *current;
Dim3 block_size, grid_size;

uint32_t draw(uint32_t below) {
    return cluster.random() % below;
}

// ---- switching stacks ----
// A fiber starts as a stack whose saved state returns into fiber_main. The scheduler runs on the caller's
// stack.
static void *scheduler_stack;
static void fiber_main();

constexpr size_t kStackBytes = 256 * 1024, kGuardBytes = 16 * 1024;
static char *stacks; // one a fiber in a row, each with a guard below
uintptr_t stacks_begin, stacks_end;

// They are given back after each launch: every guard is a mapping, of which a process may have 65,530, and
// every kernel's library has stacks of its own.
static void free_stacks() {
    if (stacks)
        munmap(stacks, stacks_end - stacks_begin);
    stacks = nullptr;
    stacks_begin = stacks_end = 0;
}

static void make_stacks(int fibers) {
    free_stacks();
    size_t bytes = kStackBytes * static_cast<size_t>(fibers);
    void *memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory for the stacks of the emulated threads");
    stacks = static_cast<char *>(memory);
    for (int i = 0; i < fibers; i++)
        mprotect(stacks + i * kStackBytes, kGuardBytes, PROT_NONE);
    stacks_begin = reinterpret_cast<uintptr_t>(stacks);
    stacks_end = stacks_begin + bytes;
}

#if defined(__x86_64__)
// Saves the registers that a call must preserve, stores the stack pointer and continues on the other stack.
extern "C" void onebit_emulation_switch(void **from, void *to);
asm(R"(
.text
.hidden onebit_emulation_switch
.globl onebit_emulation_switch
.type onebit_emulation_switch, @function
onebit_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

static void start_fiber(Fiber &fiber) {
    char *top = stacks + (fiber.index + 1) * kStackBytes;
    void **slot =
        reinterpret_cast<void **>(top) - 2; // so that fiber_main starts with the alignment of a call
    *slot = reinterpret_cast<void *>(&fiber_main);
    fiber.stack_pointer = slot - 6;
}
static void enter(Fiber &fiber) {
    onebit_emulation_switch(&scheduler_stack, fiber.stack_pointer);
}
static void leave(Fiber &fiber) {
    onebit_emulation_switch(&fiber.stack_pointer, scheduler_stack);
}
#else
static ucontext_t contexts[kMostFibers], scheduler_context;
static void start_fiber(Fiber &fiber) {
    ucontext_t &context = contexts[fiber.index];
    getcontext(&context);
    context.uc_stack.ss_sp = stacks + fiber.index * kStackBytes + kGuardBytes;
    context.uc_stack.ss_size = kStackBytes - kGuardBytes;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
}
static void enter(Fiber &fiber) {
    swapcontext(&scheduler_context, &contexts[fiber.index]);
}
static void leave(Fiber &fiber) {
    swapcontext(&contexts[fiber.index], &scheduler_context);
}
#endif

Fiber &self() {
    return static_cast<Fiber &>(*current);
}

static bool in_fiber;

static void fiber_main() {
    onebit_emulation_kernels[cluster.launch.kernel].body(cluster.launch.args);
    Fiber &fiber = self();
    fiber.state = Fiber::done;
    cluster.live--;
    block_thread_ended(fiber.rank);
    leave(fiber);
}

// ---- reports ----
std::string place(const Where &where) {
    std::string file = where.file;
    size_t cut = file.rfind('/');
    if (cut != std::string::npos)
        cut = file.rfind('/', cut - 1);
    if (cut != std::string::npos)
        file = file.substr(cut + 1);
    return file + ":" + std::to_string(where.line);
}

static std::string triple(Dim3 d) {
    return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

std::string name(const Fiber &fiber) {
    return "thread " + triple(fiber.thread) + " of block " + triple(fiber.block);
}

std::string name(int agent) {
    if (agent < static_cast<int>(cluster.fibers.size()))
        return name(cluster.fibers[agent]);
    return agent < static_cast<int>(cluster.fibers.size()) + kEngines ? "the copy engine" : "a wgmma";
}

struct Abandon {}; // thrown on the scheduler's own stack only

void fail(const std::string &message) {
    if (cluster.error.empty())
        cluster.error = message;
    if (!in_fiber)
        throw Abandon();
    leave(self()); // never resumed
    __builtin_unreachable();
}

void trap(Where where) {
    fail(name(self()) + " trapped at " + place(where));
}

// ---- waiting ----
void wait(const void *key, const char *what, const Where &where) {
    Fiber &fiber = self();
    fiber.state = Fiber::waiting;
    fiber.key = key;
    fiber.waits_for = what;
    fiber.where = where;
    leave(fiber);
}

void wake(const void *key) {
    for (Fiber &fiber : cluster.fibers) {
        if (fiber.state == Fiber::waiting && fiber.key == key) {
            fiber.state = Fiber::ready;
            cluster.ready.push_back(fiber.index);
        }
    }
}

// ---- asynchronous work ----
void force(const Work &work) {
    if (work->done)
        return;
    work->done = true;
    work->execute();
}

// Adversarial on purpose: some work is done at once (so that overwriting what others still read is caught),
// some only when it is waited for (so that a missing wait is caught), the rest at a random moment. Work whose
// completion others wait for (`must_progress`) is done in the end even if nobody forces it.
void submit(const Work &work, bool must_progress) {
    uint32_t choice = draw(3);
    if (choice == 0)
        force(work);
    else if (must_progress || choice == 1)
        cluster.pending.push_back(work);
}

static void run_one_pending() {
    size_t i = draw(static_cast<uint32_t>(cluster.pending.size()));
    Work work = cluster.pending[i];
    cluster.pending[i] = cluster.pending.back();
    cluster.pending.pop_back();
    force(work);
}

// ---- clusters and grids ----
[[noreturn]] static void report_deadlock() {
    std::map<std::string, std::vector<int>> places;
    for (Fiber &fiber : cluster.fibers)
        if (fiber.state == Fiber::waiting)
            places[fiber.waits_for + missing(fiber.key) + " at " + place(fiber.where)].push_back(fiber.index);
    std::string message = "deadlock in block " + triple(cluster.fibers[0].block) + ":";
    for (auto &[waits_for, threads] : places) {
        message += "\n  " + waits_for + ": threads";
        for (size_t i = 0; i < threads.size(); i++) {
            size_t last = i;
            while (last + 1 < threads.size() && threads[last + 1] == threads[last] + 1)
                last++;
            message += " " + std::to_string(threads[i]);
            if (last > i)
                message += "-" + std::to_string(threads[last]);
            i = last;
        }
    }
    message += "\n  ended: " + std::to_string(cluster.fibers.size() - cluster.live) + " threads";
    fail(message);
}

static void prepare_cluster(Dim3 first_block) {
    const Dim3 size = cluster.launch.block, shape = cluster.shape;
    int count = cluster.threads * cluster.blocks;
    cluster.fibers.assign(count, Fiber());
    cluster.ready.clear();
    cluster.pending.clear();
    cluster.live = count;
    cluster.sequence = 1;
    reset_barriers();
    reset_warps();
    reset_wgmma();
    prepare_shared();
    for (int i = 0; i < count; i++) {
        Fiber &fiber = cluster.fibers[i];
        fiber.index = i;
        fiber.rank = i / cluster.threads;
        unsigned t = static_cast<unsigned>(i % cluster.threads), b = static_cast<unsigned>(fiber.rank);
        fiber.lane = t % 32;
        fiber.warp = fiber.rank * ((cluster.threads + 31) / 32) + t / 32;
        fiber.thread = {t % size.x, t / size.x % size.y, t / size.x / size.y};
        fiber.block = {first_block.x + b % shape.x, first_block.y + b / shape.x % shape.y,
                       first_block.z + b / shape.x / shape.y};
        fiber.clock = ++cluster.sequence;
        fiber.known.assign(agent_count(), 0);
        start_fiber(fiber);
        cluster.ready.push_back(i);
    }
}

static void run_cluster(Dim3 first_block) {
    prepare_cluster(first_block);
    while (cluster.live > 0) {
        bool stuck = cluster.ready.empty();
        if (!cluster.pending.empty() && (stuck || draw(16) == 0)) {
            run_one_pending();
            continue;
        }
        if (stuck)
            report_deadlock();
        size_t i = draw(static_cast<uint32_t>(cluster.ready.size()));
        Fiber &fiber = cluster.fibers[cluster.ready[i]];
        cluster.ready[i] = cluster.ready.back();
        cluster.ready.pop_back();
        current = &fiber;
        in_fiber = true;
        enter(fiber);
        in_fiber = false;
        current = nullptr;
        if (!cluster.error.empty())
            throw Abandon();
    }
    while (!cluster.pending.empty())
        run_one_pending();
    check_barriers_at_end();
}

static void run_grid() {
    const Launch &launch = cluster.launch;
    cluster.threads = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
    Dim3 shape = cluster.shape = onebit_emulation_kernels[launch.kernel].cluster;
    cluster.blocks = static_cast<int>(shape.x * shape.y * shape.z);
    if (cluster.threads * cluster.blocks > kMostFibers)
        fail("too many threads a cluster for the emulator");
    make_stacks(cluster.threads * cluster.blocks);
    if (grid_size.x % shape.x || grid_size.y % shape.y || grid_size.z % shape.z)
        fail("the grid " + triple(grid_size) + " is no multiple of the cluster " + triple(shape));
    Dim3 clusters = {grid_size.x / shape.x, grid_size.y / shape.y, grid_size.z / shape.z};
    std::vector<uint32_t> shuffled(static_cast<size_t>(clusters.x) * clusters.y * clusters.z);
    for (size_t i = 0; i < shuffled.size(); i++)
        shuffled[i] = static_cast<uint32_t>(i);
    std::shuffle(shuffled.begin(), shuffled.end(), cluster.random); // blocks may run in any order
    for (uint32_t i : shuffled)
        run_cluster({i % clusters.x * shape.x, i / clusters.x % clusters.y * shape.y,
                     i / clusters.x / clusters.y * shape.z});
}

extern "C" const char *onebit_emulation_launch(const Launch *launch) {
    static std::string message;
    cluster.launch = *launch;
    cluster.random.seed(launch->seed);
    cluster.error.clear();
    grid_size = launch->grid;
    block_size = launch->block;
    in_fiber = false;
    current = nullptr;
    try {
        run_grid();
    } catch (const Abandon &) {
        message = cluster.error;
        free_stacks();
        return message.c_str();
    }
    free_stacks();
    return nullptr;
}

} // namespace onebit_emulation
