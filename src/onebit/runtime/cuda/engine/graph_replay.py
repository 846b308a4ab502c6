"""CUDA graphs for small batches.

A small network on a small batch takes less time to compute than to launch. A graph launches everything at
once; it reads and writes fixed memory, so inputs are copied into it and outputs out of it, which is little
for a small batch. A graph is captured when a batch size comes for the second time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from onebit.runtime.cuda.device.interface import Device

MAX_SAMPLES = 64  # of a batch that is replayed
MAX_GRAPHS = 8  # an engine

Pass = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor], None]


class GraphReplay:
    """The graphs of an engine, one a batch size, the least recently used dropped first."""

    def __init__(self, device: Device) -> None:
        self._device = device.torch_device
        self._graphs: OrderedDict[int, _CapturedGraph] = OrderedDict()
        self._seen: set[int] = set()

    def capturing(self) -> bool:
        """Whether the user captures a graph: then this engine's launches become part of it."""
        return self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def wants(self, batch: int) -> bool:
        """Whether a batch of this size is to be replayed; false for the first of its size."""
        if self._device.type != "cuda" or batch > MAX_SAMPLES or self.capturing():
            return False
        seen = batch in self._seen
        self._seen.add(batch)
        return seen

    def run(
        self,
        batch: int,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        wrong: torch.Tensor,
        run: Pass,
        memory: Callable[[], torch.Tensor | None],
    ) -> None:
        """Do what `run(inputs, outputs, wrong)` does, by a graph. `memory` is what `run` works in."""
        if batch not in self._graphs:
            self._graphs[batch] = _CapturedGraph(inputs, outputs, wrong, run, memory)
            if len(self._graphs) > MAX_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(batch)
        self._graphs[batch].replay(inputs, outputs, wrong)

    def clear(self) -> None:
        """Drop all graphs."""
        self._graphs.clear()


class _CapturedGraph:
    """One captured run, with its own inputs and outputs."""

    def __init__(
        self,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        wrong: torch.Tensor,
        run: Pass,
        memory: Callable[[], torch.Tensor | None],
    ) -> None:
        self._inputs = [torch.empty_like(x) for x in inputs]
        self._outputs = [torch.empty_like(y) for y in outputs]
        self._wrong = torch.zeros_like(wrong)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(wrong.device)  # type: ignore[no-untyped-call]
        # Other threads may go on using CUDA while this one captures.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._wrong.zero_()
            run(self._inputs, self._outputs, self._wrong)
        self._memory = memory()  # kept, also when the engine moves on to a larger arena
        self._home = torch.cuda.current_stream(wrong.device)  # its memory goes back to PyTorch in this order

    def replay(
        self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], wrong: torch.Tensor
    ) -> None:
        """Run it on the current stream."""
        stream = torch.cuda.current_stream(wrong.device)
        if stream != self._home:
            for own in (*self._inputs, *self._outputs, self._wrong, self._memory):
                if own is not None:
                    own.record_stream(stream)
        for own, x in zip(self._inputs, inputs, strict=True):
            own.copy_(x)
        self._graph.replay()
        for own, y in zip(self._outputs, outputs, strict=True):
            y.copy_(own)
        wrong.copy_(self._wrong)
