"""Turns of an engine on a GPU: streams that follow each other, and CUDA graphs for small batches.

A small network on a small batch takes less time to compute than to launch. A graph launches everything at
once; it reads and writes fixed memory, so inputs are copied into it and outputs out of it, which is little
for a small batch. A graph is captured when a batch size comes for the second time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

from onebit.runtime.cuda.device import Device

MOST_SAMPLES = 64  # of a batch that is replayed
MOST_GRAPHS = 8  # an engine

Pass = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor], None]


class Replays:
    """The graphs of an engine, one a batch size, the least recently used dropped first."""

    def __init__(self, device: Device) -> None:
        self._device = device.torch_device
        self._graphs: OrderedDict[int, _Graph] = OrderedDict()
        self._seen: set[int] = set()

    def capturing(self) -> bool:
        """Whether the user captures a graph: then this engine's launches become part of it."""
        return self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def wants(self, batch: int) -> bool:
        """Whether a batch of this size is to be replayed; false for the first of its size."""
        if self._device.type != "cuda" or batch > MOST_SAMPLES or self.capturing():
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
            self._graphs[batch] = _Graph(inputs, outputs, wrong, run, memory)
            if len(self._graphs) > MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(batch)
        self._graphs[batch].replay(inputs, outputs, wrong)

    def clear(self) -> None:
        """Drop all graphs."""
        self._graphs.clear()


class _Graph:
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


class Turns:
    """Runs of one engine share its arena, so one on another stream waits for the one before.

    Inside a turn the engine's GPU is torch's current one.
    """

    def __init__(self, device: Device) -> None:
        self._device = device.torch_device
        self._stream: Any = None  # of the latest run
        self._done: Any = None  # the event at its end

    @contextmanager
    def take(self, arena: torch.Tensor | None) -> Iterator[None]:
        """Inside, launches on the current stream come after all those of earlier turns."""
        if self._device.type != "cuda":
            yield
            return
        with torch.cuda.device(self._device):
            if torch.cuda.is_current_stream_capturing():
                yield  # the user's own graph: replays of it come in the order of the user's streams
                return
            stream = torch.cuda.current_stream(self._device)
            if self._stream is not None and self._stream != stream:
                stream.wait_event(self._done)
                if arena is not None:
                    arena.record_stream(stream)
            try:
                yield
            finally:  # also after an error: what has been launched by then still works in the arena
                self._stream = stream
                if self._done is None:
                    self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._done.record(stream)

    def finish(self) -> None:
        """Wait until every turn so far is over, so that what they work on may be freed on any stream."""
        if self._done is not None:
            self._done.synchronize()

    def mark(self) -> Any:
        """A point in time on the current stream, for `seconds`."""
        if self._device.type != "cuda":
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """The times between marks; waits for the last one."""
        pairs = list(pairwise(marks))
        if self._device.type != "cuda":
            return [after - before for before, after in pairs]
        marks[-1].synchronize()
        return [before.elapsed_time(after) * 1e-3 for before, after in pairs]
