"""Passes that tidy: nodes nobody reads, and names a reader understands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from onebit.program import OPS, Program
from onebit.program.limits import MAX_NAME


def remove_dead_code(program: Program) -> Program:
    """Drop nodes that no output needs, and constants that no node reads."""
    needed = set(program.outputs)
    kept = []
    for node in reversed(program.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    needed.update(program.inputs)
    return replace(
        program,
        nodes=tuple(reversed(kept)),
        constants={name: c for name, c in program.constants.items() if name in needed},
        values={name: t for name, t in program.values.items() if name in needed},
    )


def name_values(program: Program, hints: Mapping[str, str]) -> Program:
    """Names from the model: values as "layer.op", constants by their dotted name or as "layer.operand".

    Outputs of the Program are called "output", or "output0", "output1", …; inputs keep their names.
    """
    taken: set[str] = set()
    renamed = {name: _unique(name, taken) for name in program.inputs}
    outputs = [name for name in program.outputs if name not in renamed]
    for position, name in enumerate(outputs):
        renamed[name] = _unique("output" if len(outputs) == 1 else f"output{position}", taken)
    for node in program.nodes:
        if node.output not in renamed:
            renamed[node.output] = _unique(_join(node.layer, node.op), taken)
        for name, operand in zip(node.inputs, OPS[node.op].operands_for(len(node.inputs)), strict=True):
            if name in program.constants and name not in renamed:
                hint = hints.get(name, "") or operand.name
                renamed[name] = _unique(hint if "." in hint else _join(node.layer, hint), taken)
    return replace(
        program,
        inputs=tuple(renamed[name] for name in program.inputs),
        outputs=tuple(renamed[name] for name in program.outputs),
        nodes=tuple(
            replace(node, inputs=tuple(renamed[n] for n in node.inputs), output=renamed[node.output])
            for node in program.nodes
        ),
        constants={renamed[name]: c for name, c in program.constants.items()},
        values={renamed[name]: t for name, t in program.values.items()},
    )


def _join(layer: str, word: str) -> str:
    return f"{layer}.{word}" if layer else word


def _unique(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^\w.\-]", "_", name)[-(MAX_NAME - 12) :]
    candidate, number = base, 1
    while candidate in taken:
        number += 1
        candidate = f"{base}_{number}"
    taken.add(candidate)
    return candidate
