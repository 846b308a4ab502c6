"""From steps to a plan of the C library: one builder call a step.

The library copies or prepacks every constant during its call, so nothing of the Program stays alive.
"""

from __future__ import annotations

from ctypes import byref, c_int32, c_void_p
from dataclasses import dataclass
from math import prod

import numpy as np

from onebit.program import DType, Node, Program, TensorType
from onebit.program.tensors import Array
from onebit.runtime.errors import EngineError
from onebit.runtime.library import Gemm, Library, OpInfo
from onebit.runtime.plan import Step, plan_steps

_DTYPES = {DType.BITS: 0, DType.U8: 1, DType.I32: 2, DType.F32: 3, DType.I8: 4}
_FAMILIES = {"binary_gemm": 0, "u8_gemm": 1, "f32_binary_gemm": 2, "f32_gemm": 3}
_STORES = {"i32": 0, "f32": 1, "bits": 2}
_COMBINATIONS = {"add": 0, "sub": 1, "mul": 2, "div": 3}
_PLAIN = {"sign": "sign", "to_float": "to_float", "scale_pixels": "scale_pixels", "relu": "relu"}
_WITH_CHANNELS = ("threshold", "affine", "prelu")  # constants for each channel follow x

ENGINE_OPS = frozenset((*_FAMILIES, *_COMBINATIONS, *_PLAIN, *_WITH_CHANNELS, "hardtanh", "reshape"))
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
        return plan, _Builder(library, program, plan, max_memory).build()
    except BaseException:
        library.functions.onebit_plan_release(plan)
        raise


def rows_and_channels(type_: TensorType) -> tuple[int, int]:
    """The two numbers that the engine needs of a shape: the product of the leading axes, and the last."""
    return (prod(type_.shape[:-1]), type_.shape[-1]) if type_.shape else (1, 1)


def _pointer(array: Array) -> int:
    return int(array.ctypes.data)


class _Builder:
    def __init__(self, library: Library, program: Program, plan: c_void_p, max_memory: int) -> None:
        self.library = library
        self.program = program
        self.plan = plan
        self.max_memory = max_memory
        self.values: dict[str, int] = {}

    def build(self) -> list[OpRecord]:
        for name in self.program.inputs:
            type_ = self.program.values[name]
            self.values[name] = self._call("input", _DTYPES[type_.dtype], *rows_and_channels(type_))
        records: list[OpRecord] = []
        for step in plan_steps(self.program):
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
            if step.store:
                return self._gemm(step, node)
            return self._single(node)
        except EngineError as error:
            layer = f" (layer {node.layer!r})" if node.layer else ""
            raise EngineError(f"{step.op}{layer}: {error}") from error

    def _constant(self, name: str) -> Array:
        return self.program.constants[name].array

    def _gemm(self, step: Step, node: Node) -> int:
        weights = self._constant(node.inputs[1])
        n, k = self.program.constants[node.inputs[1]].type.shape
        gemm = Gemm(
            family=_FAMILIES[node.op],
            input=self.values[node.inputs[0]],
            n=n,
            k=k,
            weights=_pointer(weights),
            weights_bytes=weights.nbytes,
            store=_STORES[step.store],
        )
        if node.op == "u8_gemm":
            gemm.multiplier = node.attrs["multiplier"]
            gemm.offset = node.attrs["offset"]
        if step.scale is not None and step.bias is not None:
            gemm.scale, gemm.bias = _pointer(step.scale), _pointer(step.bias)
        if step.store == "bits":
            thresholds, flip = map(self._constant, step.nodes[1].inputs[1:])
            gemm.threshold, gemm.flip = _pointer(thresholds), _pointer(flip)
        return self._call("gemm", byref(gemm))

    def _single(self, node: Node) -> int:
        if node.op in _COMBINATIONS:
            return self._combine(node)
        x = self.values[node.inputs[0]]
        constants = [self._constant(name) for name in node.inputs[1:]]
        pointers = [_pointer(constant) for constant in constants]
        if node.op in _PLAIN:
            return self._call(_PLAIN[node.op], x)
        if node.op in _WITH_CHANNELS:
            return self._call(node.op, x, *pointers, constants[0].size)
        if node.op == "hardtanh":
            return self._call("clamp", x, node.attrs["min"], node.attrs["max"])
        return self._call("reshape", x, *rows_and_channels(self.program.values[node.output]))

    def _combine(self, node: Node) -> int:
        kind = _COMBINATIONS[node.op]
        a, b = node.inputs
        if a in self.values and b in self.values:
            return self._call("combine", kind, self.values[a], self.values[b])
        first = a not in self.values
        constant = self._expanded(self._constant(a if first else b), self.program.values[node.output])
        value = self.values[b if first else a]
        return self._call("combine_constant", kind, value, _pointer(constant), constant.size, int(first))

    def _expanded(self, constant: Array, type_: TensorType) -> Array:
        """A broadcast constant as the library takes it: one number, one a channel, or one an element."""
        if constant.size == 1:
            return constant
        if constant.shape[-1] == constant.size == type_.channels:
            return constant
        if type_.nbytes > self.max_memory:
            raise EngineError(f"a constant of {type_.nbytes} bytes exceeds max_memory={self.max_memory}")
        return np.ascontiguousarray(np.broadcast_to(constant, type_.shape))
