"""Image sets that do not fit into memory: batches of bytes, decoded by worker processes as they are needed.

stream = open_stream("imagenet", "/data/imagenet", image_size=224)     (see stream_sets.py)
batches = TrainingStream(stream, 256, seed=1, crops=Crops(224, resized=0.08, flip=True), device=device)
for images, labels in batches.iterate(): ...
"""

from __future__ import annotations

from onebit.needs_torch import torch

# isort: split
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from torch.utils.data import DataLoader, Dataset

from onebit.data.crops import Crops, read_window
from onebit.data.order import LANES, SPREAD, EpochOrder, Ints
from onebit.data.records import Encoded, Records
from onebit.errors import DataError

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Inputs (N, …), of any dtype and shape the model takes, and labels int64 (N,), on the run's device."""

EVALUATION_SIZE = 250  # images a batch: with 224×224 pixels, few enough for the memory of most devices
_AHEAD = 4  # batches that each worker prepares in advance


@dataclass(frozen=True)
class Part:
    """Some images of `records`: int64 (M, 3), of each chunk its group and its rows [start, stop)."""

    records: Records
    chunks: Ints

    def __len__(self) -> int:
        return int((self.chunks[:, 2] - self.chunks[:, 1]).sum())


@dataclass(frozen=True)
class ImageStream:
    """A data set whose images stay where they are; `open_stream` makes it.

    classes[i] is the name of label i. Batches are uint8 (N, channels, size, size) and int64 (N,).
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part | None
    test: Part
    size: int
    channels: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of one image."""
        return (self.channels, self.size, self.size)


class TrainingStream:
    """The training images in a random order, epoch after epoch: one rank's share of each batch.

    `steps` batches an epoch on every rank, batch_size / ranks images each; `samples` images in all. With the
    same seed and number of ranks, epoch and step decide every byte, whatever the number of workers.
    """

    def __init__(
        self,
        stream: ImageStream,
        batch_size: int,
        *,
        seed: int = 1,
        crops: Crops | None = None,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        device: torch.device | str = "cpu",
        spread: int = SPREAD,
    ) -> None:
        self.samples = len(stream.train)
        self.steps = self.samples // batch_size
        self.fingerprint = stream.train.records.fingerprint
        self._stream, self._crops, self._seed, self._epoch = stream, crops, seed, 0
        self._share, self._rank, self._ranks, self._spread = batch_size // ranks, rank, ranks, spread
        self._workers, self._device = workers, torch.device(device)

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """This rank's batches of the epoch at hand, from its batch `step` on; at their end, the next epoch
        is at hand. Raises `DataError` for an image that cannot be read."""
        epoch = self._epoch
        order = EpochOrder(
            self._stream.train.chunks,
            seed=self._seed,
            epoch=epoch,
            steps=self.steps,
            share=self._share,
            rank=self._rank,
            ranks=self._ranks,
            spread=self._spread,
        )
        images = _Shuffled(self._stream, order, self._crops, (self._seed, epoch))
        yield from _loaded(images, range(step, self.steps), self._workers, self._device)
        self._epoch = epoch + 1

    def plain(self, batches: int) -> Iterator[torch.Tensor]:
        """Whole batches of training images, always the same random ones, seen as a test sees them."""
        share = self._share * self._ranks
        order = EpochOrder(
            self._stream.train.chunks, seed=0, epoch=0, steps=self.steps, share=share, spread=self._spread
        )
        images = _Shuffled(self._stream, order, None, (0, 0))
        for inputs, _ in _loaded(images, range(min(batches, self.steps)), self._workers, self._device):
            yield inputs

    def state_dict(self) -> dict[str, Any]:
        """The epoch at hand."""
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the epoch of `state_dict`."""
        self._epoch = state["epoch"]


def in_order(
    stream: ImageStream,
    part: Part,
    *,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
    device: torch.device | str = "cpu",
    size: int = EVALUATION_SIZE,
) -> Iterator[Batch]:
    """A rank's share of a part, in order, each image's central window: at most `size` images a batch.

    Raises `DataError` for an image that cannot be read.
    """
    first, last = (len(part) * r // ranks for r in (rank, rank + 1))
    images = _Ordered(stream, part, first, last, size)
    yield from _loaded(images, range(-(-(last - first) // size)), workers, torch.device(device))


def worker_count(processes: int = 1) -> int:
    """How many workers each of the training processes on this machine can have: a divisor of `LANES`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(n for n in range(1, LANES + 1) if LANES % n == 0 and n <= max(1, cores // processes))


def _loaded(images: _Decoded, indices: Sequence[int], workers: int, device: torch.device) -> Iterator[Batch]:
    """The batches of those numbers, in that order, on the device."""
    if not indices:
        return
    workers = min(workers, len(indices))
    loader = DataLoader(
        images,
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        pin_memory=device.type == "cuda",
        # Its own: starting to load draws a number, which must not be the training's.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, str):
            raise DataError(batch)
        yield batch[0].to(device, non_blocking=True), batch[1].to(device, non_blocking=True)


class _Decoded(Dataset[Any]):
    """Batches by number, as a worker process makes them; what is wrong with an image comes back as text.

    (Raised, it would reach the user as a traceback inside a message.)
    """

    def __init__(self, stream: ImageStream, part: Part) -> None:
        self._part, self._size, self._channels = part, stream.size, stream.channels
        self._classes = len(stream.classes)

    def __getitem__(self, number: int) -> Batch | str:
        try:
            return self._batch(number)
        except DataError as error:
            return str(error)

    def _batch(self, number: int) -> Batch:
        raise NotImplementedError

    def _image(
        self,
        record: Encoded,
        group: int,
        row: int,
        crops: Crops | None = None,
        generator: np.random.RandomState | None = None,
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        item, label = record
        place = _Place(self._part.records, group, row)
        if not 0 <= label < self._classes:
            raise DataError(f"{place}: the label is {label}, outside 0 … {self._classes - 1}")
        return read_window(item, place, self._size, self._channels, crops, generator)


class _Place:
    """What an error calls an image, worked out only if there is one."""

    def __init__(self, records: Records, group: int, row: int) -> None:
        self._of = records, group, row

    def __str__(self) -> str:
        records, group, row = self._of
        return records.place(group, row)


class _Shuffled(_Decoded):
    """A batch a step of an `EpochOrder`. Steps are asked for in order; each worker sees some of them.

    What a worker has read and not yet used, it keeps by lane.
    """

    def __init__(
        self, stream: ImageStream, order: EpochOrder, crops: Crops | None, drawn_from: tuple[int, int]
    ) -> None:
        super().__init__(stream, stream.train)
        self._order, self._crops = order, crops
        seed, epoch = drawn_from
        self._words = [seed & 0xFFFFFFFF, seed >> 32, epoch]
        self._kept: list[dict[int, dict[int, Encoded]]] = [{} for _ in range(LANES)]  # slot: row: image

    def _batch(self, number: int) -> Batch:
        piece = self._order.piece(number)
        kept = self._kept[piece.lane]
        for slot in [slot for slot in kept if slot < piece.behind]:
            del kept[slot]
        images, labels = [], []
        indices = (piece.slots.tolist(), piece.chunks.tolist(), piece.rows.tolist())
        for slot, chunk, row in zip(*indices, strict=True):
            group = int(self._part.chunks[chunk, 0])
            record = self._take(kept, slot, group, row)
            # Drawn from the image's own place, so that no order of work can change it.
            generator = np.random.RandomState([*self._words, group, row]) if self._crops else None
            images.append(self._image(record, group, row, self._crops, generator))
            labels.append(record[1])
        return torch.from_numpy(np.stack(images)), torch.tensor(labels)

    def _take(self, kept: dict[int, dict[int, Encoded]], slot: int, group: int, row: int) -> Encoded:
        if row not in kept.get(slot, {}):
            kept[slot] = dict(enumerate(self._part.records.read(group)))
        record = kept[slot].pop(row)
        if not kept[slot]:
            del kept[slot]
        return record


class _Ordered(_Decoded):
    """The images [first, last) of a part, `size` at a time."""

    def __init__(self, stream: ImageStream, part: Part, first: int, last: int, size: int) -> None:
        super().__init__(stream, part)
        self._first, self._last, self._step = first, last, size
        self._ends = np.cumsum(part.chunks[:, 2] - part.chunks[:, 1])
        self._group = -1
        self._records: list[Encoded] = []

    def _batch(self, number: int) -> Batch:
        first = self._first + number * self._step
        images, labels = [], []
        for place in range(first, min(first + self._step, self._last)):
            chunk = int(np.searchsorted(self._ends, place, side="right"))
            group, _, stop = self._part.chunks[chunk].tolist()
            row = stop - (int(self._ends[chunk]) - place)
            if group != self._group:
                self._group, self._records = group, self._part.records.read(group)
            images.append(self._image(self._records[row], group, row))
            labels.append(self._records[row][1])
        return torch.from_numpy(np.stack(images)), torch.tensor(labels)
