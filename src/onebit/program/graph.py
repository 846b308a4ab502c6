"""Program: a typed, packed, framework-free description of one inference. Data only; no behaviour lives here.

Values and constants share one namespace. Nodes stand in topological order and have one output each.
The ops themselves are defined in `onebit.program.ops`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onebit.program.tensors import Array, TensorType

if TYPE_CHECKING:
    import os

Attr = int | float | str | tuple[int, ...]


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


@dataclass(frozen=True)
class Constant:
    """A stored tensor. `array` has the storage dtype and storage shape of `type`, C-contiguous."""

    type: TensorType
    array: Array


@dataclass(frozen=True)
class Program:
    """A whole inference: typed inputs, nodes, constants, and which values are its outputs.

    `values` holds the type of every input and node output. Shapes of values are those of one sample.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    values: Mapping[str, TensorType]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line, since constants may be megabytes; `summary()` says more."""
        ends = [
            ", ".join(f"{name} {self.values.get(name, '?')}" for name in names)
            for names in (self.inputs, self.outputs)
        ]
        return f"Program({ends[0]} → {ends[1]}, {len(self.nodes)} nodes)"

    def type_of(self, name: str) -> TensorType:
        """Type of a value or a constant."""
        constant = self.constants.get(name)
        return constant.type if constant is not None else self.values[name]

    def with_outputs(self, *names: str) -> Program:
        """The same program with these values as its outputs, e.g. to look at hidden bits."""
        return replace(self, outputs=tuple(names))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `.onebit` file; see `onebit.program.save`."""
        from onebit.program.file_format import save

        save(self, path)

    def summary(self) -> str:
        """Layer by layer: what is 1-bit, what is not and why; bytes on disk; MACs. See `summarize`."""
        from onebit.program.summary import summarize

        return str(summarize(self))

    def run(self, *inputs: Array) -> dict[str, Any]:
        """Run the reference executor (slow, NumPy): output name → array. See `onebit.program.reference`."""
        from onebit.program.reference import execute

        return execute(self, *inputs)
