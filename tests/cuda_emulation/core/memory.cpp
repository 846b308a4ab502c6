// Every access of a kernel to memory: bounds, alignment, and races on shared memory.
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "core.h"

namespace onebit_emulation {

extern uintptr_t stacks_begin, stacks_end;

// ---- shared memory: one buffer a block, with a shadow for every 4-byte word ----
// Shared addresses begin at kFirstAddress, so that 0 is never valid; they fit the 18 bits of a wgmma
// descriptor.
constexpr uint32_t kFirstAddress = 1024, kMostShared = 227 * 1024;

struct Touch { // who touched a word: an agent at one of its clocks
    uint32_t clock = 0;
    int32_t agent = -1;
    uint8_t bytes = 0;   // which bytes of the word
    bool generic = true; // not through the async proxy
    uint32_t pc = 0;
    Where where = {nullptr, 0};
};

struct Word {
    Touch write;
    std::vector<Touch> reads; // since then: the latest of each warp
};

struct SharedMemory {
    uint8_t *data = nullptr;
    std::vector<Word> words;
};

static SharedMemory shared_memory[16];

void prepare_shared() {
    uint32_t bytes = cluster.launch.shared_bytes;
    if (bytes > kMostShared)
        fail("a block asks for " + std::to_string(bytes) + " bytes of shared memory");
    if (cluster.blocks > 16)
        fail("more than 16 blocks a cluster");
    for (int rank = 0; rank < cluster.blocks; rank++) {
        SharedMemory &memory = shared_memory[rank];
        if (!memory.data)
            memory.data = static_cast<uint8_t *>(aligned_alloc(4096, 256 * 1024));
        for (uint32_t i = 0; i < bytes; i += 4) { // what nobody wrote is noise
            uint32_t noise = static_cast<uint32_t>(cluster.random());
            memcpy(memory.data + i, &noise, std::min(4u, bytes - i));
        }
        memory.words.assign((bytes + 3) / 4, Word());
    }
}

void *dynamic_shared() {
    return shared_memory[self().rank].data;
}

static bool in_shared(const void *address, int *rank, uint32_t *offset) {
    for (int i = 0; i < cluster.blocks; i++) {
        uintptr_t distance =
            reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(shared_memory[i].data);
        if (distance < 256 * 1024) {
            *rank = i;
            *offset = static_cast<uint32_t>(distance);
            return true;
        }
    }
    return false;
}

uint32_t shared_address(const void *pointer, Where where) {
    int rank;
    uint32_t offset;
    if (!in_shared(pointer, &rank, &offset) || rank != self().rank)
        fail(name(self()) + ": shared_address of a pointer not to its shared memory, at " + place(where));
    return kFirstAddress + offset;
}

static std::string site(uint32_t pc, const Where &where) {
    if (where.file)
        return " at " + place(where);
    char text[32];
    snprintf(text, sizeof text, " at <+0x%x>", pc); // ../device.py turns it into file and line
    return text;
}

uint8_t *shared_pointer(int rank, uint32_t address, uint32_t bytes, uint32_t alignment, const char *what,
                        const Where &where) {
    uint32_t offset = address - kFirstAddress;
    if (address < kFirstAddress || offset + static_cast<uint64_t>(bytes) > cluster.launch.shared_bytes)
        fail(std::string(what) + " at " + place(where) + ": bytes " +
             std::to_string(static_cast<int64_t>(offset)) + " to " +
             std::to_string(static_cast<int64_t>(offset) + bytes) + " of shared memory, which has " +
             std::to_string(cluster.launch.shared_bytes));
    if (address % alignment)
        fail(std::string(what) + " at " + place(where) + ": shared address " + std::to_string(offset) +
             " is no multiple of " + std::to_string(alignment));
    return shared_memory[rank].data + offset;
}

// ---- races ----
[[noreturn]] static void report_race(uint32_t offset, const char *does, const std::string &who,
                                     const std::string &at, const char *did, const Touch &other) {
    fail("race on bytes " + std::to_string(offset & ~3u) + "-" + std::to_string((offset & ~3u) + 3) +
         " of shared memory: " + who + " " + does + at + ", and " + name(other.agent) + " " + did +
         site(other.pc, other.where) + ", with nothing between that orders the two");
}

// Calls `act` for each word of the range, with a mask of the bytes that are in it.
template <class Act> static void each_word(int rank, uint32_t address, uint32_t bytes, Act act) {
    uint32_t offset = address - kFirstAddress, end = offset + bytes;
    for (uint32_t word = offset / 4; word * 4 < end; word++) {
        uint32_t from = std::max(offset, word * 4) - word * 4, to = std::min(end, word * 4 + 4) - word * 4;
        act(shared_memory[rank].words[word], word * 4, static_cast<uint8_t>((1u << to) - (1u << from)));
    }
}

// Of the threads of a warp the latest reader stands for all: they release together, or no barrier would do.
static int readers(int agent) {
    return agent < static_cast<int>(cluster.fibers.size()) ? cluster.fibers[agent].warp : -agent;
}

static void note_read(Word &word, const Touch &read) {
    for (Touch &other : word.reads) {
        if (readers(other.agent) == readers(read.agent)) {
            other = read;
            return;
        }
    }
    word.reads.push_back(read);
}

void shared_access(int rank, uint32_t address, uint32_t bytes, Access access, const Fiber &fiber,
                   uintptr_t pc, const Where &where) {
    Touch touch;
    touch.clock = fiber.clock;
    touch.agent = fiber.index;
    touch.pc = static_cast<uint32_t>(pc);
    touch.where = where;
    const char *does = access == Access::read ? "reads" : access == Access::write ? "writes" : "updates";
    each_word(rank, address, bytes, [&](Word &word, uint32_t offset, uint8_t mask) {
        const Touch &last = word.write;
        bool both_atomic = access == Access::atomic && last.generic && last.where.line == -1;
        if ((last.bytes & mask) && !both_atomic && !before(last.agent, last.clock, fiber.known, fiber.index))
            report_race(offset, does, name(fiber), site(touch.pc, where), "wrote", last);
        touch.bytes = mask;
        if (access == Access::read) {
            note_read(word, touch);
            return;
        }
        for (const Touch &read : word.reads)
            if ((read.bytes & mask) && !before(read.agent, read.clock, fiber.known, fiber.index))
                report_race(offset, does, name(fiber), site(touch.pc, where), "read", read);
        word.reads.clear();
        // Bytes of one word that one thread writes one after another count together.
        uint8_t others = last.agent == touch.agent && last.clock == touch.clock ? last.bytes : 0;
        word.write = touch;
        word.write.bytes |= others;
        if (access == Access::atomic)
            word.write.where.line = -1;
    });
}

void async_write(int rank, uint32_t address, uint32_t bytes, int agent, uint32_t clock, const Clocks &known,
                 int issuer, const Where &where) {
    Touch touch;
    touch.clock = clock;
    touch.agent = agent;
    touch.generic = false;
    touch.where = where;
    each_word(rank, address, bytes, [&](Word &word, uint32_t offset, uint8_t mask) {
        const Touch &last = word.write;
        if ((last.bytes & mask) && !before(last.agent, last.clock, known, issuer))
            report_race(offset, "copies to it,", name(issuer), site(0, where), "wrote", last);
        for (const Touch &read : word.reads)
            if (!before(read.agent, read.clock, known, issuer))
                report_race(offset, "copies to it,", name(issuer), site(0, where), "read", read);
        word.reads.clear();
        touch.bytes = mask;
        word.write = touch;
    });
}

void settle_write(int rank, uint32_t address, uint32_t bytes, int agent, uint32_t clock) {
    each_word(rank, address, bytes, [&](Word &word, uint32_t, uint8_t) {
        if (word.write.agent == agent && word.write.clock == kNever)
            word.write.clock = clock;
    });
}

void async_read(int rank, uint32_t address, uint32_t bytes, int agent, uint32_t clock, const Fiber &fiber,
                const Clocks &known, const Where &where) {
    Touch touch;
    touch.clock = clock;
    touch.agent = agent;
    touch.where = where;
    each_word(rank, address, bytes, [&](Word &word, uint32_t offset, uint8_t mask) {
        const Touch &last = word.write;
        if (last.bytes && !before(last.agent, last.clock, known, fiber.index))
            report_race(offset, "multiplies it", name(fiber), site(0, where), "wrote", last);
        bool by_fiber = last.bytes && last.generic && last.agent < static_cast<int>(cluster.fibers.size());
        if (by_fiber && cluster.fibers[last.agent].proxy_fence < last.clock)
            fail("wgmma at " + place(where) + " reads byte " + std::to_string(offset) +
                 " of shared memory, which " + name(last.agent) + " wrote" + site(last.pc, last.where) +
                 " without fence_async_proxy after it");
        touch.bytes = mask;
        note_read(word, touch);
    });
}

// ---- global memory ----
static bool in_module(uintptr_t address) { // constants of the kernel's own library
    struct Search {
        uintptr_t address;
        bool found;
    } search = {address, false};
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *data) {
            Search *s = static_cast<Search *>(data);
            for (int i = 0; i < info->dlpi_phnum; i++) {
                const auto &part = info->dlpi_phdr[i];
                uintptr_t begin = info->dlpi_addr + part.p_vaddr;
                if (part.p_type == PT_LOAD && s->address - begin < part.p_memsz)
                    s->found = true;
            }
            return 0;
        },
        &search);
    return search.found;
}

void check_global(const void *address, uint32_t bytes, uint32_t alignment,
                  const std::function<std::string()> &what) {
    uint64_t begin = reinterpret_cast<uintptr_t>(address), end = begin + bytes;
    const Launch &launch = cluster.launch;
    auto text = [&] {
        char hex[32];
        snprintf(hex, sizeof hex, "0x%llx", static_cast<unsigned long long>(begin));
        std::string nearest;
        uint64_t distance = ~0ull;
        for (uint32_t i = 0; i < launch.ranges; i++) {
            uint64_t size = launch.range_end[i] - launch.range_begin[i];
            uint64_t off = begin < launch.range_begin[i] ? launch.range_begin[i] - begin
                           : end > launch.range_end[i]   ? end - launch.range_end[i]
                                                         : 0;
            if (off < distance) {
                distance = off;
                nearest = ", byte " + std::to_string(static_cast<int64_t>(begin - launch.range_begin[i])) +
                          " of a tensor of " + std::to_string(size);
            }
        }
        return std::string(hex) + nearest;
    };
    if (alignment > 1 && begin % alignment)
        fail(what() + ": misaligned access of " + std::to_string(bytes) + " bytes to " + text());
    for (uint32_t i = 0; i < launch.ranges; i++)
        if (begin >= launch.range_begin[i] && end <= launch.range_end[i])
            return;
    if (!launch.strict)
        return;
    fail(what() + ": out of bounds access of " + std::to_string(bytes) + " bytes to " + text());
}

static uintptr_t module_base() {
    static uintptr_t base = [] {
        Dl_info info;
        return dladdr(reinterpret_cast<void *>(&module_base), &info)
                   ? reinterpret_cast<uintptr_t>(info.dli_fbase)
                   : 0;
    }();
    return base;
}

static void check(const void *address, uint32_t bytes, uint32_t alignment, Access access, uintptr_t pc) {
    if (!current)
        return; // not in a kernel
    uintptr_t value = reinterpret_cast<uintptr_t>(address);
    if (value - stacks_begin < stacks_end - stacks_begin)
        return;
    uint32_t offset_of_pc = static_cast<uint32_t>(pc - module_base());
    int rank;
    uint32_t offset;
    const Where nowhere = {nullptr, 0};
    if (in_shared(address, &rank, &offset)) {
        auto what = [&] { return name(self()) + site(offset_of_pc, nowhere); };
        if (offset + static_cast<uint64_t>(bytes) > cluster.launch.shared_bytes)
            fail(what() + ": byte " + std::to_string(offset) + " of shared memory, which has " +
                 std::to_string(cluster.launch.shared_bytes));
        if (rank != self().rank)
            fail(what() + ": shared memory of another block");
        if (alignment > 1 && offset % alignment)
            fail(what() + ": misaligned access of " + std::to_string(bytes) + " bytes to shared memory");
        shared_access(rank, kFirstAddress + offset, bytes, access, self(), offset_of_pc, nowhere);
        return;
    }
    const Launch &launch = cluster.launch;
    for (uint32_t i = 0; i < launch.ranges; i++)
        if (value >= launch.range_begin[i] && value + bytes <= launch.range_end[i] && value % alignment == 0)
            return;
    uintptr_t fibers = reinterpret_cast<uintptr_t>(cluster.fibers.data()); // threadIdx and blockIdx
    if (value - fibers < cluster.fibers.size() * sizeof(Fiber) || in_module(value))
        return;
    check_global(address, bytes, alignment, [&] { return name(self()) + site(offset_of_pc, nowhere); });
}

void atomic_access(const void *address, uint32_t bytes) {
    check(address, bytes, bytes, Access::atomic, reinterpret_cast<uintptr_t>(__builtin_return_address(0)));
}

} // namespace onebit_emulation

// ---- what -fsanitize=thread calls ----
using onebit_emulation::Access;
#define ONEBIT_PC reinterpret_cast<uintptr_t>(__builtin_return_address(0))
#define ONEBIT_CALLBACKS(size)                                                                               \
    extern "C" void __tsan_read##size(void *a) {                                                             \
        onebit_emulation::check(a, size, size, Access::read, ONEBIT_PC);                                     \
    }                                                                                                        \
    extern "C" void __tsan_write##size(void *a) {                                                            \
        onebit_emulation::check(a, size, size, Access::write, ONEBIT_PC);                                    \
    }                                                                                                        \
    extern "C" void __tsan_unaligned_read##size(void *a) {                                                   \
        onebit_emulation::check(a, size, 1, Access::read, ONEBIT_PC);                                        \
    }                                                                                                        \
    extern "C" void __tsan_unaligned_write##size(void *a) {                                                  \
        onebit_emulation::check(a, size, 1, Access::write, ONEBIT_PC);                                       \
    }
ONEBIT_CALLBACKS(1)
ONEBIT_CALLBACKS(2)
ONEBIT_CALLBACKS(4)
ONEBIT_CALLBACKS(8)
ONEBIT_CALLBACKS(16)
extern "C" void __tsan_read_range(void *a, unsigned long size) {
    onebit_emulation::check(a, static_cast<uint32_t>(size), 1, Access::read, ONEBIT_PC);
}
extern "C" void __tsan_write_range(void *a, unsigned long size) {
    onebit_emulation::check(a, static_cast<uint32_t>(size), 1, Access::write, ONEBIT_PC);
}
extern "C" void __tsan_init() {
}
extern "C" void __tsan_func_entry(void *) {
}
extern "C" void __tsan_func_exit() {
}

// ---- what -fsanitize=alignment calls: a structure such as uint4 may be read field by field, unseen above
// ----
struct TypeMismatch { // as GCC lays it out
    const char *file;
    uint32_t line, column;
    const void *type;
    uint8_t log_alignment, kind;
};
extern "C" void __ubsan_handle_type_mismatch_v1(const TypeMismatch *found, const void *address) {
    using namespace onebit_emulation;
    fail(name(self()) + " at " + place({found->file, static_cast<int>(found->line)}) +
         ": misaligned access to " +
         std::to_string(reinterpret_cast<uintptr_t>(address) % (1u << found->log_alignment)) +
         " bytes beyond a multiple of " + std::to_string(1u << found->log_alignment));
}
