"""Ops over windows of an image that need no tensor cores: pools, and products by the definition.

The kernels are in csrc/cuda/pool and csrc/cuda/direct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from onebit.program import DType, Node, Program, TensorType
from onebit.program.tensors import Array
from onebit.runtime.cuda.catalog import Entry
from onebit.runtime.cuda.device import Device
from onebit.runtime.cuda.packing import Bits, row_bytes
from onebit.runtime.cuda.values import Value, launch_over, put, tensor_of

_MAX = {
    dtype: Entry("pool/pool.cu", "max_pool", {"TYPE": number})
    for number, dtype in enumerate((DType.F32, DType.I32, DType.U8, DType.BITS))
}
_MEAN, _CHANNEL_MEAN = (Entry("pool/pool.cu", name, {}) for name in ("mean_pool", "channel_mean"))
_DIRECT = {
    dtype: Entry("direct/direct.cu", "direct", {"INPUT": number})
    for number, dtype in enumerate((DType.BITS, DType.U8, DType.F32))
}
ENTRIES = (*_MAX.values(), _MEAN, _CHANNEL_MEAN, *_DIRECT.values())


@dataclass(frozen=True)
class Geometry:
    """The windows of a convolution or pool, in the order in which kernels take them."""

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int
    out_h: int
    out_w: int

    @classmethod
    def of(cls, node: Node, x: TensorType, out: TensorType, kernel: tuple[int, int]) -> Geometry:
        """That of a node over x[H, W, C] → out[OH, OW, ·]."""
        stride, padding = _ints(node, "stride"), _ints(node, "padding")
        dilation = _ints(node, "dilation") if "dilation" in node.attrs else (1, 1)
        # One tap along an axis has no use for a dilation, which may be as large as an int32 can be.
        near = [d if k > 1 else 1 for d, k in zip(dilation, kernel, strict=True)]
        numbers = (*x.shape[:2], *kernel, *stride, *near, padding[0], padding[2], *out.shape[:2])
        return cls(*numbers)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output has one tap, the pixel at its own place."""
        kernel, stride = (self.kernel_h, self.kernel_w), (self.stride_h, self.stride_w)
        same = (self.out_h, self.out_w, self.top, self.left) == (self.height, self.width, 0, 0)
        return kernel == stride == (1, 1) and same

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(vars(self).values())


def _ints(node: Node, name: str) -> tuple[int, ...]:
    return cast(tuple[int, ...], node.attrs[name])


class Pool:
    """max_pool2d or avg_pool2d; bits may be flipped after it, a channel each."""

    def __init__(
        self, device: Device, node: Node, x: TensorType, out: TensorType, flip: Array | None = None
    ) -> None:
        self._device = device
        kernel = _ints(node, "kernel")
        self._numbers = Geometry.of(node, x, out, (kernel[0], kernel[1])).numbers
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

    def __call__(self, inputs: Sequence[Value], outs: Sequence[Value]) -> None:
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

    def __call__(self, inputs: Sequence[Value], outs: Sequence[Value]) -> None:
        """Run on the current stream."""
        target = tensor_of(outs[0])
        rows = target.numel()
        launch_over(
            self._device, _CHANNEL_MEAN, 32 * rows, tensor_of(inputs[0]), target, rows, self._channels
        )


class DirectProduct:
    """A product with one-bit weights by the definition, where no fast kernel fits: the raw sums."""

    def __init__(self, device: Device, program: Program, node: Node, x: TensorType, out: TensorType) -> None:
        self._device = device
        self._entry = _DIRECT[x.dtype]
        weights = program.constants[node.inputs[1]]
        self._weights = put(weights.array, device)
        if node.op.endswith("gemm"):
            n, k = weights.type.shape
            self._sizes: tuple[int, ...] = (1, 1, k, n, 1, *(1,) * 6, 0, 0, 1, 1)
        else:
            n, kernel_h, kernel_w, _ = weights.type.shape
            geometry = Geometry.of(node, x, out, (kernel_h, kernel_w)).numbers
            groups = cast(int, node.attrs["groups"])
            self._sizes = (*geometry[:2], x.shape[2], n, groups, *geometry[2:])
        attrs = (node.attrs.get(name, 0) for name in ("padding_value", "multiplier", "offset"))
        self._attrs = tuple(cast(int, value) for value in attrs)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._weights.nbytes

    def __call__(self, inputs: Sequence[Value], outs: Sequence[Value]) -> None:
        """Run on the current stream."""
        target = tensor_of(outs[0])
        numbers = (target.numel(), *self._sizes, *self._attrs)
        x = tensor_of(inputs[0])
        launch_over(self._device, self._entry, target.numel(), x, self._weights, target, *numbers)
