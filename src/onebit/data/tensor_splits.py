"""What training sees of a data set: the arrays of `splits` as PyTorch tensors that share their memory."""

from __future__ import annotations

from onebit.needs_torch import torch

# isort: split
from dataclasses import dataclass

from onebit.data.splits import ArraySplit, ArraySplits


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


def as_tensors(splits: ArraySplits) -> Splits:
    """The same data set in tensors, without a copy."""

    def tensors(split: ArraySplit) -> Split:
        return Split(torch.from_numpy(split.images), torch.from_numpy(split.labels))

    held = splits.validation
    return Splits(
        splits.name,
        tensors(splits.train),
        tensors(held) if held is not None else None,
        tensors(splits.test),
        splits.classes,
    )


def as_arrays(splits: Splits) -> ArraySplits:
    """The same data set in arrays, without a copy."""

    def arrays(split: Split) -> ArraySplit:
        return ArraySplit(split.images.numpy(), split.labels.numpy())

    held = splits.validation
    return ArraySplits(
        splits.name,
        arrays(splits.train),
        arrays(held) if held is not None else None,
        arrays(splits.test),
        splits.classes,
    )
