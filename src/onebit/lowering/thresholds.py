"""Pass: integer sum → float32 arithmetic → sign becomes one integer comparison a channel.

Between an accumulator and a sign there stand only ops that are monotone in their input for given constants:
conversion, BatchNorm (a rounded affine map), scale, bias, division, ReLU, Hardtanh, PReLU with slopes >= 0.
Rounding is monotone, so the whole float32 expression f is, and sign(f(a)) changes at most once over the
integers a the accumulator can reach. Where it changes is found by bisection on f itself, evaluated with the
reference executor, never by algebra: the threshold is right for the floats, not for the real numbers.

  sign f rises at t:  bit = (a >= t)
  sign f falls at t:  bit = (a >= t) xor 1
  never changes:      t = −2^31, always reached; flip gives −1
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from onebit.program import Constant, DType, Node, Program, TensorType, execute, pack_bits
from onebit.program.tensors import Array

ALWAYS = -(2**31)
_SUMS_OF_SIGNS = ("binary_gemm", "binary_conv2d")
_ARITHMETIC = ("add", "sub", "mul", "div")


@dataclass(frozen=True)
class _Chain:
    """The nodes from an accumulator to a sign, the sign included, and the accumulator's range."""

    nodes: tuple[Node, ...]
    accumulator: str
    low: int
    high: int


def make_thresholds(program: Program) -> Program:
    """Every sign that is a monotone function of one integer sum becomes a `threshold`; others stay."""
    program = _signs_before_reshapes(program)
    producers = {node.output: node for node in program.nodes}
    constants = dict(program.constants)
    nodes: list[Node] = []
    for node in program.nodes:
        chain = _find_chain(program, producers, node) if node.op == "sign" else None
        solved = _solve(program, chain) if chain is not None else None
        if chain is None or solved is None:
            nodes.append(node)
            continue
        thresholds, flip = solved
        names = (f"{node.output}.thresholds", f"{node.output}.flip")
        channels = len(thresholds)
        constants[names[0]] = Constant(TensorType(DType.I32, (channels,)), thresholds)
        constants[names[1]] = Constant(TensorType(DType.BITS, (channels,)), pack_bits(flip))
        layer = chain.nodes[-2].layer if len(chain.nodes) > 1 else node.layer
        nodes.append(Node("threshold", (chain.accumulator, *names), node.output, layer=layer))
    return replace(program, nodes=tuple(nodes), constants=constants)


def _signs_before_reshapes(program: Program) -> Program:
    """sign(reshape(x)) = reshape(sign(x)): the sign moves next to the arithmetic it belongs to."""
    producers = {node.output: node for node in program.nodes}
    values = dict(program.values)
    nodes: list[Node] = []
    for node in program.nodes:
        source = producers.get(node.inputs[0])
        if (
            node.op != "sign"
            or source is None
            or source.op != "reshape"
            or not values[source.inputs[0]].shape
        ):
            nodes.append(node)
            continue
        early = f"{node.output}.early"
        values[early] = TensorType(DType.BITS, values[source.inputs[0]].shape)
        nodes.append(replace(node, inputs=(source.inputs[0],), output=early))
        nodes.append(replace(source, inputs=(early,), output=node.output))
    return replace(program, nodes=tuple(nodes), values=values)


def _find_chain(program: Program, producers: dict[str, Node], sign: Node) -> _Chain | None:
    nodes = [sign]
    name = sign.inputs[0]
    while True:
        node = producers.get(name)
        if node is None:
            return None
        if node.op == "to_float":
            bounds = _range(program, producers, node.inputs[0])
            if bounds is None:
                return None
            return _Chain((node, *reversed(nodes)), node.inputs[0], *bounds)
        following = _monotone_input(program, node)
        if following is None:
            return None
        nodes.append(node)
        name = following


def _monotone_input(program: Program, node: Node) -> str | None:
    """The value in which `node` is monotone channel by channel, or None."""
    if node.op in ("relu", "hardtanh", "affine"):
        return node.inputs[0]
    if node.op == "prelu":
        return node.inputs[0] if bool((program.constants[node.inputs[1]].array >= 0).all()) else None
    if node.op not in _ARITHMETIC:
        return None
    a, b = node.inputs
    if b in program.constants:
        value, constant = a, b
    elif a in program.constants and node.op != "div":  # c / x jumps at 0
        value, constant = b, a
    else:
        return None
    # One number a channel: a constant that also differs along other axes has no per-channel threshold.
    return value if all(size == 1 for size in program.constants[constant].type.shape[:-1]) else None


def _range(program: Program, producers: dict[str, Node], name: str) -> tuple[int, int] | None:
    """Smallest and largest value that an i32 accumulator can hold."""
    node = producers.get(name)
    while node is not None and node.op in ("reshape", "permute", "max_pool2d"):
        node = producers.get(node.inputs[0])
    if node is None:
        return None
    if node.op == "concat":
        ranges = [_range(program, producers, part) for part in node.inputs]
        known = [r for r in ranges if r is not None]
        return (min(r[0] for r in known), max(r[1] for r in known)) if known == ranges else None
    if node.op not in (*_SUMS_OF_SIGNS, "u8_gemm", "u8_conv2d"):
        return None
    k = prod(program.constants[node.inputs[1]].type.shape[1:])  # taps outside the image add no more
    if node.op in _SUMS_OF_SIGNS:
        return -k, k
    multiplier, offset = node.attrs["multiplier"], node.attrs["offset"]
    assert isinstance(multiplier, int)
    assert isinstance(offset, int)
    largest = k * max(abs(offset), abs(255 * multiplier + offset))
    return -largest, largest


def _solve(program: Program, chain: _Chain) -> tuple[Array, Array] | None:
    """(thresholds i32[C], flip bool[C]), or None where f is not finite, hence perhaps not monotone."""
    function = _ChainFunction(program, chain)
    channels = program.type_of(chain.accumulator).channels
    low = np.full(channels, chain.low, dtype=np.int64)
    high = np.full(channels, chain.high, dtype=np.int64)
    if not all(function.is_finite(x) for x in (low, high, np.zeros_like(low))):
        return None
    first, last = function.positive(low), function.positive(high)
    # Invariant: the sign at `low` is `first`; at `high` it differs, unless it never does.
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        same = function.positive(middle) == first
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    constant = first == last
    thresholds = np.where(constant, ALWAYS, high).astype("<i4")
    flip = np.where(constant, ~first, first)
    return np.ascontiguousarray(thresholds), flip


class _ChainFunction:
    """A chain as a function of one accumulator value a channel, run by the reference executor."""

    def __init__(self, program: Program, chain: _Chain) -> None:
        channels = program.type_of(chain.accumulator).channels
        names = {name for node in chain.nodes for name in node.inputs if name in program.constants}
        self._input = chain.accumulator
        self._floats = [node.output for node in chain.nodes[:-1]]
        self._output = chain.nodes[-1].output
        values = {node.output: TensorType(DType.F32, (channels,)) for node in chain.nodes}
        values[self._output] = TensorType(DType.BITS, (channels,))
        values[self._input] = TensorType(DType.I32, (channels,))
        constants = {name: _last_axis(program.constants[name]) for name in names}
        self._program = Program((self._input,), (self._output,), chain.nodes, constants, values)

    def positive(self, accumulator: Array) -> Array:
        """Where the sign is +1; one bool a channel."""
        signs = execute(self._program, accumulator[None].astype(np.int32))[self._output]
        return np.asarray(signs[0] > 0)

    def is_finite(self, accumulator: Array) -> bool:
        """No step overflows or is undefined."""
        results = execute(self._program, accumulator[None].astype(np.int32), keep=self._floats)
        return all(bool(np.isfinite(results[name]).all()) for name in self._floats)


def _last_axis(constant: Constant) -> Constant:
    if len(constant.type.shape) <= 1:
        return constant
    shape = constant.type.shape[-1:]
    return Constant(
        TensorType(constant.type.dtype, shape), np.ascontiguousarray(constant.array.reshape(shape))
    )
