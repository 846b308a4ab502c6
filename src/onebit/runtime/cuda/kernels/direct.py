"""Products with one-bit weights by the definition, where no fast kernel fits (csrc/cuda/direct)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from onebit.program import DType, Node, Program, TensorType
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.buffers import DeviceValue, launch_over, put, tensor_of
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry

_DIRECT = {
    dtype: Entry("direct/direct.cu", "direct", {"INPUT": number})
    for number, dtype in enumerate((DType.BITS, DType.U8, DType.F32))
}
ENTRIES = tuple(_DIRECT.values())


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
            geometry = WindowGeometry.of(node, x, out, (kernel_h, kernel_w)).numbers
            groups = cast(int, node.attrs["groups"])
            self._sizes = (*geometry[:2], x.shape[2], n, groups, *geometry[2:])
        attrs = (node.attrs.get(name, 0) for name in ("padding_value", "multiplier", "offset"))
        self._attrs = tuple(cast(int, value) for value in attrs)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._weights.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        target = tensor_of(outs[0])
        numbers = (target.numel(), *self._sizes, *self._attrs)
        x = tensor_of(inputs[0])
        launch_over(self._device, self._entry, target.numel(), x, self._weights, target, *numbers)
