"""Runs of one engine follow each other, on whatever streams they are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

from onebit.runtime.cuda.device.interface import Device


class StreamOrder:
    """Runs of one engine share its arena, so one on another stream waits for the one before.

    Inside `enter` the engine's GPU is torch's current one.
    """

    def __init__(self, device: Device) -> None:
        self._device = device.torch_device
        self._stream: Any = None  # of the latest run
        self._done: Any = None  # the event at its end

    @contextmanager
    def enter(self, arena: torch.Tensor | None) -> Iterator[None]:
        """Inside, launches on the current stream come after all those of earlier runs."""
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
        """Wait until every run so far is over, so that what they work on may be freed on any stream."""
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
