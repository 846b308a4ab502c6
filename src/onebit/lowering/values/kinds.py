"""What a PyTorch value is while it is being lowered.

PyTorch writes ±1, integer sums and pixels as float32. A Program keeps them in their own types for as long as
it can, so each kind of value remembers its compact form and turns into float32 only where an op needs that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """The same for every sample: a tensor that broadcasts as PyTorch would broadcast it."""

    tensor: Tensor
    hint: str = ""  # dotted name in the model, where there is one
    from_sign: bool = False  # a sign or a comparison stands on its way from the parameters


@dataclass(frozen=True)
class Floats:
    """`name` is an f32 value of the Program."""

    name: str


@dataclass(frozen=True)
class Sums:
    """`name` is an i32 value; PyTorch sees integer·unit as float32."""

    name: str
    unit: float = 1.0  # a power of two


@dataclass(frozen=True)
class Signs:
    """`name` is a bits value; PyTorch sees pair[0] where the bit is −1 and pair[1] where it is +1.

    A comparison is a pair of bools; `where`, `* 2 - 1` and casts act on the pair, so every way to write a
    sign by hand ends as the pair (−1, +1).
    """

    name: str
    pair: Tensor  # shape (2,), any dtype

    @property
    def is_plus_minus(self) -> bool:
        """PyTorch sees just −1.0 and +1.0 in float32: the bits are the value."""
        return self.pair.dtype is torch.float32 and self.pair.tolist() == [-1.0, 1.0]


@dataclass(frozen=True)
class Bytes:
    """`name` is a u8 value; PyTorch sees table[byte].

    `floats` is what PyTorch sees, as an f32 value of the Program; None for raw bytes.
    """

    name: str
    table: Tensor  # shape (256,); uint8 for raw bytes, else float32
    floats: str | None = None


Value = Known | Floats | Sums | Signs | Bytes
Varying = Floats | Sums | Signs | Bytes


_V = TypeVar("_V", bound=Varying)


def moved(value: _V, move: Callable[[str], str]) -> _V:
    """The same value after `move`, an operation that computes nothing, on each name it stands under."""
    if isinstance(value, Bytes):
        floats = None if value.floats is None else move(value.floats)
        return replace(value, name=move(value.name), floats=floats)
    return replace(value, name=move(value.name))


@dataclass(frozen=True)
class Padded:
    """`value` with `fill` around each image of a sample: convolutions take it in, and nothing else can."""

    value: Varying
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    fill: float
