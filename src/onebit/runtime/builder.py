"""From steps to a plan of the C library: one builder call a step.

The library copies or prepacks every constant during its call, so nothing of the Program stays alive.
"""

from __future__ import annotations

from ctypes import byref, c_int32, c_uint64, c_void_p
from dataclasses import dataclass
from math import prod
from typing import cast

import numpy as np

from onebit.errors import EngineError
from onebit.program import OPS, Node, Program, TensorType
from onebit.program.fusion import Step, fuse
from onebit.program.tensors import Array
from onebit.runtime.abi import (
    MAX_PARTS,
    Binary,
    Conv,
    ConvFamily,
    Dtype,
    EpilogueKind,
    Gemm,
    GemmFamily,
    OpInfo,
    Pooling,
    Unary,
    Window,
)
from onebit.runtime.library import Library

_GEMMS = {kind.name.lower(): kind for kind in GemmFamily}
_CONVS = {f"{kind.name.lower()}2d": kind for kind in ConvFamily}
_POOLS = ("max_pool2d", "avg_pool2d")
_LAYOUT_OPS = ("reshape", "permute", "concat")
_UNARY = {kind.name.lower(): kind for kind in Unary}
_BINARY = {kind.name.lower(): kind for kind in Binary}
_PLAIN = ("sign", "to_float", "scale_pixels", "channel_mean")
_WITH_CHANNELS = ("threshold", "affine")  # constants for each channel follow x

ENGINE_OPS = frozenset((*_GEMMS, *_CONVS, *_POOLS, *_LAYOUT_OPS, *_UNARY, *_BINARY, *_PLAIN, *_WITH_CHANNELS))
"""The ops of a Program that the engine has."""


@dataclass(frozen=True)
class OpRecord:
    """One op of a run: the layer and the ops of the Program that it does, its kernel, products a sample."""

    layer: str
    op: str
    variant: str
    macs: int


def build_plan(
    library: Library, program: Program, isa: str, max_memory: int
) -> tuple[c_void_p, list[OpRecord]]:
    """A finished plan (the caller owns the reference) and its ops. The program must be verified."""
    plan = c_void_p()
    library.call("onebit_plan_create", isa.encode(), max_memory, byref(plan))
    try:
        return plan, _EngineBuilder(library, program, plan, max_memory).build()
    except BaseException:
        library.functions.onebit_plan_release(plan)
        raise


def rows_and_channels(type_: TensorType) -> tuple[int, int]:
    """The two numbers that the engine needs of a shape: the product of the leading axes, and the last."""
    return (prod(type_.shape[:-1]), type_.shape[-1]) if type_.shape else (1, 1)


def rounded_attributes(node: Node) -> Array:
    """The attributes of an op whose attributes are numbers, in their order, as float32."""
    with np.errstate(over="ignore"):  # beyond float32: an infinity, which bounds nothing
        return np.array([node.attrs[name] for name in OPS[node.op].attrs]).astype(np.float32)


def _pointer(array: Array) -> int:
    return int(array.ctypes.data)


def _ints(node: Node, name: str) -> tuple[int, ...]:
    return cast(tuple[int, ...], node.attrs[name])


class _EngineBuilder:
    def __init__(self, library: Library, program: Program, plan: c_void_p, max_memory: int) -> None:
        self.library = library
        self.program = program
        self.plan = plan
        self.max_memory = max_memory
        self.values: dict[str, int] = {}

    def build(self) -> list[OpRecord]:
        for name in self.program.inputs:
            type_ = self.program.values[name]
            self.values[name] = self._call("input", Dtype[type_.dtype.name], *rows_and_channels(type_))
        records: list[OpRecord] = []
        for step in fuse(self.program):
            self.values[step.output] = self._build(step)
            records.extend(self._new_records(step, len(records)))
        for name in self.program.outputs:
            self.library.call("onebit_plan_output", self.plan, self.values[name])
        self.library.call("onebit_plan_finish", self.plan)
        return records

    def _call(self, name: str, *arguments: object) -> int:
        value = c_int32()
        self.library.call(f"onebit_plan_{name}", self.plan, *arguments, byref(value))
        return value.value

    def _new_records(self, step: Step, known: int) -> list[OpRecord]:
        info = OpInfo()
        records = []
        for index in range(known, self.library.functions.onebit_plan_ops(self.plan)):
            self.library.call("onebit_plan_op", self.plan, index, byref(info))
            layer = next((node.layer for node in step.nodes if node.layer), "")
            records.append(OpRecord(layer, step.op, info.variant.decode(), info.macs))
        return records

    def _build(self, step: Step) -> int:
        node = step.nodes[0]
        try:
            if node.op not in ENGINE_OPS:
                raise EngineError(f"the engine has no op {node.op!r}; `Program.run` has, slowly")
            return self._product(step, node) if step.epilogue else self._single(step, node)
        except EngineError as error:
            layer = f" (layer {node.layer!r})" if node.layer else ""
            raise EngineError(f"{step.op}{layer}: {error}") from error

    def _constant(self, name: str) -> Array:
        return self.program.constants[name].array

    def _product(self, step: Step, node: Node) -> int:
        """A GEMM or a convolution with its epilogue."""
        call: Gemm | Conv
        if node.op in _GEMMS:
            call = Gemm(family=_GEMMS[node.op])
            call.n, call.k = self.program.constants[node.inputs[1]].type.shape
        else:
            call = self._conv(node)
        weights = self._constant(node.inputs[1])
        call.input = self.values[node.inputs[0]]
        call.weights, call.weights_bytes = _pointer(weights), weights.nbytes
        call.epilogue = EpilogueKind[step.epilogue.upper()]
        call.multiplier = node.attrs.get("multiplier", 0)
        call.offset = node.attrs.get("offset", 0)
        if step.scale is not None and step.bias is not None:
            call.scale, call.bias = _pointer(step.scale), _pointer(step.bias)
        if step.threshold is not None and step.flip is not None:
            call.threshold, call.flip = _pointer(step.threshold), _pointer(step.flip)
        return self._call("gemm" if node.op in _GEMMS else "conv", byref(call))

    def _conv(self, node: Node) -> Conv:
        n, kernel_h, kernel_w, _ = self.program.constants[node.inputs[1]].type.shape
        window = self._window(node, (kernel_h, kernel_w))
        padding_value = node.attrs.get("padding_value", 0)
        groups = node.attrs["groups"]
        return Conv(family=_CONVS[node.op], window=window, n=n, groups=groups, padding_value=padding_value)

    def _window(self, node: Node, kernel: tuple[int, int]) -> Window:
        height, width, _ = self.program.values[node.inputs[0]].shape
        stride, padding = _ints(node, "stride"), _ints(node, "padding")
        dilation = _ints(node, "dilation") if "dilation" in node.attrs else (1, 1)
        return Window(height, width, *kernel, *stride, *dilation, *padding)

    def _pool(self, step: Step, node: Node) -> int:
        kernel_h, kernel_w = _ints(node, "kernel")
        kind = Pooling.MAX
        if node.op == "avg_pool2d":
            kind = Pooling.PADDED if node.attrs["count_include_pad"] else Pooling.MEAN
        flip = None if step.flip is None else _pointer(step.flip)
        window = self._window(node, (kernel_h, kernel_w))
        return self._call("pool", kind, self.values[node.inputs[0]], byref(window), flip)

    def _single(self, step: Step, node: Node) -> int:
        if node.op in _BINARY:
            return self._binary(node)
        if node.op in _POOLS:
            return self._pool(step, node)
        if node.op in _LAYOUT_OPS:
            return self._layout_op(node)
        x = self.values[node.inputs[0]]
        if node.op in _PLAIN:
            return self._call(node.op, x)
        if step.threshold is not None and step.flip is not None:
            thresholds = step.threshold
            return self._call("threshold", x, _pointer(thresholds), _pointer(step.flip), thresholds.size)
        if node.op in _WITH_CHANNELS:
            constants = [self._constant(name) for name in node.inputs[1:]]
            return self._call(node.op, x, *map(_pointer, constants), constants[0].size)
        parameters = rounded_attributes(node)
        return self._call("unary", _UNARY[node.op], x, _pointer(parameters), parameters.size)

    def _layout_op(self, node: Node) -> int:
        values = [self.values[name] for name in node.inputs]
        if node.op == "reshape":
            return self._call("reshape", *values, *rows_and_channels(self.program.values[node.output]))
        if node.op == "permute":
            sizes, axes = self.program.values[node.inputs[0]].shape, _ints(node, "axes")
            if not axes:  # a permute of no axes
                return values[0]
            numbers = c_uint64 * len(axes)
            return self._call("permute", *values, len(axes), numbers(*sizes), numbers(*axes))
        while len(values) > 1:
            parts = values[:MAX_PARTS]
            joined = self._call("concat", (c_int32 * len(parts))(*parts), len(parts))
            values[:MAX_PARTS] = [joined]
        return values[0]

    def _binary(self, node: Node) -> int:
        kind = _BINARY[node.op]
        a, b = node.inputs
        if a in self.values and b in self.values:
            return self._call("binary", kind, self.values[a], self.values[b])
        first = a not in self.values
        constant = self._expanded(self._constant(a if first else b), self.program.values[node.output])
        value = self.values[b if first else a]
        return self._call("binary_constant", kind, value, _pointer(constant), constant.size, int(first))

    def _expanded(self, constant: Array, type_: TensorType) -> Array:
        """A broadcast constant as the library takes it: one number, one a channel, or one an element."""
        if constant.size == 1:
            return constant
        if constant.shape[-1] == constant.size == type_.channels:
            return constant
        if type_.nbytes > self.max_memory:
            raise EngineError(f"a constant of {type_.nbytes} bytes exceeds max_memory={self.max_memory}")
        return np.ascontiguousarray(np.broadcast_to(constant, type_.shape))
