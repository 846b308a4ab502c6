"""The reference executor: slow, readable NumPy. What it computes is what a Program means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from onebit.errors import ProgramError
from onebit.program.float_environment import default_float_environment
from onebit.program.graph import Graph
from onebit.program.inputs import check_inputs
from onebit.program.tensors import Array
from onebit.program.verify import verify


@default_float_environment()
def execute(program: Graph, *inputs: Any, keep: Iterable[str] | Literal["all"] = ()) -> dict[str, Array]:
    """Run a Program on NumPy arrays; returns name → array (batch, *shape) for every output.

    inputs: one array an input, (batch, *shape), of exactly the dtype of its type; see `check_inputs`.
    keep: names of further values to return, e.g. hidden bits, or "all" for every value (inputs too).
    bits come back as int8 ±1 of the logical shape; other dtypes as themselves.
    Raises ProgramError for a broken program, wrong inputs or an unknown name in `keep`.
    """
    verify(program)
    arrays = dict(zip(program.inputs, check_inputs(program, inputs), strict=True))
    wanted = [*program.outputs, *(program.values if keep == "all" else keep)]
    for name in wanted:
        if name not in program.values:
            raise ProgramError(f"keep: found {name!r}, expected values among {', '.join(program.values)}")
    last_use = {name: index for index, node in enumerate(program.nodes) for name in node.inputs}
    for index, node in enumerate(program.nodes):
        operands = [
            program.constants[name].logical if name in program.constants else arrays[name]
            for name in node.inputs
        ]
        arrays[node.output] = node.facts.compute(operands, program.call_of(node))
        for name in {*node.inputs, node.output} - set(wanted):
            if last_use.get(name, index) == index:
                arrays.pop(name, None)
    return {name: np.ascontiguousarray(arrays[name]) for name in wanted}
