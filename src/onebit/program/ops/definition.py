"""What an op is: a name, a version, the roles of its inputs, a typing rule, a meaning, and its facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from onebit.errors import ProgramError
from onebit.program.ops.facts import (
    Arithmetic,
    Call,
    Constants,
    FloatForm,
    Kind,
    Monotone,
    ProductFacts,
    ScaleShift,
    Tolerance,
)
from onebit.program.tensors import Array, DType, TensorType


class Role(Enum):
    """What may stand at an input position."""

    VALUE = "a value"  # a program input or a node's output
    CONST = "a constant"
    EITHER = "a value or a constant"


class AttrKind(Enum):
    """Types of attributes. A bool is never an int, a float is finite, tuples hold at most `MAX_RANK` ints."""

    INT = "an int of at most 64 bits"
    FLOAT = "a finite float"
    SIZES = "a tuple of ints >= 1"
    COUNTS = "a tuple of ints >= 0"


@dataclass(frozen=True)
class Operand:
    """One input position: its name in the op's definition, its role, and whether it is the weight matrix."""

    name: str
    role: Role = Role.VALUE
    weights: bool = False


Infer = Callable[[Call], TensorType]
Compute = Callable[[Sequence[Array], Call], Array]


@dataclass(frozen=True, kw_only=True)
class Op:
    """The whole definition of an op. A fact has no default: who leaves one out gets an error at import.

    Attributes:
        name: as a file has it.
        definition: one paragraph for people.
        operands: one for each input; of a `variadic` op the last one repeats.
        infer: the output type of one sample, or a ProgramError (without the place: the verifier adds that).
        compute: the meaning. It takes one array an input (values batch first; bits as int8 ±1 of the logical
            shape) and returns the output in the same form.
        kind: what it does to elements.
        product: facts of its multiply-accumulates; None for an op without any.
        arithmetic: what else it computes, for estimates of energy.
        monotone: in which value it is monotone, for given constants.
        scale_shift: the op as a scale and a shift of one value, for given constants: what may be part of the
            epilogue of a product.
        selects: every element of its output is an element of its inputs.
        tolerance: how far an engine may be from `compute`.
        float_form: what it is in a float32 network.
        why_not_one_bit: shown to users for an op that works on wider numbers; "" for others.
        geometry: the geometry of its windows, for summaries.
    """

    name: str
    definition: str
    operands: tuple[Operand, ...]
    infer: Infer
    compute: Compute
    kind: Kind
    product: ProductFacts | None
    arithmetic: Arithmetic
    monotone: Callable[[Constants], Monotone | None]
    scale_shift: Callable[[Constants], ScaleShift | None]
    selects: bool
    tolerance: Tolerance
    float_form: FloatForm
    why_not_one_bit: str | Callable[[Call], str]
    attrs: Mapping[str, AttrKind] = field(default_factory=dict)
    version: int = 1
    geometry: Callable[[Call], str] = lambda call: ""
    variadic: bool = False

    def __post_init__(self) -> None:
        if (self.product is not None) != (self.kind in (Kind.GEMM, Kind.CONV)):
            raise TypeError(f"op {self.name!r}: a {self.kind.value} with product={self.product}")

    @property
    def is_elementwise(self) -> bool:
        """It treats each element alone."""
        return self.kind is Kind.ELEMENTWISE

    @property
    def is_binary(self) -> bool:
        """An elementwise op of two operands, either of which may be a value."""
        return self.is_elementwise and sum(operand.role is not Role.CONST for operand in self.operands) == 2

    @property
    def is_layout(self) -> bool:
        """It moves elements or names them anew, and computes nothing."""
        return self.kind in (Kind.LAYOUT, Kind.VIEW)

    @property
    def is_integer_product(self) -> bool:
        """A product whose sums are exact integers."""
        return self.product is not None and self.product.sums is not None

    @property
    def is_float_product(self) -> bool:
        """A product whose sums are float32."""
        return self.product is not None and self.product.sums is None

    def macs(self, call: Call) -> int:
        """Multiply-accumulates of one sample."""
        return self.product.macs(call) if self.product is not None else 0

    def reason(self, call: Call) -> str:
        """Why this use of the op is not 1-bit; empty where it is."""
        return self.why_not_one_bit if isinstance(self.why_not_one_bit, str) else self.why_not_one_bit(call)

    def operands_for(self, count: int) -> tuple[Operand, ...]:
        """One operand for each of `count` inputs; the operands as defined where the count is wrong."""
        more = count - len(self.operands)
        return (*self.operands, *self.operands[-1:] * more) if self.variadic else self.operands


def require(condition: bool, rule: str, found: object, expected: object) -> None:
    """Raise the one error a broken rule gets: the rule, what was found, what was expected."""
    if not condition:
        raise ProgramError(f"{rule}: found {found}, expected {expected}")


def require_dtype(operand: str, found: TensorType, *expected: DType) -> None:
    """The operand has one of these element types."""
    names = " or ".join(dtype.value for dtype in expected)
    require(found.dtype in expected, f"dtype of {operand}", found, names)


def require_type(operand: str, found: TensorType, dtype: DType, *shape: int) -> None:
    """The operand has exactly this type."""
    expected = TensorType(dtype, shape)
    require(found == expected, f"type of {operand}", found, expected)


def require_channels(operand: str, found: TensorType) -> int:
    """The operand has a last axis; returns its size."""
    require(
        len(found.shape) >= 1, f"rank of {operand}", found, "at least 1 (the last axis holds the channels)"
    )
    return found.shape[-1]
