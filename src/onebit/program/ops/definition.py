"""What an op is: a name, a version, the roles of its inputs, its attributes, a typing rule and a meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

from onebit.errors import ProgramError
from onebit.program.graph import Attr
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


Infer = Callable[[Call], TensorType]
Compute = Callable[[Sequence[Array], Call], Array]


@dataclass(frozen=True)
class Op:
    """The whole definition of an op.

    `infer` gives the output type of one sample or raises a ProgramError (without the place: the verifier
    adds that). `compute` is the meaning: it takes one array an input (values batch first; bits as int8 ±1
    of the logical shape) and returns the output in the same form.
    `macs` counts multiply-accumulates of one sample; `one_bit_macs` says whether both of their factors are
    single bits; `why_not_one_bit` is shown to users for an op that works on wider numbers.
    """

    name: str
    definition: str
    operands: tuple[Operand, ...]
    infer: Infer
    compute: Compute
    attrs: Mapping[str, AttrKind] = field(default_factory=dict)
    version: int = 1
    macs: Callable[[Call], int] = lambda call: 0
    one_bit_macs: bool = False
    why_not_one_bit: str | Callable[[Call], str] = ""
    geometry: Callable[[Call], str] = lambda call: ""
    variadic: bool = False

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
