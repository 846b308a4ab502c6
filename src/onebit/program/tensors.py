"""Tensor types, and the packed form of ±1 tensors.

Bit 1 means +1 and bit 0 means −1. Channel c, the last axis, is bit c mod 32 of little-endian word
c div 32; padding bits are zero and the true channel count is part of the type, never of the words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.errors import ProgramError

WORD_BITS = 32

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
Attr = int | float | str | tuple[int, ...]  # an attribute of a node


class DType(StrEnum):
    """Element types a Program may hold. `bits` elements are ±1."""

    BITS = "bits"
    U8 = "u8"
    I8 = "i8"
    I32 = "i32"
    F32 = "f32"


_STORAGE: dict[DType, np.dtype[Any]] = {
    DType.BITS: np.dtype("<u4"),
    DType.U8: np.dtype("u1"),
    DType.I8: np.dtype("i1"),
    DType.I32: np.dtype("<i4"),
    DType.F32: np.dtype("<f4"),
}


@dataclass(frozen=True)
class TensorType:
    """dtype and logical shape. For a value the shape is that of one sample: the batch axis is implied."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Logical elements (of one sample, for a value)."""
        return prod(self.shape)

    @property
    def channels(self) -> int:
        """Size of the last axis."""
        if not self.shape:
            raise ProgramError(f"{self} has no channel axis")
        return self.shape[-1]

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """dtype of the NumPy array that holds such a tensor."""
        return _STORAGE[self.dtype]

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """Shape of the NumPy array that holds such a tensor; packed along the last axis for bits."""
        if self.dtype is DType.BITS:
            return (*self.shape[:-1], words(self.channels))
        return self.shape

    @property
    def nbytes(self) -> int:
        """Bytes of storage."""
        return prod(self.storage_shape) * self.storage_dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"


def words(channels: int) -> int:
    """32-bit words that hold this many one-bit channels."""
    return -(-channels // WORD_BITS)


def pack_bits(positive: Array) -> npt.NDArray[np.uint32]:
    """Pack a boolean array (..., C), True meaning +1, into (..., ceil(C/32)) little-endian words."""
    positive = np.asarray(positive, dtype=bool)
    *lead, channels = positive.shape
    padded = np.zeros((*lead, words(channels) * WORD_BITS), dtype=bool)
    padded[..., :channels] = positive
    packed = np.packbits(padded, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u4").astype(np.uint32, copy=False)


def unpack_bits(packed: Array, channels: int) -> npt.NDArray[np.bool_]:
    """The inverse of pack_bits: (..., ceil(C/32)) words to a boolean array (..., C)."""
    raw = np.ascontiguousarray(packed.astype("<u4", copy=False)).view(np.uint8)
    return np.unpackbits(raw, axis=-1, count=channels, bitorder="little").astype(bool)
