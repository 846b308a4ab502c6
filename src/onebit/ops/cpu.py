"""The operators on the CPU: checks, one address a tensor, one call of the compiled library.

Products are prepared, weights prepacked, once for each combination of weights, epilogue and geometry, and
kept as long as these tensors live. A prepared product holds copies, so it is used only while the version
counters of PyTorch say that nobody wrote to the tensors since. (Writing through `tensor.data` escapes these
counters, here as in PyTorch itself.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from onebit.ops.operators import (
    Options,
    Result,
    conv_result,
    matmul_result,
    packed_result,
    real_matmul_result,
)
from onebit.ops.plain import unpack_bits
from onebit.runtime import EngineError
from onebit.runtime.products import Conv2d, Epilogue, Matmul, Product, Store, pack_sign_planes

__all__ = [
    "binary_conv2d",
    "binary_matmul",
    "f32_binary_conv2d",
    "f32_binary_matmul",
    "pack_bits",
    "unpack_bits",
]

MAX_PREPARED = 512  # beyond that, as where every image has a size of its own, the oldest go


def pack_bits(x: Tensor) -> Tensor:
    """See operators.py. Rows as they lie in memory; images in planes, seen channels last, are not copied."""
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
        return torch.where(x != x, x.float(), (x >= 0).float() * 2 - 1)
    return x if x.dtype == torch.float32 else x.float()


def binary_matmul(a: Tensor, b: Tensor, k: int, **options: Any) -> Tensor:
    """See operators.py."""
    chosen = Options(**options)
    result = matmul_result(a, b, k, chosen)
    return _run(a, b, Matmul(b.shape[0], k), result, chosen)


def f32_binary_matmul(x: Tensor, b: Tensor, **options: Any) -> Tensor:
    """See operators.py."""
    chosen = Options(dtype=torch.float32, **options)
    result = real_matmul_result(x, b, chosen)
    return _run(x, b, Matmul(b.shape[0], x.shape[-1]), result, chosen)


def binary_conv2d(x: Tensor, weight: Tensor, channels: int, **options: Any) -> Tensor:
    """See operators.py."""
    chosen = Options(**options)
    result = conv_result("binary_conv2d", x, weight, channels, chosen)
    return _run(x, weight, _conv(x, weight, channels, chosen), result, chosen)


def f32_binary_conv2d(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """See operators.py."""
    chosen = Options(dtype=torch.float32, **options)
    result = conv_result("f32_binary_conv2d", x, weight, x.shape[-1], chosen)
    return _run(x, weight, _conv(x, weight, x.shape[-1], chosen), result, chosen)


def _conv(x: Tensor, weight: Tensor, channels: int, options: Options) -> Conv2d:
    return Conv2d(
        weight.shape[0],
        channels,
        (x.shape[1], x.shape[2]),
        (weight.shape[1], weight.shape[2]),
        (options.stride[0], options.stride[1]),
        (options.padding[0], options.padding[1]),
        (options.dilation[0], options.dilation[1]),
        options.groups,
        options.padding_value,
    )


def _run(x: Tensor, weights: Tensor, shape: Matmul | Conv2d, result: Result, options: Options) -> Tensor:
    out = torch.empty(result.shape, dtype=result.dtype)
    if not out.numel():
        return out
    real = x.dtype == torch.float32
    constants = (weights, *options.constants)
    key = (shape, real, result.dtype, *map(id, constants))
    product = _prepared(key, constants) or _prepare(key, constants, shape, _store(options), real)
    if not x.is_contiguous():
        x = x.contiguous()
    batch = x.numel() // (x.shape[-1] if isinstance(shape, Matmul) else x[0].numel())
    try:
        product.run(batch, x.data_ptr(), out.data_ptr(), torch.get_num_threads())
    except EngineError as error:
        raise ValueError(f"onebit: the first input: {error}") from None
    return out


def _store(options: Options) -> Store:
    if options.threshold is not None:
        return Store.BITS
    return Store.F32 if options.stores_floats else Store.I32


# ---- prepared products ----

_Seen = tuple[tuple["weakref.ref[Tensor]", int] | None, ...]
_products: dict[tuple[object, ...], tuple[Product, _Seen]] = {}


def _prepared(key: tuple[object, ...], constants: Sequence[Tensor | None]) -> Product | None:
    found = _products.get(key)
    if found is None:
        return None
    product, seen = found
    for mark, tensor in zip(seen, constants, strict=True):
        if (
            mark is not None
            and tensor is not None
            and (mark[0]() is not tensor or mark[1] != tensor._version)
        ):
            return None
    return product


def _prepare(
    key: tuple[object, ...],
    constants: Sequence[Tensor | None],
    shape: Matmul | Conv2d,
    store: Store,
    real: bool,
) -> Product:
    held = [None if t is None else t.contiguous() for t in constants]  # until the library has copied them
    weights, scale, bias, threshold, flip = (0 if t is None else t.data_ptr() for t in held)
    try:
        product = Product(shape, weights, Epilogue(store, scale, bias, threshold, flip), real=real)
    except EngineError as error:
        raise ValueError(f"onebit: the weights or the epilogue: {error}") from None
    if not any(t is not None and t.is_inference() for t in constants):  # they count no versions
        while len(_products) >= MAX_PREPARED:
            _products.pop(next(iter(_products)), None)
        forget: Callable[[object], object] = partial(_forget, key)
        seen = tuple(None if t is None else (weakref.ref(t, forget), t._version) for t in constants)
        _products[key] = (product, seen)
    return product


def _forget(key: tuple[object, ...], _: object) -> None:
    _products.pop(key, None)
