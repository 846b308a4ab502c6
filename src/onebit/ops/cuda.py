"""The operators on a CUDA device: the kernels of onebit.runtime.cuda, on torch's current stream.

Unlike on a CPU a NaN is not refused but counts as −1: to look for one would wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onebit.ops import plain
from onebit.ops.operators import packed_result
from onebit.ops.prepared import PreparedProduct, ProductConstants
from onebit.runtime.abi import EpilogueKind
from onebit.runtime.products import Conv2d, Matmul, Source

if TYPE_CHECKING:
    from onebit.runtime.cuda.device.interface import Device

_PACKED_BY_KERNEL = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


def device_of(tensor: Tensor) -> Device:
    """The GPU that a tensor is on. EngineError, saying what to do, if onebit cannot use it."""
    from onebit.runtime.cuda.device.driver import cuda_device

    return cuda_device(tensor.device)


def pack_bits(x: Tensor) -> Tensor:
    """onebit::pack_bits."""
    result = packed_result(x)
    if x.numel() == 0 or x.dtype not in _PACKED_BY_KERNEL:
        return plain.pack_bits(x)
    from onebit.runtime.cuda.engine.packed_products import pack_signs

    return pack_signs(device_of(x), x.detach()).view(result.shape)


def prepare(
    shape: Matmul | Conv2d,
    source: Source,
    kind: EpilogueKind,
    constants: ProductConstants,
    channels_first: bool,
) -> PreparedProduct:
    """A product of the device's kernels; see prepared.Backend."""
    from onebit.runtime.cuda.engine.packed_products import DeviceProduct

    device = device_of(constants.weights)
    given = {name: t for name, t in constants._asdict().items() if t is not None}
    product = DeviceProduct(device, shape, source, kind, given)

    def run(x: Tensor, batch: int, out_shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        y = product(x.detach(), batch)
        if channels_first:
            y = y.movedim(-1, 1).contiguous()
        return y.view(out_shape)

    return run
