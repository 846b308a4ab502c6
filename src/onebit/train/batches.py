"""Where batches come from: what the loop asks of a source, and the source that holds a data set whole.

The loop knows nothing about data but these protocols. A source for data larger than memory plugs in by
having them; `open_source` is where it is chosen.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from onebit import data
from onebit.data import Split, Splits
from onebit.data.crops import Crops
from onebit.data.streaming import Batch, ImageStream, TrainingStream, in_order, worker_count
from onebit.errors import TrainError
from onebit.train import augment
from onebit.train.distributed import World
from onebit.train.fields import AugmentRecipe, DataRecipe, Recipe

EVALUATION_SIZE = 1000  # samples a call: enough to be fast, small beside the training's memory


class Batches(Protocol):
    """The training samples, epoch after epoch, in a random order that a seed decides.

    The batches of all ranks at one step make up one batch of the recipe's size.
    """

    steps: int
    """Batches an epoch, the same in every epoch and on every rank."""
    samples: int
    """Training samples there are; those of an epoch that fill no whole batch are left out."""
    fingerprint: int
    """A checksum of the samples, cheap to have, to notice a resume with other data."""

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """This rank's batches of the epoch at hand, from its batch `step` on.

        An iterator that ran to its end moves on to the next epoch; one that was begun with step > 0 gives
        exactly what one begun with 0 would have given from there.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What decides the epoch at hand and all later ones, as it was at this epoch's start: tensors and
        plain values, equal on all ranks."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the epoch that `state_dict` was taken in."""
        ...


class BatchSource(Protocol):
    """A data set as a run uses it."""

    name: str
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    train: Batches
    has_validation: bool

    def validation(self) -> Iterator[Batch]:
        """This rank's share of the held-out samples, in order. Called only if `has_validation`."""
        ...

    def test(self) -> Iterator[Batch]:
        """This rank's share of the test samples, in order."""
        ...

    def plain(self, batches: int) -> Iterator[Tensor]:
        """The inputs of that many training batches of the recipe's size, unchanged and always the same, on
        every rank all of them: BatchNorm statistics are measured on these."""
        ...


class MemoryBatches:
    """`Batches` of a split that lies on the device whole: a permutation an epoch, augmented on the device."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int = 1,
        changes: AugmentRecipe | None = None,
        world: World | None = None,
    ) -> None:
        changes, world = changes or AugmentRecipe(), world or World()
        augment.check(changes, split.images)
        self.samples, self.steps = len(split), len(split) // batch_size
        self._split, self._size, self._changes, self._world = split, batch_size, changes, world
        self._generator = torch.Generator().manual_seed(seed)
        self._state = self._generator.get_state()
        self.fingerprint = _fingerprint(split)

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """See `Batches`."""
        images, labels = self._split.images, self._split.labels
        self._generator.set_state(self._state)
        order = torch.randperm(self.samples, generator=self._generator)
        draws = augment.draw(self._changes, images, self.samples, self._generator)
        order, draws = order.to(labels.device), draws.to(labels.device)
        share = self._size // self._world.size
        for now in range(step, self.steps):
            first = now * self._size + self._world.rank * share
            index = order[first : first + share]
            yield augment.augment(self._changes, images[index], draws[first : first + share]), labels[index]
        self._state = self._generator.get_state()

    def state_dict(self) -> dict[str, Any]:
        """See `Batches`."""
        return {"generator": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Batches`."""
        self._state = state["generator"]


class MemorySource:
    """`BatchSource` of splits that fit into the device's memory."""

    def __init__(self, splits: Splits, recipe: Recipe, device: torch.device, world: World) -> None:
        self.name, self.classes = splits.name, splits.classes
        self.input_shape: tuple[int, ...] = tuple(splits.train.images.shape[1:])
        self.has_validation = splits.validation is not None
        self._world, self._size = world, recipe.batch_size
        self._train = splits.train.to(device)
        self._validation = splits.validation.to(device) if splits.validation else None
        self._test = splits.test.to(device)
        self.train: Batches = MemoryBatches(
            self._train, recipe.batch_size, seed=recipe.seed, changes=recipe.augment, world=world
        )

    def validation(self) -> Iterator[Batch]:
        """See `BatchSource`."""
        if self._validation is not None:
            yield from shares(self._validation, self._world)

    def test(self) -> Iterator[Batch]:
        """See `BatchSource`."""
        return shares(self._test, self._world)

    def plain(self, batches: int) -> Iterator[Tensor]:
        """See `BatchSource`: the split's first batches, in the split's order."""
        for start in range(0, min(batches, self.train.steps) * self._size, self._size):
            yield self._train.images[start : start + self._size]


class StreamSource:
    """`BatchSource` of images that stay where they are until worker processes decode them for a batch."""

    def __init__(self, stream: ImageStream, recipe: Recipe, device: torch.device, world: World) -> None:
        self.name, self.classes, self.input_shape = stream.name, stream.classes, stream.input_shape
        self.has_validation = stream.validation is not None
        self._stream = stream
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if not world.alone else 1
        workers = recipe.data.workers if recipe.data.workers >= 0 else worker_count(beside)
        self._shared: dict[str, Any] = {
            "rank": world.rank, "ranks": world.size, "workers": workers, "device": device
        }  # fmt: skip
        changes = recipe.augment
        crops = Crops(
            recipe.data.image_size,
            resized=changes.resized_crop,
            margin=(changes.crop, changes.crop_max or changes.crop),
            flip=changes.flip,
        )
        self._train = TrainingStream(stream, recipe.batch_size, seed=recipe.seed, crops=crops, **self._shared)
        self.train: Batches = self._train

    def validation(self) -> Iterator[Batch]:
        """See `BatchSource`."""
        if self._stream.validation is not None:
            yield from in_order(self._stream, self._stream.validation, **self._shared)

    def test(self) -> Iterator[Batch]:
        """See `BatchSource`."""
        return in_order(self._stream, self._stream.test, **self._shared)

    def plain(self, batches: int) -> Iterator[Tensor]:
        """See `BatchSource`: always the same random ones, each seen as a test sees it."""
        return self._train.plain(batches)


def shares(split: Split, world: World | None = None, size: int = EVALUATION_SIZE) -> Iterator[Batch]:
    """A rank's share of a split, in order, in pieces of at most `size` samples."""
    world = world or World()
    first, last = (len(split) * rank // world.size for rank in (world.rank, world.rank + 1))
    for start in range(first, last, size):
        piece = slice(start, min(start + size, last))
        yield split.images[piece], split.labels[piece]


def open_source(
    recipe: Recipe, data_dir: str | Path | None, device: torch.device, world: World
) -> BatchSource:
    """The recipe's data set, ready on the device. Raises `onebit.data.DataError` or `TrainError`."""
    source: BatchSource
    with world.first_of_the_machine_first():
        if recipe.data.stream:
            source = StreamSource(_opened(recipe.data, data_dir), recipe, device, world)
        else:
            source = MemorySource(load_splits(recipe.data, data_dir), recipe, device, world)
    _check_batch_size(recipe, source, world)
    return source


def load_splits(recipe: DataRecipe, data_dir: str | Path | None) -> Splits:
    """The splits that a recipe's data section names, in the CPU's memory."""
    return data.load(
        recipe.name,
        data_dir,
        validation=recipe.validation,
        image_size=recipe.image_size or None,
        channels=recipe.channels or None,
        sample_rate=recipe.sample_rate or None,
        samples=recipe.samples or None,
        whiten=recipe.whiten or None,
        extra=recipe.extra or None,
    )


def _opened(recipe: DataRecipe, data_dir: str | Path | None) -> ImageStream:
    return data.open_stream(
        recipe.name,
        data_dir,
        validation=recipe.validation,
        image_size=recipe.image_size,
        channels=recipe.channels or 3,
    )


def _check_batch_size(recipe: Recipe, source: BatchSource, world: World) -> None:
    size, samples = recipe.batch_size, source.train.samples
    if source.train.steps == 0:
        raise TrainError(
            f"batch_size={size}, but {recipe.data.name} has {samples} training samples; give a batch size up"
            f" to that (--set batch_size={samples})"
        )
    if size % world.size or size < 2 * world.size:
        better = max(2, round(size / world.size)) * world.size
        raise TrainError(
            f"batch_size={size} is shared by {world.size} processes: it must be a multiple of that, at least"
            f" 2 each (--set batch_size={better})"
        )


def _fingerprint(split: Split) -> int:
    """A checksum of inputs and labels."""
    inputs = zlib.crc32(split.images.cpu().contiguous().numpy().data)
    return zlib.crc32(split.labels.cpu().contiguous().numpy().data, inputs)
