"""Where PyTorch's elements stand in a value of a Program, in which images are channels last.

PyTorch holds one sample of an image as (C, H, W) or (C, L), a Program as [H, W, C] or [1, L, C]. PyTorch
flattens an image in the order C, H, W; the flat value of a Program keeps its own order, H, W, C, so that
flattening moves nothing, and the constants that meet it are permuted instead. A value without an
ImageLayout is plain: its shape and its order are PyTorch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from onebit.program.tensors import Array


@dataclass(frozen=True)
class ImageLayout:
    """An image of `channels` over the axes `sizes` ((H, W) or (L,)), or, if `flat`, that image flattened."""

    channels: int
    sizes: tuple[int, ...]
    flat: bool = False

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Shape of one sample in PyTorch."""
        return (self.channels * prod(self.sizes),) if self.flat else (self.channels, *self.sizes)

    @property
    def program_shape(self) -> tuple[int, ...]:
        """Shape of one sample in the Program."""
        if self.flat:
            return self.torch_shape
        return (*((1,) if len(self.sizes) == 1 else ()), *self.sizes, self.channels)

    @property
    def keeps_order(self) -> bool:
        """The order of the elements is PyTorch's too."""
        return self.channels == 1 or prod(self.sizes) == 1

    def constant(self, array: Array) -> Array:
        """A constant that broadcasts to PyTorch's shape -> one that broadcasts to the Program's."""
        array = array.reshape((1,) * (len(self.torch_shape) - array.ndim) + array.shape)
        if self.flat:
            return array if array.size == 1 else self.columns(array)
        array = np.moveaxis(array, 0, -1)
        while array.ndim > 1 and array.shape[0] == 1:
            array = array[0]
        return array

    def columns(self, array: Array) -> Array:
        """[..., C·H·W] in PyTorch's order -> the same columns in the Program's order. `self` is flat."""
        image = array.reshape(*array.shape[:-1], self.channels, *self.sizes)
        return np.moveaxis(image, array.ndim - 1, -1).reshape(array.shape)
