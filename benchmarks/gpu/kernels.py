"""Compiles every kernel for this GPU, with all cores, before the sections that run them from the cache."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from setup import Setup

from onebit.runtime.cuda.device import compiler
from onebit.runtime.cuda.device.interface import target
from onebit.runtime.cuda.kernels import catalog


def run(setup: Setup) -> None:
    """The section `compile`. NVRTC works outside Python's lock, so threads are enough."""
    if setup.dry:
        setup.record.remark("kernels", "the emulator compiles its own when they are first used")
        return
    wanted = target(setup.device.capability)
    # The sections also run what is meant for other GPUs and works on all: `__popc` and dp4a.
    entries = [entry for entry in catalog.entries() if {wanted, *catalog.WITHOUT_MMA} & {*entry.targets}]
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(lambda entry: len(compiler.cubin(entry.file, entry.defines, wanted)), entries))
    note = f"{time.monotonic() - start:.1f} s for {wanted}"
    setup.record.check("every kernel compiles", all(sizes), f"{len(sizes)} kernels, {note}")
