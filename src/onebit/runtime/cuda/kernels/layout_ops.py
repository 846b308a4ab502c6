"""Layout ops: copies by PyTorch, and kernels (csrc/cuda/layout_ops) where bits cross words."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch

from onebit.program import DType, TensorType
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.buffers import BufferForm, DeviceValue, launch_over, put, tensor_of
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.pack import Bits

_RESHAPE, _PERMUTE, _PLACE = (
    Entry("layout_ops/bits.cu", name, {}) for name in ("reshape", "permute", "place")
)
ENTRIES = (_RESHAPE, _PERMUTE, _PLACE)


def is_alias(x: TensorType, out: TensorType) -> bool:
    """Whether a reshape leaves memory as it is: always but for bits whose rows' padding would move."""
    if x.dtype is not DType.BITS:
        return True
    return x.shape[-1] == out.shape[-1] or (x.shape[-1] % 128 == 0 and out.shape[-1] % 128 == 0)


class ReshapeBits:
    """A reshape of bits that packs them anew."""

    nbytes = 0

    def __init__(self, device: Device) -> None:
        self._device = device

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        (x,), (out,) = inputs, outs
        assert isinstance(x, Bits)
        assert isinstance(out, Bits)
        pieces = out.data.numel() * 8
        launch_over(self._device, _RESHAPE, pieces, x.data, out.data, out.rows, out.count, x.count)


class Permute:
    """The op `permute`. Where channels stay last, whole words move."""

    def __init__(self, device: Device, x: TensorType, axes: tuple[int, ...]) -> None:
        self._device = device
        self._axes = (0, *(axis + 1 for axis in axes))
        self._lead = x.shape[:-1]
        self._bits = x.dtype is DType.BITS and axes[-1] != len(axes) - 1
        self._table: torch.Tensor | None = None
        if self._bits:
            sizes = [x.shape[axis] for axis in axes]
            steps = [prod(x.shape[axis + 1 :]) for axis in axes]
            table = [number for pair in zip(sizes[::-1], steps[::-1], strict=True) for number in pair]
            self._table = put(np.array(table, np.int32), device)
        self._sample = x.elements

    @property
    def nbytes(self) -> int:
        """Bytes of the constants."""
        return 0 if self._table is None else self._table.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        (x,), (out,) = inputs, outs
        if not isinstance(x, Bits) or not isinstance(out, Bits):
            tensor_of(out).copy_(tensor_of(x).permute(self._axes))
        elif self._table is None:
            words = x.data.view(torch.int32)
            batch = words.shape[0] // prod(self._lead)
            moved = words.view(batch, *self._lead, -1).permute(self._axes)
            out.data.view(torch.int32).view(moved.shape).copy_(moved)
        else:
            rank = self._table.numel() // 2
            numbers = (rank, out.rows, out.count, x.count, self._sample)
            pieces = out.data.numel() * 8
            launch_over(self._device, _PERMUTE, pieces, x.data, out.data, self._table, *numbers)


class Concat:
    """The op `concat`."""

    nbytes = 0

    def __init__(self, device: Device) -> None:
        self._device = device

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        (out,) = outs
        if not isinstance(out, Bits):
            torch.cat([tensor_of(x) for x in inputs], dim=-1, out=tensor_of(out))
            return
        first = 0
        for x in inputs:
            assert isinstance(x, Bits)
            pieces = out.data.numel() * 8
            numbers = (out.rows, out.count, x.count, first)
            launch_over(self._device, _PLACE, pieces, x.data, out.data, *numbers)
            first += x.count


class Copy:
    """The same value in other memory, bits as int8 of −1 and +1: what a user gets."""

    nbytes = 0

    def __init__(self, form: BufferForm) -> None:
        self._form = form

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        tensor_of(outs[0]).copy_(tensor_of(inputs[0]))
