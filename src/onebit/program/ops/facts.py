"""The facts of an op that hold wherever it runs: what kind it is, what it costs, how exact it must be.

Each op states them (`onebit.program.ops.definition.Op`), and lowering, fusion, energy, summary, engines and
exports read them there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

from onebit.program.tensors import Array, Attr, TensorType


@dataclass(frozen=True)
class Call:
    """One use of an op, as the typing rule sees it: types, constness and attributes."""

    types: tuple[TensorType, ...]
    constant: tuple[bool, ...]
    attrs: Mapping[str, Attr]

    def integer(self, name: str) -> int:
        """An attribute that the schema declares INT."""
        return cast(int, self.attrs[name])

    def number(self, name: str) -> float:
        """An attribute that the schema declares FLOAT."""
        return cast(float, self.attrs[name])

    def ints(self, name: str) -> tuple[int, ...]:
        """An attribute that the schema declares SIZES or COUNTS."""
        return cast(tuple[int, ...], self.attrs[name])


Constants = tuple[Array | None, ...]
"""The operands of a use of an op that are constants, as logical arrays; None where a value stands."""


class Kind(Enum):
    """What an op does to elements."""

    GEMM = "matrix product"
    CONV = "convolution"
    POOL = "pool"  # reduces the pixels of a window
    CHANNEL_REDUCTION = "channel reduction"
    ELEMENTWISE = "elementwise"  # each element alone: the result lies as its widest operand does
    LAYOUT = "layout"  # moves elements and computes nothing
    VIEW = "view"  # gives the same elements, in the same order, another shape


@dataclass(frozen=True)
class Operations:
    """Arithmetic by format, as tables of energy list it. Moving data and looking at a sign count as none."""

    int32_adds: float = 0.0
    float_adds: float = 0.0
    float_multiplies: float = 0.0


NOTHING = Operations()
FLOAT_MAC = Operations(float_adds=1, float_multiplies=1)


@dataclass(frozen=True)
class Arithmetic:
    """What an op computes besides multiply-accumulates.

    Attributes:
        per_output: for each element of its output.
        per_input: for each element of its first input.
        as_float32: for each element of the output in the same network with float32 numbers for bits; None
            where that is `per_output` too.
    """

    per_output: Operations = NOTHING
    per_input: Operations = NOTHING
    as_float32: Operations | None = None


NO_ARITHMETIC = Arithmetic()


class MacKind(Enum):
    """The two factors of a multiply-accumulate: input × weight."""

    ONE_BIT = "1-bit × 1-bit"
    BYTE_BY_BIT = "8-bit × 1-bit"
    FLOAT_BY_BIT = "float32 × 1-bit"
    FLOAT = "float32 × float32"

    @property
    def operations(self) -> Operations:
        """One multiply-accumulate. 32 one-bit ones are a xor, a popcount and an addition of words, each
        counted as an addition; a one-bit weight times anything else is a signed addition."""
        return _PER_MAC[self]


_PER_MAC = {
    MacKind.ONE_BIT: Operations(int32_adds=3 / 32),
    MacKind.BYTE_BY_BIT: Operations(int32_adds=1),
    MacKind.FLOAT_BY_BIT: Operations(float_adds=1),
    MacKind.FLOAT: FLOAT_MAC,
}


@dataclass(frozen=True)
class ProductFacts:
    """Facts of a matrix product or a convolution.

    Attributes:
        macs: multiply-accumulates of one sample.
        kind: their factors.
        sums: the smallest and the largest sum of an integer product; None for one of floats.
    """

    macs: Callable[[Call], int]
    kind: MacKind
    sums: Callable[[Call], tuple[int, int]] | None


@dataclass(frozen=True)
class ScaleShift:
    """y = x·scale + shift, in the value at position `operand`, rounded once to float32.

    `scale` and `shift` broadcast to x; None stands for 1 and for nothing added. `exact` is False where the
    op's own result may differ from that in the last bit (a division by no power of two).
    """

    operand: int
    scale: Array | None
    shift: Array | None
    exact: bool = True


@dataclass(frozen=True)
class Monotone:
    """In the value at position `operand`, element by element and for the constants at hand.

    `rises`: a larger input gives no smaller output, in any channel. Else a larger one gives no larger output
    in some channels, and no smaller one in the others.
    """

    operand: int
    rises: bool


def never_scale_shift(constants: Constants) -> ScaleShift | None:
    """For an op that is no scale and shift."""
    return None


def not_monotone(constants: Constants) -> Monotone | None:
    """For an op that is not monotone in one value."""
    return None


def rises(constants: Constants) -> Monotone | None:
    """For an op whose output never falls when its first input rises."""
    return Monotone(0, True)


@dataclass(frozen=True)
class Tolerance:
    """How far the float32 of an engine may be from the definition.

    |engine − definition| <= roundings(call)·2^-24·Σ |terms|, where the terms are those of the op's sum (each
    divided by the divisor of a mean), plus `ulps` units in the last place.
    """

    roundings: Callable[[Call], int] = lambda call: 0
    ulps: int = 0


EXACT = Tolerance()


class FloatKind(Enum):
    """What becomes of an op in a float32 network."""

    LINEAR = "linear"
    CONV = "conv"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"
    MEAN = "mean"
    SIGN = "sign"  # of a float
    LEVEL = "level"  # the sign of the distance from a threshold
    SCALE_SHIFT = "scale_shift"  # one number of each a channel
    SCALE_PIXELS = "scale_pixels"
    SAME = "same"  # the number itself
    BINARY = "binary"  # of two values, or of a value and a constant that broadcasts
    FUNCTION = "function"  # of one value and the attributes
    PRELU = "prelu"
    CONCAT = "concat"
    TRANSPOSE = "transpose"
    RESHAPE = "reshape"


@dataclass(frozen=True)
class FloatForm:
    """What the op is in a float32 network, for peers and exports.

    Attributes:
        kind: how it is written.
        torch: BINARY and FUNCTION: its name under `torch`, e.g. "nn.functional.relu"; the attributes follow
            the value, in the order in which the op declares them.
        onnx: BINARY and FUNCTION: its operator in ONNX; the attributes follow as inputs.
        onnx_steps: FUNCTION: where that operator rounds otherwise than the op, operators that round alike,
            one after the other: (operator, operands …), an operand being "x" (the value), "_" (what the step
            before made) or a number.
    """

    kind: FloatKind
    torch: str = ""
    onnx: str = ""
    onnx_steps: tuple[tuple[str | float, ...], ...] = ()

    def __post_init__(self) -> None:
        named = self.kind in (FloatKind.BINARY, FloatKind.FUNCTION)
        if named != bool(self.torch) or named != bool(self.onnx):
            raise TypeError(f"float form {self.kind.value}: torch and onnx name a function, and only that")
        known = all(o in ("x", "_") for _, *rest in self.onnx_steps for o in rest if isinstance(o, str))
        if self.onnx_steps and not (self.kind is FloatKind.FUNCTION and known):
            raise TypeError(
                f"float form {self.kind.value}: onnx_steps are of a function, on x, _ and numbers"
            )
