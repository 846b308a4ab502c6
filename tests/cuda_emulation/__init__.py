"""Run the CUDA kernels on a CPU, exactly as they are, and catch what a lucky run on a GPU would hide.

`compile.py` compiles a .cu file with g++: `builtins.h` stands for CUDA's built-ins, `emulated_ptx.cuh` for
csrc/cuda/base/ptx.cuh. `core/` executes a grid; the threads of a block, or of a cluster of blocks, are fibers
whose order is random, from a seed that every report names. What it checks, beyond the kernel's results:

- every access to memory: bounds, alignment, and races on shared memory, by vector clocks (the kernel is
  compiled with -fsanitize=thread, and the emulator answers its callbacks);
- barriers, warp collectives and mbarriers that wait for ever: a report of who waits where;
- asynchronous work (cp.async, TMA, wgmma) is done at once, at a random moment, or only when waited for, and
  registers that wgmma is using hold noise: a missing wait or fence gives wrong numbers or a report;
- layouts of fragments, descriptors and swizzles, written from the PTX ISA and not from the kernels.

Not modelled: timing, caches, the order of writes to global memory among blocks, registers.
`device.py` has EmulatedDevice, which takes the place of a GPU in tests.
"""
