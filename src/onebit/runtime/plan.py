"""From a Program to the steps of the engine: fusion, and dropping what no output needs.

A GEMM takes what follows it into its epilogue, as long as nobody else reads the values between and the
result is the same float for float:

* integer GEMM → `threshold` becomes bits that never were int32;
* integer GEMM → `to_float` → steps that are one fma(v, scale[n], bias[n]) together. v is an integer below
  2^31, so a factor that is a power of two is exact and may be followed by others; the first factor that is
  not one, and the first summand, end the chain: fma(v, s, −0.0) is v·s rounded once, fma(v, 1, b) is v + b.
* float GEMM → one such step: its sum is an arbitrary float, so a second factor could be inexact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onebit.program import Node, Program

Floats = npt.NDArray[np.float32]

INTEGER_GEMMS = ("binary_gemm", "u8_gemm")
FLOAT_GEMMS = ("f32_binary_gemm", "f32_gemm")
_MAX_EXPONENT = 64  # powers of two up to 2^±64 times an integer below 2^31 stay normal float32 numbers


@dataclass(frozen=True)
class Step:
    """One op of the engine: the nodes that it does, and, for a GEMM, the epilogue that the later ones became.

    `store` is "i32", "f32" (with scale and bias, f32[N]) or "bits" (nodes[1] is the threshold) for a GEMM,
    and "" for any other node, which stands alone.
    """

    nodes: tuple[Node, ...]
    store: str = ""
    scale: Floats | None = None
    bias: Floats | None = None

    @property
    def output(self) -> str:
        """The value that the step makes."""
        return self.nodes[-1].output

    @property
    def op(self) -> str:
        """The ops it does, e.g. "binary_gemm+threshold"."""
        return "+".join(node.op for node in self.nodes)


@dataclass(frozen=True)
class _Fma:
    """fma(v, scale, bias); `exact` says that v·scale is exact and bias is −0.0, so that a step may follow."""

    scale: Floats
    bias: Floats
    exact: bool


def plan_steps(program: Program) -> list[Step]:
    """The steps that compute the program's outputs, in order. The program must be verified."""
    live = _live_nodes(program)
    uses = Counter(name for node in live for name in node.inputs)
    uses.update(program.outputs)  # a value that the user sees is never fused away
    reader = {name: node for node in live for name in node.inputs}
    followers = {name: reader[name] for name in reader if uses[name] == 1}
    steps: list[Step] = []
    done: set[str] = set()
    for node in live:
        if node.output in done:
            continue
        step = _fuse(program, node, followers)
        done.update(part.output for part in step.nodes)
        steps.append(step)
    return steps


def _live_nodes(program: Program) -> list[Node]:
    needed = set(program.outputs)
    live: list[Node] = []
    for node in reversed(program.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            live.append(node)
    return live[::-1]


def _fuse(program: Program, node: Node, followers: Mapping[str, Node]) -> Step:
    if node.op in FLOAT_GEMMS:
        return _fuse_floats(program, [node], followers, integers=False)
    if node.op not in INTEGER_GEMMS:
        return Step((node,))
    after = followers.get(node.output)
    if after is not None and after.op == "threshold":
        return Step((node, after), "bits")
    if after is not None and after.op == "to_float":
        return _fuse_floats(program, [node, after], followers, integers=True)
    return Step((node,), "i32")


def _fuse_floats(program: Program, nodes: list[Node], followers: Mapping[str, Node], integers: bool) -> Step:
    channels = program.values[nodes[0].output].channels
    state = _Fma(np.ones(channels, np.float32), np.full(channels, -0.0, np.float32), True)
    while (after := followers.get(nodes[-1].output)) is not None:
        absorbed = _absorb(program, after, nodes[-1].output, state)
        if absorbed is None:
            break
        nodes.append(after)
        state = absorbed
        if not (integers and state.exact):
            break
    return Step(tuple(nodes), "f32", state.scale, state.bias)


def _absorb(program: Program, node: Node, value: str, state: _Fma) -> _Fma | None:
    """`state` followed by `node`, or None where that is not one fma."""
    if not state.exact:
        return None
    channels = len(state.scale)
    constants = [
        _per_channel(program.constants[name].array, channels) if name in program.constants else None
        for name in node.inputs
    ]
    first = node.inputs[0] == value
    constant = constants[-1] if first else constants[0]
    if constant is None:
        return None
    if node.op == "affine":
        scale, shift = constants[1], constants[2]
        return None if scale is None or shift is None else _scaled(state, scale, shift)
    if node.op == "mul":
        return _scaled(state, constant, state.bias)
    if node.op == "div" and first and _powers_of_two(constant):
        return _scaled(state, np.float32(1) / constant, state.bias)
    if node.op == "add":
        return _Fma(state.scale, constant, False)
    if node.op == "sub":
        return _Fma(state.scale, -constant, False) if first else _Fma(-state.scale, constant, False)
    return None


def _per_channel(array: npt.NDArray[np.float32], channels: int) -> Floats | None:
    """A constant that depends on the last axis only, as f32[channels]; None for any other."""
    if array.dtype != np.float32 or array.size not in (1, channels):
        return None
    if array.size == channels and array.shape[-1:] != (channels,) and channels != 1:
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()


def _scaled(state: _Fma, factor: Floats, bias: Floats) -> _Fma | None:
    """Another factor is exact on the scale or the two do not fold."""
    with np.errstate(all="ignore"):
        scale = state.scale * factor
    if not np.array_equal(scale.astype(np.float64), state.scale.astype(np.float64) * factor):
        return None
    return _Fma(scale, bias, _powers_of_two(scale) and bias is state.bias)


def _powers_of_two(numbers: Floats) -> bool:
    mantissa, exponent = np.frexp(numbers)
    return bool(np.all(np.abs(mantissa) == 0.5) and np.all(np.abs(exponent) <= _MAX_EXPONENT))
