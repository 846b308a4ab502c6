"""What all sections share: device and sizes (dry: the emulator and tiny ones), random inputs, the clock."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Recorder

ROOT = Path(__file__).resolve().parents[2]
PEAK_TOPS = 15_600.0  # of wgmma b1 and.popc alone on an H200, 2 operations a multiply-accumulate


class OutOfTime(Exception):
    """The section has used up its time."""


def emulated_device() -> Any:
    """A small H200 on the CPU."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cuda_emulation.device import EmulatedDevice

    return EmulatedDevice((9, 0), multiprocessors=2)


def real_device() -> Any:
    """The GPU that torch uses."""
    from onebit.runtime.cuda.device.driver import cuda_device

    return cuda_device("cuda")


@dataclass
class Setup:
    """What a section is given."""

    device: Any  # onebit.runtime.cuda.device.interface.Device
    record: Recorder
    deadline: float  # by time.monotonic
    dry: bool
    seed: int
    rng: np.random.Generator = field(init=False)
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32
        torch.backends.cudnn.allow_tf32 = False
        self.rng = np.random.default_rng(self.seed)
        self.generator = torch.Generator(self.where).manual_seed(self.seed)

    @property
    def where(self) -> torch.device:
        """Where tensors lie."""
        return self.device.torch_device

    def size(self, full: int, tiny: int) -> int:
        """A size: the full one, or the tiny one of a dry run."""
        return tiny if self.dry else full

    def left(self) -> float:
        """Seconds until the section must end; OutOfTime if there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        return left

    def signs(self, rows: int, columns: int) -> torch.Tensor:
        """Random ±1, int8 [rows, columns]."""
        drawn = torch.randint(0, 2, (rows, columns), generator=self.generator, device=self.where)
        return (2 * drawn - 1).to(torch.int8)

    def copies(self, bytes_of_one: int) -> int:
        """How many sets of inputs to rotate through, so that none is still in the L2 cache when it is due."""
        if self.where.type != "cuda":
            return 1
        cache = int(torch.cuda.get_device_properties(self.where).L2_cache_size)
        return max(2, -(-3 * cache // max(bytes_of_one, 1)) + 1) if bytes_of_one < 3 * cache else 2

    def seconds(self, calls: Sequence[Callable[[], object]], budget: float = 0.8) -> float:
        """Seconds a call, the median of several rounds over all of `calls`, each on other inputs.

        The calls are captured in a CUDA graph, so that launching costs the host nothing, and run for a while
        before they count.
        """
        self.left()
        if self.where.type != "cuda":
            start = time.perf_counter()
            for call in calls:
                call()
            return (time.perf_counter() - start) / len(calls)
        return self._graph_seconds(calls, min(budget, self.left()))

    def _graph_seconds(self, calls: Sequence[Callable[[], object]], budget: float) -> float:
        for call in calls:  # compiles and allocates what is missing
            call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for call in calls:
            call()
        torch.cuda.synchronize()
        once = max((time.perf_counter() - start) / len(calls), 1e-6)
        rounds = max(1, min(50, int(0.02 / (once * len(calls)))))
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                for _ in range(rounds):
                    for call in calls:
                        call()
        except RuntimeError as error:
            self.record.remark("not captured in a graph", f"timed call by call: {str(error).splitlines()[0]}")
            torch.cuda.synchronize()
            return self.event_seconds(lambda: [call() for call in calls], len(calls), budget)
        return self.event_seconds(graph.replay, rounds * len(calls), budget)

    def event_seconds(self, run: Callable[[], object], calls: int, budget: float) -> float:
        """Median seconds a call of `run`, which does `calls` of them, by events on the current stream."""
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        once = max(time.perf_counter() - start, 1e-6)
        for _ in range(min(2000, int(0.3 * budget / once))):  # until clocks have settled
            run()
        times = []
        for _ in range(max(3, min(200, int(0.7 * budget / once)))):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            times.append((begin, end))
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in times) * 1e-3 / calls
