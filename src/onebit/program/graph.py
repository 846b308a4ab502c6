"""The graph of a Program: nodes, constants, and the types of values. Reading it needs nothing but the ops.

Values and constants share one namespace. Nodes stand in topological order and have one output each.
The ops themselves are defined in `onebit.program.ops`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from onebit.program.ops import OPS, Call, Constants, Op
from onebit.program.tensors import Array, Attr, DType, TensorType, unpack_bits

CLASSES = "classes"  # the one key of metadata under which a list stands


@dataclass(frozen=True)
class Node:
    """One operation. `inputs` name values or constants, in the order the op defines."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    layer: str = ""  # the module this came from, e.g. "features.3"; for summaries, profiles and errors
    version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by its fields: a mapping proxy can be neither."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self), tuple({**values, "attrs": dict(self.attrs)}.values())

    @property
    def facts(self) -> Op:
        """The definition of its op, with the facts that hold wherever it runs. The op must be known."""
        return OPS[self.op]


@dataclass(frozen=True)
class Constant:
    """A stored tensor. `array` has the storage dtype and storage shape of `type`, C-contiguous."""

    type: TensorType
    array: Array

    @property
    def logical(self) -> Array:
        """The array as ops see it: bits as int8 ±1 of the logical shape."""
        if self.type.dtype is not DType.BITS:
            return self.array
        return np.where(unpack_bits(self.array, self.type.channels), np.int8(1), np.int8(-1))


@dataclass(frozen=True)
class Graph:
    """A whole inference: typed inputs, nodes, constants, and which values are its outputs.

    Whatever works on Programs inside this room takes a Graph; `onebit.program.Program` is one that can also
    be saved, summarized and run.

    `values` holds the type of every input and node output. Shapes of values are those of one sample.
    `metadata` is text by key, and under "classes" a list of names: see `classes`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    values: Mapping[str, TensorType]
    metadata: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, one a channel of the first output; () where nothing tells them."""
        return tuple(self.metadata.get(CLASSES, ()))

    def text(self, key: str) -> str:
        """The metadata's text under this key; "" where there is none."""
        found = self.metadata.get(key, "")
        return found if isinstance(found, str) else ""

    def __repr__(self) -> str:
        """One line, since constants may be megabytes; `summary()` says more."""
        ends = [
            ", ".join(f"{name} {self.values.get(name, '?')}" for name in names)
            for names in (self.inputs, self.outputs)
        ]
        return f"{type(self).__name__}({ends[0]} → {ends[1]}, {len(self.nodes)} nodes)"

    def type_of(self, name: str) -> TensorType:
        """Type of a value or a constant."""
        constant = self.constants.get(name)
        return constant.type if constant is not None else self.values[name]

    def call_of(self, node: Node) -> Call:
        """A node as the facts of its op see it."""
        types = tuple(self.type_of(name) for name in node.inputs)
        return Call(types, tuple(name in self.constants for name in node.inputs), node.attrs)

    def constants_of(self, node: Node) -> Constants:
        """The operands of a node that are constants, as logical arrays; None for the others."""
        return tuple(self.constants[name].logical if name in self.constants else None for name in node.inputs)

    def with_outputs(self, *names: str) -> Self:
        """The same program with these values as its outputs, e.g. to look at hidden bits.

        Names of classes are kept only if the first output stays what it is.
        """
        metadata = {k: v for k, v in self.metadata.items() if k != CLASSES or names[:1] == self.outputs[:1]}
        return replace(self, outputs=tuple(names), metadata=metadata)
