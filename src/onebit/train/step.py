"""One training step: forward, loss, backward, update. Run as it is, or recorded once as a CUDA graph.

A small network's step is hundreds of kernels of a few microseconds, and starting each from Python takes
longer than running it. A CUDA graph starts them all at once. It replays the very kernels on the very
addresses it was recorded with, so a step waits for nothing, reads nothing back, and keeps what changes from
step to step in tensors of fixed places: the batch, the learning rates, the optimizer's counters, the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from onebit.train.distill import Teacher
from onebit.train.evaluation import LossFunction
from onebit.train.fields import Recipe
from onebit.train.optimizers import Trainer, after_step
from onebit.train.precision import autocast

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None]], Replay]

WARM_UP = 3  # steps before the recording: they allocate the optimizer's state, choose kernels and compile


class TrainStep(Protocol):
    """Trains on one batch: inputs (N, …), labels int64 (N,), on the run's device."""

    def __call__(self, inputs: Tensor, labels: Tensor) -> None: ...


@dataclass
class EagerStep:
    """A step as it is.

    `forward` is what is called instead of `model` (compiled, or parallel); `sums`, float64 (3,), gathers
    losses · samples, right answers and samples.
    """

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: Trainer
    loss: LossFunction
    recipe: Recipe
    sums: Tensor
    teacher: Teacher | None = None

    def __call__(self, inputs: Tensor, labels: Tensor) -> None:
        """See `TrainStep`."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.recipe.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with autocast(self.recipe.precision, inputs.device):
            scores = self.forward(inputs)
        scores = scores.float()
        if self.teacher is None:
            loss = self.loss(scores, labels)
        else:
            loss = self.teacher.loss(self.loss, scores, labels, self.teacher.scores(inputs))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        after_step(self.model, self.recipe.optimizer)
        with torch.no_grad():
            self.sums[0] += loss.detach() * len(labels)
            self.sums[1] += (scores.argmax(dim=1) == labels).sum()
            self.sums[2] += len(labels)


class ReplayedStep:
    """A step that is recorded after `WARM_UP` real ones and from then on replayed.

    The first steps train on their batches like any other, so nothing has to be undone before the recording,
    which itself computes nothing. All batches must be of one shape, as those of `Batches` are.
    """

    def __init__(self, step: TrainStep, capture: Capture | None = None) -> None:
        self._step = step
        self._capture = capture or record
        self._warm = 0
        self._batch: tuple[Tensor, Tensor] | None = None
        self._replay: Replay | None = None

    def __call__(self, inputs: Tensor, labels: Tensor) -> None:
        """See `TrainStep`."""
        if self._warm < WARM_UP:
            self._warm += 1
            with _side_stream(inputs.device):
                self._step(inputs, labels)
            return
        if self._batch is None or self._replay is None:
            batch = self._batch = inputs.clone(), labels.clone()
            self._replay = self._capture(lambda: self._step(*batch))
        self._batch[0].copy_(inputs)
        self._batch[1].copy_(labels)
        self._replay()


def record(work: Callable[[], None]) -> Replay:
    """Record what `work` starts on the current CUDA device, without running it; returns what replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    """What a recording will run on: a stream that is not the default one, in step with it."""
    if device.type != "cuda":
        yield
        return
    current = torch.cuda.current_stream(device)
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)
