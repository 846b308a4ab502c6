"""What the operators do on every device: checks, products that are prepared once, one call.

Products are prepared, weights laid out for the kernel, once for each combination of weights, epilogue and
geometry, and kept as long as these tensors live. A prepared product holds copies, so it is used only while
the version counters of the tensors say that nobody wrote to them since. (Writing through `tensor.data`
escapes these counters, here as in PyTorch itself.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from onebit.errors import EngineError
from onebit.ops.operators import (
    Options,
    OutputSpec,
    conv_result,
    matmul_result,
    real_matmul_result,
    refuse_gradients,
)
from onebit.runtime.abi import EpilogueKind
from onebit.runtime.products import Conv2d, Matmul, Source

MAX_PREPARED = 512  # beyond that, as where every image has a size of its own, the oldest go

# Of a contiguous x and the count of its samples: the result, of a shape and dtype.
PreparedProduct = Callable[[Tensor, int, Sequence[int], torch.dtype], Tensor]


class ProductConstants(NamedTuple):
    """Contiguous tensors of a product; to be copied."""

    weights: Tensor
    scale: Tensor | None
    bias: Tensor | None
    threshold: Tensor | None
    flip: Tensor | None


class Backend(Protocol):
    """What a device has of its own."""

    def pack_bits(self, x: Tensor) -> Tensor:
        """onebit::pack_bits."""

    def prepare(
        self,
        shape: Matmul | Conv2d,
        source: Source,
        kind: EpilogueKind,
        constants: ProductConstants,
        channels_first: bool,
    ) -> PreparedProduct:
        """A product, ready to run; EngineError for what the device refuses."""


class Products:
    """The products of a device, named like the operators."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def binary_matmul(self, a: Tensor, b: Tensor, k: int, **options: Any) -> Tensor:
        """See operators.py."""
        chosen = Options(**options)
        key = (Matmul, k, a.dtype, a.shape[-1:], *_ids(b, chosen))
        ready = _find(key, b, chosen)
        if ready is None:
            result = matmul_result(a, b, k, chosen)
            source = Source.SIGNS if a.dtype == torch.float32 else Source.BITS
            ready = self._prepare(key, source, Matmul(b.shape[0], k), b, chosen, result, axes=1)
        refuse_gradients("binary_matmul", a, chosen.scale, chosen.bias)
        return _run("binary_matmul", ready, a, a.shape[:-1])

    def f32_binary_matmul(self, x: Tensor, b: Tensor, **options: Any) -> Tensor:
        """See operators.py."""
        chosen = Options(to_float=True, **options)
        key = (Matmul, None, x.dtype, x.shape[-1:], *_ids(b, chosen))
        ready = _find(key, b, chosen)
        if ready is None:
            result = real_matmul_result(x, b, chosen)
            shape = Matmul(b.shape[0], x.shape[-1])
            ready = self._prepare(key, Source.REAL, shape, b, chosen, result, axes=1)
        refuse_gradients("f32_binary_matmul", x, chosen.scale, chosen.bias)
        return _run("f32_binary_matmul", ready, x, x.shape[:-1])

    def binary_conv2d(self, x: Tensor, weight: Tensor, channels: int, **options: Any) -> Tensor:
        """See operators.py."""
        source = Source.BITS
        if x.dtype == torch.float32:
            source = Source.SIGNS
            if not x.is_contiguous() and x.shape[-1:] == (channels,):  # in planes: moving bits is cheaper
                source, x = Source.BITS, self._backend.pack_bits(x)
        return self._conv("binary_conv2d", source, x, weight, channels, Options(**options))

    def f32_binary_conv2d(self, x: Tensor, weight: Tensor, **options: Any) -> Tensor:
        """See operators.py."""
        channels = x.shape[-1] if x.ndim else 0
        chosen = Options(to_float=True, **options)
        return self._conv("f32_binary_conv2d", Source.REAL, x, weight, channels, chosen)

    def _conv(
        self, op: str, source: Source, x: Tensor, weight: Tensor, channels: int, options: Options
    ) -> Tensor:
        windows = (*map(tuple, options[:3]), options.groups, options.padding_value)
        key = (Conv2d, source, channels, windows, x.dtype, x.shape[1:], *_ids(weight, options))
        ready = _find(key, weight, options)
        if ready is None:
            result = conv_result(op, x, weight, channels, options)
            shape = _shape(x, weight, channels, options)
            ready = self._prepare(key, source, shape, weight, options, result, axes=3)
        refuse_gradients(op, x, options.scale, options.bias)
        return _run(op, ready, x, x.shape[:1])

    def _prepare(
        self,
        key: tuple[object, ...],
        source: Source,
        shape: Matmul | Conv2d,
        weights: Tensor,
        options: Options,
        result: OutputSpec,
        *,
        axes: int,
    ) -> _Ready:
        """Prepare a product; axes: of the result, behind those of the batch. All has been checked."""
        given = (weights, *options.constants)
        held = ProductConstants(
            weights.contiguous(), *(None if t is None else t.contiguous() for t in given[1:])
        )
        kind = (
            EpilogueKind.BITS if options.threshold is not None else EpilogueKind(int(options.stores_floats))
        )
        run = None
        if shape.n:
            try:
                run = self._backend.prepare(shape, source, kind, held, options.channels_first)
            except EngineError as error:
                raise ValueError(f"onebit: the weights or the epilogue: {error}") from None
        # Tensors of inference mode count no versions: nobody could tell whether they still are as prepared.
        countable = not any(t is not None and t.is_inference() for t in given)
        seen = tuple(None if t is None or not countable else (_watch(t, key), t._version) for t in given)
        ready = _Ready(run, result.shape[-axes:], result.dtype, seen)
        if countable:
            while len(_prepared) >= MAX_PREPARED:
                _prepared.pop(next(iter(_prepared)), None)
            _prepared[key] = ready
        return ready


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


class _Ready(NamedTuple):
    """A prepared product, and the tensors whose contents it copied with their versions."""

    run: PreparedProduct | None  # None where there are no outputs
    trail: tuple[int, ...]  # axes of the result behind those of the batch
    dtype: torch.dtype
    seen: tuple[tuple[weakref.ref[Tensor], int] | None, ...]


_prepared: dict[tuple[object, ...], _Ready] = {}


def _ids(weights: Tensor, options: Options) -> tuple[object, ...]:
    _, _, _, _, _, scale, bias, threshold, flip, *flags = options
    return id(weights), id(scale), id(bias), id(threshold), id(flip), *flags


def _find(key: tuple[object, ...], weights: Tensor, options: Options) -> _Ready | None:
    """What was prepared for this key, if the tensors are the same and nobody wrote to them since."""
    ready = _prepared.get(key)
    if ready is None:
        return None
    for mark, tensor in zip(ready.seen, (weights, *options.constants), strict=True):
        if mark and tensor is not None and (mark[0]() is not tensor or mark[1] != tensor._version):
            return None
    return ready


def _watch(tensor: Tensor, key: tuple[object, ...]) -> weakref.ref[Tensor]:
    """A reference that takes the product with it when the tensor goes."""
    pop = _prepared.pop  # bound here, for when Python ends and has cleared the names of modules
    return weakref.ref(tensor, lambda _: pop(key, None) and None)


def _run(op: str, ready: _Ready, x: Tensor, batch: Sequence[int]) -> Tensor:
    shape = (*batch, *ready.trail)
    count = 1
    for size in batch:
        count *= size
    if count == 0 or ready.run is None:
        return x.new_empty(shape, dtype=ready.dtype)
    try:
        return ready.run(x if x.is_contiguous() else x.contiguous(), count, shape, ready.dtype)
    except EngineError as error:
        raise ValueError(f"onebit::{op}: the first input: {error}") from None
