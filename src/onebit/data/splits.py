"""What every data set becomes: whole splits in memory, images as bytes, sounds as floats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from onebit.errors import DataError


@dataclass(frozen=True)
class Split:
    """`images`: uint8 (N, C, H, W), contiguous; `labels`: int64 (N,), each in 0 … classes − 1.

    Of a data set of sounds `images` holds the samples instead: float32 (N, 1, L), in [-1, 1].
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: torch.Tensor) -> Split:
        """The images at `index` (int64), in that order, as a split of its own."""
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device` (the very same tensors if they are there already)."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Splits:
    """A data set: `train`, `test`, and `validation` where some training images are held out for choosing.

    `classes[i]` is the name of label i. All splits have the same image shape.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    classes: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of one image, (1, samples) of one sound."""
        return tuple(self.train.images.shape[1:])


def make_splits(
    name: str,
    train: Split,
    test: Split,
    classes: tuple[str, ...],
    *,
    validation: int,
    given: Split | None = None,
    shuffled: bool,
) -> Splits:
    """Join the parts, holding out `validation` images of `train` unless the set brings its own (`given`).

    With `shuffled` the held-out images are drawn by a fixed permutation (data sorted by class would otherwise
    lose whole classes); without it they are the last ones, as in the papers on MNIST and CIFAR-10.
    """
    for what, split in (("train", train), ("validation", given), ("test", test)):
        if split is not None:
            _check(name, what, split, tuple(train.images.shape[1:]), len(classes))
    if given is not None or validation == 0:
        return Splits(name, train, given, test, classes)
    if not 0 < validation < len(train):
        raise DataError(
            f"{name}: {validation} validation images were asked for, of {len(train)} training images;"
            f" ask for 0 to {len(train) - 1} (data.validation)"
        )
    order = fixed_permutation(len(train)) if shuffled else torch.arange(len(train))
    keep, held = order[:-validation].sort().values, order[-validation:].sort().values
    return Splits(name, train.take(keep), train.take(held), test, classes)


def fixed_permutation(count: int, seed: int = 0) -> torch.Tensor:
    """A permutation (int64) of 0 … count − 1 that is the same on every machine and every version."""
    # RandomState's stream is the one that NumPy promises never to change.
    return torch.from_numpy(np.random.RandomState(seed).permutation(count).astype(np.int64))


def _check(name: str, what: str, split: Split, shape: tuple[int, ...], classes: int) -> None:
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
