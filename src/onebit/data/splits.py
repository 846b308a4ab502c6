"""What every data set becomes: whole splits in memory, images as bytes, sounds as floats. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onebit.errors import DataError

DataArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ArraySplit:
    """`images`: uint8 (N, C, H, W), contiguous; `labels`: int64 (N,), each in 0 … classes − 1.

    Of a data set of sounds `images` holds the samples instead: float32 (N, 1, L), in [-1, 1].
    """

    images: DataArray
    labels: DataArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: DataArray) -> ArraySplit:
        """The images at `index` (int64), in that order, as a split of its own."""
        return ArraySplit(self.images[index], self.labels[index])


@dataclass(frozen=True)
class ArraySplits:
    """A data set: `train`, `test`, and `validation` where some training images are held out for choosing.

    `classes[i]` is the name of label i. All splits have the same image shape.
    """

    name: str
    train: ArraySplit
    validation: ArraySplit | None
    test: ArraySplit
    classes: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of one image, (1, samples) of one sound."""
        return tuple(self.train.images.shape[1:])


def make_splits(
    name: str,
    train: ArraySplit,
    test: ArraySplit,
    classes: tuple[str, ...],
    *,
    validation: int,
    given: ArraySplit | None = None,
    shuffled: bool,
) -> ArraySplits:
    """Join the parts, holding out `validation` images of `train` unless the set brings its own (`given`).

    With `shuffled` the held-out images are drawn by a fixed permutation (data sorted by class would otherwise
    lose whole classes); without it they are the last ones, as in the papers on MNIST and CIFAR-10.
    """
    for what, split in (("train", train), ("validation", given), ("test", test)):
        if split is not None:
            _check(name, what, split, tuple(train.images.shape[1:]), len(classes))
    if given is not None or validation == 0:
        return ArraySplits(name, train, given, test, classes)
    if not 0 < validation < len(train):
        raise DataError(
            f"{name}: {validation} validation images were asked for, of {len(train)} training images;"
            f" ask for 0 to {len(train) - 1} (data.validation)"
        )
    order = fixed_permutation(len(train)) if shuffled else np.arange(len(train))
    keep, held = np.sort(order[:-validation]), np.sort(order[-validation:])
    return ArraySplits(name, train.take(keep), train.take(held), test, classes)


def fixed_permutation(count: int, seed: int = 0) -> DataArray:
    """A permutation (int64) of 0 … count − 1 that is the same on every machine and every version."""
    # RandomState's stream is the one that NumPy promises never to change.
    return np.random.RandomState(seed).permutation(count).astype(np.int64)


def _check(name: str, what: str, split: ArraySplit, shape: tuple[int, ...], classes: int) -> None:
    if len(split) == 0:
        raise DataError(f"{name}: the {what} split has no images")
    if tuple(split.images.shape[1:]) != shape:
        got = "×".join(map(str, split.images.shape[1:]))
        want = "×".join(map(str, shape))
        raise DataError(
            f"{name}: {what} images are {got} (channels × height × width), training images {want};"
            " give image_size= to bring all to one size"
        )
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{name}: a label of the {what} split is {low if low < 0 else high}, outside 0 … {classes - 1};"
            " is the split labelled?"
        )
