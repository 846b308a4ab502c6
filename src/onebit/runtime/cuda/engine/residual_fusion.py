"""Residual blocks: a binary convolution, a sum with what goes round it, and the signs of that, in one kernel.

    binary_conv2d → (one fma a channel) → affine or nothing → add(·, other) → the sum, and sign of it

Written one after the other, the convolution's floats are stored and read again only to be added. That is as
many bytes as the residual and the sum together, and bytes are what such a block waits for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onebit.program import Node, Program, TensorType
from onebit.program.fusion import Step
from onebit.runtime.cuda.kernels.epilogue import Residual


@dataclass(frozen=True)
class ResidualSum:
    """What follows a step that makes floats.

    Attributes:
        nodes: the nodes after the step's, in order: affine, add, sign, those that are there.
        other: the value that is added.
        total: the sum, or "" where nobody but its sign is wanted.
        signs: its signs, or "".
        epilogue: for the kernel.
    """

    nodes: tuple[Node, ...]
    other: str
    total: str
    signs: str
    epilogue: Residual


def find_sum(
    program: Program, types: Mapping[str, TensorType], readers: Mapping[str, Sequence[Node]], step: Step
) -> ResidualSum | None:
    """The residual sum that ends a step's floats, or None.

    Args:
        program: whose step it is.
        types: of all values.
        readers: the nodes that read each value, one for each time.
        step: a product that makes floats.
    """
    if step.epilogue != "f32" or step.scale is None or step.bias is None:
        return None
    channels = types[step.output].channels
    scale2, bias2 = np.ones(channels, np.float32), np.full(channels, -0.0, np.float32)
    nodes: list[Node] = []
    node = _only_reader(program, readers, step.output)
    if node is not None and node.op == "affine" and node.inputs[0] == step.output:
        scale2, bias2 = (program.constants[name].array for name in node.inputs[1:])
        nodes.append(node)
        node = _only_reader(program, readers, node.output)
    if node is None or node.op != "add":
        return None
    value = nodes[-1].output if nodes else step.output
    others = [name for name in node.inputs if name != value]
    if len(others) != 1 or others[0] in program.constants or types[others[0]] != types[value]:
        return None
    nodes.append(node)
    signs = next((reader for reader in readers.get(node.output, ()) if reader.op == "sign"), None)
    alone = signs is not None and _only_reader(program, readers, node.output) is signs
    if signs is not None:
        nodes.append(signs)
    return ResidualSum(
        tuple(nodes),
        others[0],
        "" if alone else node.output,
        "" if signs is None else signs.output,
        Residual(step.scale, step.bias, scale2, bias2),
    )


def _only_reader(program: Program, readers: Mapping[str, Sequence[Node]], name: str) -> Node | None:
    """The one node that reads a value, or None where there are more or the user does too."""
    found = readers.get(name, ())
    return found[0] if len(found) == 1 and name not in program.outputs else None
