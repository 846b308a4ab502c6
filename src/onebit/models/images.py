"""The plumbing that the image models share; a family's file states its paper and its choices."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onebit.models.mlp import check_sizes

__all__ = ["ImageModel", "ImageSequential", "check_image", "check_sizes"]


def check_image(input_shape: Sequence[int], classes: int, *, min_size: int) -> tuple[int, int, int]:
    """(channels, height, width); ValueError below min_size × min_size or 1 class."""
    check_sizes("input_shape", input_shape)
    check_sizes("classes", [classes])
    if len(input_shape) != 3 or min(input_shape[1:]) < min_size:
        raise ValueError(
            f"input_shape must be (channels, height, width), height and width at least {min_size}; "
            f"got {tuple(input_shape)!r}"
        )
    channels, height, width = input_shape
    return channels, height, width


class ImageModel(nn.Module):
    """A module that knows its input: `input_shape` of one sample, and whether it is bytes or floats."""

    input_shape: tuple[int, ...]
    takes_bytes: bool

    def example_input(self, batch_size: int = 2) -> Tensor:
        """A random batch: uint8 in 0..255 if the model takes bytes, else float32 in [-1, 1)."""
        shape = (batch_size, *self.input_shape)
        if self.takes_bytes:
            return torch.randint(0, 256, shape, dtype=torch.uint8)
        return torch.rand(shape) * 2 - 1


class ImageSequential(ImageModel, nn.Sequential):
    """An ImageModel whose layers simply follow one another."""

    def __init__(
        self, layers: OrderedDict[str, nn.Module], input_shape: Sequence[int], *, takes_bytes: bool
    ) -> None:
        super().__init__(layers)
        self.input_shape = tuple(input_shape)
        self.takes_bytes = takes_bytes
