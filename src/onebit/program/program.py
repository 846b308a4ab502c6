"""Program: a graph that can be saved, summarized and run, and how one is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from onebit.program import file_format
from onebit.program.graph import Graph
from onebit.program.reference import execute
from onebit.program.summary import summarize
from onebit.program.tensors import Array


@dataclass(frozen=True, repr=False)
class Program(Graph):
    """A typed, packed, framework-free description of one inference."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `.onebit` file; see `onebit.program.save`."""
        file_format.save(self, path)

    def summary(self) -> str:
        """Layer by layer: what is 1-bit, what is not and why; bytes on disk; MACs. See `summarize`."""
        return str(summarize(self))

    def run(self, *inputs: Array) -> dict[str, Any]:
        """Run the reference executor (slow, NumPy): output name → array. See `onebit.program.execute`."""
        return execute(self, *inputs)


def load(path: str | os.PathLike[str]) -> Program:
    """Read and verify a `.onebit` file. Its arrays are read-only and belong to the program.

    Raises ProgramError, naming the file and the rule, for anything but a valid program; OSError where the
    file cannot be opened. Allocates the tensors once, plus what the header (4 MiB at most) needs.
    """
    graph = file_format.read(path)
    return Program(graph.inputs, graph.outputs, graph.nodes, graph.constants, graph.values, graph.metadata)
