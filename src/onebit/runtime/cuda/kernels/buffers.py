"""How a value of a Program lies on a device, and how plain kernels are launched over it.

A value is a tensor (batch, *shape) of its dtype; bits are `Bits` with a row for each row of each sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from onebit.program import DType, TensorType
from onebit.program.tensors import Array
from onebit.runtime.cuda.device.interface import Argument, Device
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.pack import Bits, row_bytes

DeviceValue = torch.Tensor | Bits

TORCH_DTYPES = {
    DType.BITS: torch.int8,  # in and out of an engine: ±1, a byte each
    DType.U8: torch.uint8,
    DType.I8: torch.int8,
    DType.I32: torch.int32,
    DType.F32: torch.float32,
}
ALIGNMENT = 256  # of a value in the arena: whole sectors, and what TMA and 16-byte loads ask for
_BLOCK = 256
_BLOCKS_A_MULTIPROCESSOR = 16


@dataclass(frozen=True)
class BufferForm:
    """Sizes of a value of one sample on a device.

    Attributes:
        type: its type in the Program.
        rows: the product of the axes before the last.
        channels: the last axis, 1 where there is none.
        nbytes: what it takes.
        index: the largest flat index that a kernel forms for it, plus 1.
    """

    type: TensorType
    rows: int
    channels: int
    nbytes: int
    index: int

    @classmethod
    def of(cls, type_: TensorType) -> BufferForm:
        """The form of a type."""
        rows, channels = (prod(type_.shape[:-1]), type_.shape[-1]) if type_.shape else (1, 1)
        if type_.dtype is DType.BITS:
            nbytes = rows * row_bytes(channels)
            return cls(type_, rows, channels, nbytes, 8 * nbytes)
        return cls(type_, rows, channels, type_.nbytes, rows * channels)

    def view(self, memory: torch.Tensor, batch: int) -> DeviceValue:
        """The value of `batch` samples that lies at the beginning of `memory` (uint8)."""
        used = memory[: batch * self.nbytes]
        if self.type.dtype is DType.BITS:
            return Bits(used.view(batch * self.rows, -1), self.channels)
        return used.view(TORCH_DTYPES[self.type.dtype]).view(batch, *self.type.shape)

    def alias(self, value: DeviceValue, batch: int) -> DeviceValue:
        """The same memory as a value of this form."""
        if isinstance(value, Bits):
            return Bits(value.data.view(batch * self.rows, -1), self.channels)
        return value.view(batch, *self.type.shape)


def tensor_of(value: DeviceValue) -> torch.Tensor:
    """The memory of a value."""
    return value.data if isinstance(value, Bits) else value


def put(array: Array, device: Device) -> torch.Tensor:
    """A constant on the device; words as int32, for torch has few operations on uint32."""
    array = np.ascontiguousarray(array)
    if array.dtype == np.uint32:
        array = array.view(np.int32)
    return torch.from_numpy(array.copy()).to(device.torch_device)


def launch_over(device: Device, entry: Entry, pieces: int, *args: Argument) -> None:
    """Launch a kernel whose threads take every so-many-th of `pieces` (at least 1), 256 threads a block."""
    kernel = device.kernel(entry.file, entry.name, entry.defines)
    blocks = min(-(-pieces // _BLOCK), device.multiprocessors * _BLOCKS_A_MULTIPROCESSOR)
    device.launch(kernel, (blocks, 1, 1), _BLOCK, 0, *args)
