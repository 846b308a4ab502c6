"""Packed bits on the device: numbers → bits, and the count of ones a row.

On the device a row of bits is padded with zeros to a multiple of 16 bytes; otherwise it is as in a Program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.entry import Entry

TYPES = {
    torch.float32: 0,
    torch.float16: 1,
    torch.bfloat16: 2,
    torch.int8: 3,
    torch.bool: 4,
}
_PACK = {dtype: Entry("pack/pack.cu", "pack_rows", {"TYPE": number}) for dtype, number in TYPES.items()}
_COUNT = Entry("pack/count.cu", "count_rows", {})
ENTRIES = (*_PACK.values(), _COUNT)

_WARPS = 8  # a block, of both kernels
_SHARED_BYTES = 4 * _WARPS


def row_bytes(count: int) -> int:
    """Bytes of a packed row of `count` elements: a multiple of 16."""
    return -(-count // 128) * 16


@dataclass(frozen=True)
class Bits:
    """A packed matrix of ±1 on a device.

    Attributes:
        data: uint8 [rows, row_bytes(count)], contiguous; bits beyond `count` are zero.
        count: elements a row.
        sums: int32 [rows], the ones of each row, or None where nobody has counted them.
    """

    data: torch.Tensor
    count: int
    sums: torch.Tensor | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.data.shape[0]


def empty_bits(device: Device, rows: int, count: int, *, sums: bool) -> Bits:
    """Room for `rows` × `count` bits, and for their sums if `sums`; nothing is initialised."""
    data = torch.empty((rows, row_bytes(count)), dtype=torch.uint8, device=device.torch_device)
    return Bits(
        data,
        count,
        torch.empty(rows, dtype=torch.int32, device=device.torch_device) if sums else None,
    )


def pad_words(words: NDArray[np.uint32], count: int) -> NDArray[np.uint8]:
    """A Program's words, uint32 [rows, ⌈count/32⌉] → a device's rows, uint8 [rows, row_bytes(count)]."""
    rows, given = words.shape
    if given != -(-count // 32):
        raise ValueError(f"{count} bits are {-(-count // 32)} words a row, but the array has {given}")
    padded = np.zeros((rows, row_bytes(count) // 4), "<u4")
    padded[:, :given] = words
    return padded.view(np.uint8)


def pack(device: Device, x: torch.Tensor, out: Bits | None = None) -> Bits:
    """The signs of a matrix: bit 1 where x >= 0 (where it is true, for a bool), with the ones of each row.

    Args:
        device: where x lies.
        x: float32, float16, bfloat16, int8 or bool [rows, count], contiguous, count at least 1. A NaN becomes
            −1, as in the op `sign`: refuse it before, where it comes from a user.
        out: where to put the bits, and the sums if it has any; made if not given.

    Raises:
        ValueError: another dtype, or a tensor that is no contiguous matrix.
    """
    entry = _PACK.get(x.dtype)
    if entry is None:
        raise ValueError(f"{x.dtype} cannot be packed: give one of {', '.join(map(str, TYPES))}")
    if x.dim() != 2 or x.shape[1] < 1 or not x.is_contiguous():
        raise ValueError(
            f"pack takes a contiguous matrix, but x has shape {tuple(x.shape)} and strides {x.stride()}"
        )
    rows, count = x.shape
    if out is None:
        out = empty_bits(device, rows, count, sums=True)
    if out.data.shape != (rows, row_bytes(count)):
        raise ValueError(
            f"out has room for {tuple(out.data.shape)} bytes, not for {rows} rows of {count} bits"
        )
    _launch(device, entry, rows, -(-count // 1024), x, out.data, out.sums, rows, count)
    return out


def count_ones(device: Device, bits: Bits) -> Bits:
    """The same bits with the sums of their rows, counted now."""
    sums = torch.empty(bits.rows, dtype=torch.int32, device=device.torch_device)
    steps = -(-bits.data.shape[1] // 512)
    _launch(device, _COUNT, bits.rows, steps, bits.data, sums, bits.rows, bits.data.shape[1])
    return Bits(bits.data, bits.count, sums)


def _launch(device: Device, entry: Entry, rows: int, steps: int, *args: torch.Tensor | int | None) -> None:
    """Launch a kernel; a warp goes over a row in `steps`, so more warps than that are of no use."""
    if rows == 0:
        return
    warps = 1
    while warps < min(steps, _WARPS) and rows * warps < 8 * _WARPS * device.multiprocessors:
        warps *= 2
    kernel = device.kernel(entry.file, entry.name, entry.defines)
    grid = (-(-rows * warps // _WARPS), 1, 1)
    device.launch(kernel, grid, 32 * _WARPS, _SHARED_BYTES, *args, warps)
