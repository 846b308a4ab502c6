"""Pools, and the mean over channels (csrc/cuda/pool)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from onebit.program import DType, Node, TensorType
from onebit.program.tensors import Array
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.buffers import DeviceValue, launch_over, put, tensor_of
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.pack import Bits, row_bytes
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry, ints

_MAX = {
    dtype: Entry("pool/pool.cu", "max_pool", {"TYPE": number})
    for number, dtype in enumerate((DType.F32, DType.I32, DType.U8, DType.BITS))
}
_MEAN, _CHANNEL_MEAN = (Entry("pool/pool.cu", name, {}) for name in ("mean_pool", "channel_mean"))
ENTRIES = (*_MAX.values(), _MEAN, _CHANNEL_MEAN)


class Pool:
    """max_pool2d or avg_pool2d; bits may be flipped after it, a channel each."""

    def __init__(
        self, device: Device, node: Node, x: TensorType, out: TensorType, flip: Array | None = None
    ) -> None:
        self._device = device
        kernel = ints(node, "kernel")
        self._numbers = WindowGeometry.of(node, x, out, (kernel[0], kernel[1])).numbers
        self._flip = None
        self._channels = x.shape[2]
        if x.dtype is DType.BITS:
            self._channels = row_bytes(x.shape[2]) // 4
            if flip is not None:
                words = np.zeros(self._channels, np.uint32)
                words[: flip.size] = flip
                self._flip = put(words, device)
        self._max = node.op == "max_pool2d"
        self._entry = _MAX[x.dtype] if self._max else _MEAN
        self._padding = int(cast(int, node.attrs.get("count_include_pad", 0)))

    @property
    def nbytes(self) -> int:
        """Bytes of the constants."""
        return 0 if self._flip is None else self._flip.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        target = tensor_of(outs[0])
        outputs = target.nbytes // 4 if isinstance(outs[0], Bits) else target.numel()
        special = self._flip if self._max else self._padding
        numbers = (outputs, self._channels, *self._numbers)
        launch_over(self._device, self._entry, outputs, tensor_of(inputs[0]), target, special, *numbers)


class ChannelMean:
    """The op `channel_mean`."""

    nbytes = 0

    def __init__(self, device: Device, channels: int) -> None:
        self._device = device
        self._channels = channels

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        target = tensor_of(outs[0])
        rows = target.numel()
        launch_over(
            self._device, _CHANNEL_MEAN, 32 * rows, tensor_of(inputs[0]), target, rows, self._channels
        )
