"""The operators on the CPU: checks, one address a tensor, one call of the compiled library.

Products are prepared, weights prepacked, once for each combination of weights, epilogue and geometry, and
kept as long as these tensors live. A prepared product holds copies, so it is used only while the version
counters of PyTorch say that nobody wrote to the tensors since. (Writing through `tensor.data` escapes these
counters, here as in PyTorch itself.)
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onebit.ops.operators import (
    Options,
    Result,
    conv_result,
    matmul_result,
    packed_result,
    real_matmul_result,
    refuse_gradients,
)
from onebit.ops.plain import unpack_bits
from onebit.runtime import EngineError
from onebit.runtime.products import Conv2d, Epilogue, Matmul, Product, Source, Store, pack_sign_planes

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
    key = (Matmul, k, a.dtype, a.shape[-1:], *_ids(b, chosen))
    ready = _find(key, b, chosen)
    if ready is None:
        result = matmul_result(a, b, k, chosen)
        source = Source.SIGNS if a.dtype == torch.float32 else Source.BITS
        ready = _prepare(key, source, Matmul(b.shape[0], k), b, chosen, result, axes=1)
    refuse_gradients("binary_matmul", a, chosen.scale, chosen.bias)
    return _run("binary_matmul", ready, a, a.shape[:-1])


def f32_binary_matmul(x: Tensor, b: Tensor, **options: Any) -> Tensor:
    """See operators.py."""
    chosen = Options(to_float=True, **options)
    key = (Matmul, None, x.dtype, x.shape[-1:], *_ids(b, chosen))
    ready = _find(key, b, chosen)
    if ready is None:
        result = real_matmul_result(x, b, chosen)
        ready = _prepare(key, Source.REAL, Matmul(b.shape[0], x.shape[-1]), b, chosen, result, axes=1)
    refuse_gradients("f32_binary_matmul", x, chosen.scale, chosen.bias)
    return _run("f32_binary_matmul", ready, x, x.shape[:-1])


def binary_conv2d(x: Tensor, weight: Tensor, channels: int, **options: Any) -> Tensor:
    """See operators.py."""
    source = Source.BITS
    if x.dtype == torch.float32:
        source = Source.SIGNS
        if not x.is_contiguous() and x.shape[-1:] == (channels,):  # in planes: transposing bits is cheaper
            source, x = Source.BITS, pack_bits(x)
    return _conv("binary_conv2d", source, x, weight, channels, Options(**options))


def f32_binary_conv2d(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """See operators.py."""
    channels = x.shape[-1] if x.ndim else 0
    return _conv("f32_binary_conv2d", Source.REAL, x, weight, channels, Options(to_float=True, **options))


def _conv(op: str, source: Source, x: Tensor, weight: Tensor, channels: int, options: Options) -> Tensor:
    windows = (*map(tuple, options[:3]), options.groups, options.padding_value)
    key = (Conv2d, source, channels, windows, x.dtype, x.shape[1:], *_ids(weight, options))
    ready = _find(key, weight, options)
    if ready is None:
        result = conv_result(op, x, weight, channels, options)
        shape = _shape(x, weight, channels, options)
        ready = _prepare(key, source, shape, weight, options, result, axes=3)
    refuse_gradients(op, x, options.scale, options.bias)
    return _run(op, ready, x, x.shape[:1])


def _shape(x: Tensor, weight: Tensor, channels: int, options: Options) -> Conv2d:
    def pair(numbers: Sequence[int]) -> tuple[int, int]:
        first, second = numbers
        return first, second

    return Conv2d(
        weight.shape[0],
        channels,
        pair(x.shape[1:3]),
        pair(weight.shape[1:3]),
        pair(options.stride),
        pair(options.padding),
        pair(options.dilation),
        options.groups,
        options.padding_value,
    )


# ---- prepared products ----


class _Ready(NamedTuple):
    """A prepared product, and the tensors whose contents it copied with their versions."""

    product: Product | None  # None where there are no outputs
    trail: tuple[int, ...]  # axes of the result behind those of the batch
    dtype: torch.dtype
    seen: tuple[tuple[weakref.ref[Tensor], int] | None, ...]


_products: dict[tuple[object, ...], _Ready] = {}


def _ids(weights: Tensor, options: Options) -> tuple[object, ...]:
    _, _, _, _, _, scale, bias, threshold, flip, *flags = options
    return id(weights), id(scale), id(bias), id(threshold), id(flip), *flags


def _find(key: tuple[object, ...], weights: Tensor, options: Options) -> _Ready | None:
    """What was prepared for this key, if the tensors are the same and nobody wrote to them since."""
    ready = _products.get(key)
    if ready is None:
        return None
    for mark, tensor in zip(ready.seen, (weights, *options.constants), strict=True):
        if mark and tensor is not None and (mark[0]() is not tensor or mark[1] != tensor._version):
            return None
    return ready


def _prepare(
    key: tuple[object, ...],
    source: Source,
    shape: Matmul | Conv2d,
    weights: Tensor,
    options: Options,
    result: Result,
    *,
    axes: int,
) -> _Ready:
    """Prepare a product; axes: of the result, behind those of the batch. All arguments have been checked."""
    constants = (weights, *options.constants)
    held = [None if t is None else t.contiguous() for t in constants]  # until the library has copied them
    data, *addresses = (0 if t is None else t.data_ptr() for t in held)
    store = Store.BITS if options.threshold is not None else Store(int(options.stores_floats))
    try:
        epilogue = Epilogue(store, *addresses)
        first = options.channels_first
        product = Product(shape, data, epilogue, source=source, channels_first=first) if shape.n else None
    except EngineError as error:
        raise ValueError(f"onebit: the weights or the epilogue: {error}") from None
    # Tensors of inference mode count no versions: nobody could tell whether they still are what was prepared.
    countable = not any(t is not None and t.is_inference() for t in constants)
    seen = tuple(None if t is None or not countable else (_watch(t, key), t._version) for t in constants)
    ready = _Ready(product, result.shape[-axes:], result.dtype, seen)
    if countable:
        while len(_products) >= MAX_PREPARED:
            _products.pop(next(iter(_products)), None)
        _products[key] = ready
    return ready


def _watch(tensor: Tensor, key: tuple[object, ...]) -> weakref.ref[Tensor]:
    """A reference that takes the product with it when the tensor goes."""
    pop = _products.pop  # bound here, for when Python ends and has cleared the names of modules
    return weakref.ref(tensor, lambda _: pop(key, None) and None)


def _run(op: str, ready: _Ready, x: Tensor, batch: Sequence[int]) -> Tensor:
    out = torch.empty((*batch, *ready.trail), dtype=ready.dtype)
    if out.numel() == 0 or ready.product is None:
        return out
    if not x.is_contiguous():
        x = x.contiguous()
    try:
        ready.product.run(prod(batch), x.data_ptr(), out.data_ptr(), torch.get_num_threads())
    except EngineError as error:
        raise ValueError(f"onebit::{op}: the first input: {error}") from None
    return out
