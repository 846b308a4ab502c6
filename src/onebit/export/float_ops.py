"""What a float32 network is made of: the op, the network, and why a Program may have none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.errors import OnebitError
from onebit.program.ops import FloatForm
from onebit.program.tensors import FloatArray

Shape = tuple[int, ...]


class NotComparable(OnebitError, ValueError):
    """This Program has an op that the float peers do not know."""


@dataclass(frozen=True)
class FloatOp:
    """One op of the float network, over values of one sample; images are [C, H, W].

    linear      weight [N, K], bias [N] or none              y = x·weightᵀ + bias, over the last axis
    conv        weight [N, C/groups, KH, KW], bias or none   attrs stride, padding (top, bottom, left, right),
                                                             dilation, groups, padding_value
    affine      scale [C], shift [C]                         y = x·scale + shift along attrs["axis"]
    signum                                                   −1 or +1; the input is never inside (−1, 1)
    sign                                                     +1 where x >= 0, else −1
    max_pool    attrs kernel, stride, padding, dilation      padding counts for nothing
    avg_pool    attrs kernel, stride, padding, count_include_pad
    mean        attrs axis                                   keeps the axis
    concat      attrs axis · transpose attrs axes · reshape attrs shape · take index [K] (reorders)
    binary      other (when one operand is constant), attrs["swapped"] if the constant stands first
    function    of one value and the attrs, in their order
    prelu       slope [C], attrs axis

    `form` names a binary or a function in PyTorch and in ONNX.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    form: FloatForm | None = None


@dataclass(frozen=True)
class FloatNetwork:
    """Ops in topological order, and the shape of one sample of every value (inputs and outputs included)."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[FloatOp, ...]
    shapes: dict[str, Shape]
    prepared: dict[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    """Input → (scale, shift), broadcast to a sample: what the caller does to it outside the timing."""

    def feed(self, arrays: Sequence[npt.NDArray[Any]]) -> list[FloatArray]:
        """A Program's inputs as this network takes them: float32, bits as ±1, pixels scaled already."""
        made = []
        for name, array in zip(self.inputs, arrays, strict=True):
            values = np.ascontiguousarray(array, dtype=np.float32)
            if name in self.prepared:
                scale, shift = self.prepared[name]
                values = values * scale + shift
            made.append(values)
        return made

    @property
    def parameter_bytes(self) -> int:
        """Bytes of weights, biases and other constants in float32."""
        return sum(array.nbytes for op in self.ops for array in op.arrays.values())


def spread(array: npt.NDArray[Any], op: FloatOp, shapes: dict[str, Shape]) -> npt.NDArray[Any]:
    """A constant of one number a channel, shaped to broadcast along the op's axis of a sample."""
    rank = len(shapes[op.inputs[0]])
    return array.reshape([-1 if axis == op.attrs["axis"] else 1 for axis in range(rank)])


def use_counts(ops: Iterable[FloatOp], outputs: Sequence[str]) -> dict[str, int]:
    """How often each value is read; an output of the network counts as one."""
    uses = dict.fromkeys(outputs, 1)
    for op in ops:
        for name in op.inputs:
            uses[name] = uses.get(name, 0) + 1
    return uses
