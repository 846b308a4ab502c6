"""A Program's steps as ONNX nodes, one by one: what every rule needs.

Bits are float32 ±1, bytes float32, integer sums float32 while they stay within 2^24, where float32 holds
every integer, and int32 beyond. Images are channels first. A value is *exact* where line E1 of
docs/numerics.md promises one result; behind products of real numbers it is not, and there scales and shifts
are left to the runtime to fold into the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.export.channels_first import ChannelsFirst, Placed, Shape
from onebit.export.onnx.model_builder import ModelBuilder
from onebit.export.onnx.rounding import never_ties, write_fma
from onebit.program import DType, Program
from onebit.program.tensors import Array

EXACT_INTEGERS = 2**24  # float32 holds every integer up to this

_CASTS = {DType.BITS: "INT8", DType.I8: "INT8", DType.U8: "UINT8", DType.I32: "INT32"}
_BOUNDS = {DType.BITS: 1, DType.I8: 128, DType.U8: 255}


@dataclass(frozen=True)
class Held:
    """How a value is held.

    bound: |x| <= bound, for integers; None where nothing is known. exact: E1 promises it. int32: held as
    int32 and not as float32. sum: it is what a product made, so a runtime may fold what follows into it.
    """

    bound: int | None = None
    exact: bool = True
    int32: bool = False
    sum: bool = False


class Writer(ChannelsFirst):
    """Layouts and how values are held, beside the model that grows.

    fold: a runtime may fold scales and shifts into the weights where a value is not exact.
    """

    def __init__(self, program: Program, opset: int, *, fold: bool) -> None:
        super().__init__(program)
        self.fold = fold
        self.b = ModelBuilder(program, opset)
        self.held: dict[str, Held] = {}
        for name in program.inputs:
            dtype = program.values[name].dtype
            axes = tuple(range(len(program.values[name].shape)))
            inside = name if dtype in (DType.F32, DType.I32) else self.b.cast(name, "FLOAT")
            self.placed[name] = Placed(inside, axes)
            self.held[name] = Held(_BOUNDS.get(dtype), int32=dtype is DType.I32)

    def write_reshape(self, source: str, target: str, shape: Shape) -> str:
        sizes = self.b.constant(np.array([0, *shape], np.int64))  # 0 keeps the batch
        return self.b.node("Reshape", [source, sizes], self.b.name(target))

    def write_transpose(self, source: str, target: str, shape: Shape, order: tuple[int, ...]) -> str:
        perm = [0, *(axis + 1 for axis in order)]
        return self.b.node("Transpose", [source], self.b.name(target), perm=perm)

    def write_take(self, source: str, target: str, shape: Shape, index: npt.NDArray[np.intp]) -> str:
        indices = self.b.constant(index.astype(np.int64))
        return self.b.node("Gather", [source, indices], self.b.name(target), axis=1)

    def fresh(self, output: str) -> str:
        """A name like the value's own, which is an output's to keep."""
        return self.b.name(f"{output}.value" if output in self.program.outputs else f"{output}.")

    def place(self, output: str, name: str, like: Placed, held: Held) -> None:
        """The value `output` of the Program is `name`, with the axes (and the order) of `like`."""
        self.placed[output] = Placed(name, like.axes, like.index)
        self.held[output] = held

    def folds(self, held: Held) -> bool:
        """Whether scale and shift of such a value may be rounded as a runtime likes."""
        return self.fold and not held.exact

    def spread(self, like: Placed, array: Array) -> Array:
        """A number a channel, shaped to broadcast along the channels of `like`."""
        (array,) = self.per_channel(like, array)
        axis = self.channel_axis(like)
        return array.reshape([-1 if a == axis else 1 for a in range(len(like.axes))])

    def as_float(self, name: str, source: str) -> str:
        """`source`, which holds the value `name`, as float32."""
        return self.b.cast(source, "FLOAT") if self.held[name].int32 else source

    def barrier(self, name: str, source: str) -> str:
        """A value as a float; if it is a sum, one that no runtime folds the next scale or shift into.

        Folded into the weights or the bias of the product, these would be rounded inside the sum. The larger
        of a number and −∞ is that number.
        """
        held = self.held[name]
        if held.int32:
            return self.b.cast(source, "FLOAT")
        if not held.sum or self.folds(held):
            return source
        return self.b.node("Max", [source, self.b.constant(np.float32(-np.inf))])

    def fma(self, node_input: str, like: Placed, scale: Array, shift: Array) -> tuple[str, Held]:
        """fma(x, scale, shift), a number of each a channel; returns what it made and how that is held.

        One of the two alone is one operation of ONNX, rounded once. Exact values get an exact form.
        """
        held = self.held[node_input]
        factor, term = (self.b.constant(self.spread(like, array)) for array in (scale, shift))
        plain = Held(exact=held.exact)
        no_shift = bool(np.all((shift == 0) & np.signbit(shift)))
        no_scale = bool(np.all(scale == 1))
        if no_scale and no_shift:
            same = Held(held.bound, held.exact)
            return self.barrier(node_input, like.name), same
        if no_shift:
            return self.b.node("Mul", [self.barrier(node_input, like.name), factor]), plain
        if no_scale:
            return self.b.node("Add", [self.barrier(node_input, like.name), term]), plain
        x = self.as_float(node_input, like.name)
        if not self.folds(held):
            ties = not never_ties(scale, shift, held.bound)
            return write_fma(self.b, x, factor, term, ties=ties, output=""), plain
        return self.b.node("Add", [self.b.node("Mul", [x, factor]), term]), plain

    def finish(self) -> bytes:
        """Give each output its own name, type and the Program's axes; the model's bytes."""
        self.b.begin("")
        for name in dict.fromkeys(self.program.outputs):
            if name in self.program.inputs:
                continue
            source, dtype = self.in_order(name).name, self.program.values[name].dtype
            if dtype in _CASTS and not self.held[name].int32:
                self.b.cast(source, _CASTS[dtype], name)
            else:
                self.b.node("Identity", [source], name)
        return self.b.model()


def pads_of(padding: Any) -> list[int]:
    """Top, bottom, left, right as ONNX has them: all that begin, then all that end."""
    top, bottom, left, right = padding
    return [top, left, bottom, right]
