"""Products of float32 with float32 weights: PyTorch's own, that is cuBLAS and cuDNN, in full precision.

TF32 would keep 10 of 23 bits, far from the Program's tolerance, and PyTorch allows it in convolutions unless
told otherwise. So each call says "ieee", whatever the user's settings are, and puts these back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from onebit.program import Node, Program
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.buffers import DeviceValue, put, tensor_of


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, PyTorch's float32 products round to float32 only."""
    backends: Any = torch.backends
    settings = (backends.cuda.matmul, backends.cudnn.conv)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


class FloatGemm:
    """The op `f32_gemm`."""

    def __init__(self, device: Device, program: Program, node: Node) -> None:
        self._weights = put(program.constants[node.inputs[1]].array, device).T

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._weights.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        k, n = self._weights.shape
        with full_precision():
            torch.mm(tensor_of(inputs[0]).reshape(-1, k), self._weights, out=tensor_of(outs[0]).view(-1, n))


class FloatConv:
    """The op `f32_conv2d`, channels last."""

    def __init__(self, device: Device, program: Program, node: Node) -> None:
        array = program.constants[node.inputs[1]].array
        self._weights = put(np.ascontiguousarray(array), device).permute(0, 3, 1, 2)
        self._stride, self._dilation, self._padding = (
            cast(tuple[int, ...], node.attrs[name]) for name in ("stride", "dilation", "padding")
        )
        self._groups = cast(int, node.attrs["groups"])

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._weights.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        x = tensor_of(inputs[0]).permute(0, 3, 1, 2)
        top, bottom, left, right = self._padding
        padding = (top, left)
        if top != bottom or left != right:
            x = torch.nn.functional.pad(x, (left, right, top, bottom))
            padding = (0, 0)
        with full_precision():
            y = torch.nn.functional.conv2d(
                x, self._weights, None, self._stride, padding, self._dilation, self._groups
            )
        tensor_of(outs[0]).copy_(y.permute(0, 2, 3, 1))
