"""The operators on the CPU: one address a tensor, one call of the compiled library."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onebit.errors import EngineError
from onebit.ops.operators import packed_result
from onebit.ops.prepared import PreparedProduct, ProductConstants
from onebit.runtime.abi import EpilogueKind
from onebit.runtime.products import Conv2d, Epilogue, Matmul, ProductEngine, Source, pack_sign_planes


def pack_bits(x: Tensor) -> Tensor:
    """onebit::pack_bits. Rows as they lie in memory; images in planes, seen channels last, are not copied."""
    result = packed_result(x)
    x = _with_float_signs(x)
    channels, pixels = x.shape[-1], 1
    if not x.is_contiguous():
        planes = x.movedim(-1, 1)
        if planes.is_contiguous():
            pixels = planes[0, 0].numel() if planes.numel() else 1
        else:
            x = x.contiguous()
    out = torch.empty(result.shape, dtype=result.dtype)
    if out.numel():
        images = x.numel() // (channels * pixels)
        try:
            pack_sign_planes(images, channels, pixels, x.data_ptr(), out.data_ptr())
        except EngineError as error:
            raise ValueError(f"onebit::pack_bits: {error}") from None
    return out


def _with_float_signs(x: Tensor) -> Tensor:
    """A float32 tensor with the signs of x, NaN where x has one."""
    if x.dtype in (torch.float64, torch.int64):  # small or large numbers would not survive the rounding
        whole = x.view(torch.int64)  # compared as integers: the caller may take subnormals for 0
        negative = whole < 0
        if x.dtype == torch.float64:
            negative &= whole != torch.iinfo(torch.int64).min  # -0.0
        return torch.where(x != x, x.float(), 1 - negative.float() * 2)
    return x if x.dtype == torch.float32 else x.float()


def prepare(
    shape: Matmul | Conv2d,
    source: Source,
    kind: EpilogueKind,
    constants: ProductConstants,
    channels_first: bool,
) -> PreparedProduct:
    """A product of the compiled library; see prepared.Backend."""
    weights, *epilogue = (0 if t is None else t.data_ptr() for t in constants)
    product = ProductEngine(
        shape, weights, Epilogue(kind, *epilogue), source=source, channels_first=channels_first
    )

    def run(x: Tensor, batch: int, out_shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        out = torch.empty(out_shape, dtype=dtype)
        product.run(batch, x.data_ptr(), out.data_ptr(), torch.get_num_threads())
        return out

    return run
