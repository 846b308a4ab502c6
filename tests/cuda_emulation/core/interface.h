// What a kernel sees of the emulator: threads, barriers, warp collectives and asynchronous copies. The names
// are the emulator's own; ../builtins.h and ../emulated_ptx.cuh give them CUDA's names and those of
// csrc/cuda/base/ptx.cuh. Shared memory is given by 32-bit addresses, as PTX does.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace onebit_emulation {

struct Dim3 {
    unsigned x, y, z;
};

struct Where {
    const char *file;
    int line;
};
#define ONEBIT_HERE ::onebit_emulation::Where where = {__builtin_FILE(), __builtin_LINE()}

struct Thread {
    Dim3 thread, block;
};

extern Thread *current;
extern Dim3 block_size, grid_size;

// A kernel of the compiled source, for the emulator and the device.
struct Kernel {
    const char *name;
    void (*body)(void **args);
    const int *parameters; // see describe in launch.h
    Dim3 cluster;
};

// ---- memory ----
void *dynamic_shared();
uint32_t shared_address(const void *pointer, ONEBIT_HERE);
void atomic_access(const void *address, uint32_t bytes); // to be called before an atomic operation
[[noreturn]] void trap(ONEBIT_HERE);

// ---- barriers ----
void barrier_sync(int id, int threads, ONEBIT_HERE);   // threads 0: all of the block
void barrier_arrive(int id, int threads, ONEBIT_HERE); // counts, and does not wait
int barrier_count(int predicate, ONEBIT_HERE);         // __syncthreads_count
uint32_t cluster_rank();
void cluster_sync(ONEBIT_HERE);

// ---- warps: every thread of the mask must come to the same operation ----
void warp_sync(uint32_t mask, ONEBIT_HERE);
uint32_t shuffle(uint32_t mask, uint32_t value, int source_lane, ONEBIT_HERE);
uint32_t ballot(uint32_t mask, int predicate, ONEBIT_HERE);
bool elect(ONEBIT_HERE);
// mma.sync.m16n8k256.row.col.s32.b1.b1.s32.and.popc: d += popc(a and b)
void mma_b1(int32_t *d, const uint32_t *a, const uint32_t *b, ONEBIT_HERE);
// mma.sync.m16n8k32.row.col.s32.{u8,s8}.{u8,s8}.s32: d += a·b
void mma_int8(int32_t *d, const uint32_t *a, const uint32_t *b, bool a_signed, bool b_signed, ONEBIT_HERE);
// ldmatrix.m8n8.x{count}.b16: each lane gives the address of a row of 16 bytes
void load_matrix(uint32_t *registers, int count, uint32_t address, ONEBIT_HERE);

// ---- cp.async ----
// `bytes` (4, 8 or 16) to shared memory; of these `source_bytes` are read and the rest is zero
void copy_async(uint32_t shared, const void *global, uint32_t bytes, uint32_t source_bytes, ONEBIT_HERE);
void copy_async_commit();
void copy_async_wait(int groups_left);

// ---- mbarrier ----
void mbarrier_init(uint32_t barrier, int arrivals, ONEBIT_HERE);
void mbarrier_init_fence();
void mbarrier_arrive(uint32_t barrier, uint32_t rank, uint32_t expected_bytes, ONEBIT_HERE);
void mbarrier_wait(uint32_t barrier, uint32_t parity, ONEBIT_HERE);

// ---- the copy engine ----
struct TensorMapFields { // what the emulated device writes into the 128 bytes of a map
    uint64_t magic;      // kTensorMapMagic
    uint64_t address, rows, row_bytes;
    uint64_t box_rows, box_bytes, swizzle;
};
constexpr uint64_t kTensorMapMagic = 0x6f6e65626974544dull;
// cp.async.bulk.tensor.2d, to every block of the cluster whose bit is set
void tensor_load(uint32_t shared, const void *map, int column, int row, uint32_t barrier, uint32_t blocks,
                 ONEBIT_HERE);
void proxy_fence(); // fence.proxy.async

// ---- wgmma ----
void wgmma_fence(ONEBIT_HERE);
void wgmma_commit(ONEBIT_HERE);
void wgmma_wait(int groups_left, ONEBIT_HERE);
// wgmma.mma_async.m64nNk256.s32.b1.b1.and.popc: d = popc(a and b) + (add ? d : 0), N/2 numbers a thread
void wgmma_b1(int32_t *d, int n, uint64_t a, uint64_t b, bool add, ONEBIT_HERE);

} // namespace onebit_emulation
