"""Pass: integer sum → float32 arithmetic → sign becomes one integer comparison a channel.

Between an accumulator and a sign there stand only ops that are monotone in their input for given constants:
conversion, BatchNorm (a rounded affine map), scale, bias, division, ReLU, Hardtanh, PReLU with slopes >= 0.
Rounding is monotone, so the whole float32 expression f is, and sign(f(a)) changes at most once over the
integers a the accumulator can reach. Where it changes is found by bisection on f itself, evaluated with the
reference executor, never by algebra: the threshold is right for the floats, not for the real numbers.

  sign f rises at t:  bit = (a >= t)
  sign f falls at t:  bit = (a >= t) xor 1
  never changes:      t = −2^31, always reached; flip gives −1

A max-pool within a chain moves to one of its ends. If nothing before it falls, the largest sum gives the
largest float: it pools the sums. If nothing behind it falls, the sign of the largest float is the largest
sign: it pools the signs. A reshape behind it makes channels of what were pixels; each has its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onebit.lowering.passes.monotone_chain import MonotoneChain, find_chain, never_falls
from onebit.program import Constant, DType, Node, Program, TensorType, execute, pack_bits
from onebit.program.tensors import Array, Attr

ALWAYS = -(2**31)


def make_thresholds(program: Program) -> Program:
    """Every sign that is a monotone function of one integer sum becomes a `threshold`; others stay."""
    program = _signs_before_reshapes(program)
    producers = {node.output: node for node in program.nodes}
    constants, values = dict(program.constants), dict(program.values)
    nodes: list[Node] = []
    for node in program.nodes:
        chain = find_chain(program, producers, node) if node.op == "sign" else None
        plan = _plan(program, chain) if chain is not None else None
        solved = _solve(program, plan) if plan is not None else None
        if plan is None or solved is None:
            nodes.append(node)
            continue
        thresholds, flip = solved
        names = (f"{node.output}.thresholds", f"{node.output}.flip")
        channels = len(thresholds)
        constants[names[0]] = Constant(TensorType(DType.I32, (channels,)), thresholds)
        constants[names[1]] = Constant(TensorType(DType.BITS, (channels,)), pack_bits(flip))
        nodes += _comparison(plan, names, values)
    return replace(program, nodes=tuple(nodes), constants=constants, values=values)


@dataclass(frozen=True)
class _Plan:
    """How the sign at the end of `chain` is computed from its accumulator."""

    chain: MonotoneChain
    start: tuple[int, ...]  # shape of what f takes: one sum a channel, or a sample's where f reshapes
    before: tuple[tuple[Node, tuple[int, ...]], ...]  # nodes before the comparison, with their shapes
    pool: Node | None  # behind it


def _plan(program: Program, chain: MonotoneChain) -> _Plan | None:
    """None where a max-pool cannot move, or pixels have thresholds of their own that stay pixels."""
    sign, pool = chain.nodes[-1], chain.pool
    shape, final = program.type_of(chain.accumulator).shape, program.values[sign.output].shape
    reshapes = any(node.op == "reshape" for node in chain.nodes)
    if reshapes and len(final) != 1:
        return None
    if pool is None:
        pools_signs = False
    elif any(node.op == "reshape" for node in chain.nodes[: chain.place]):
        return None
    elif not reshapes and all(never_falls(program, node) for node in chain.nodes[chain.place :]):
        pools_signs = True
    elif all(never_falls(program, node) for node in chain.nodes[: chain.place]):
        pools_signs = False
    else:
        return None
    before: list[tuple[Node, tuple[int, ...]]] = []
    operand = chain.accumulator
    if pool is not None and not pools_signs:
        shape = program.values[pool.output].shape
        before.append((replace(pool, inputs=(operand,), output=f"{sign.output}.pooled"), shape))
        operand = before[-1][0].output
    if reshapes:
        attrs: dict[str, Attr] = {"shape": final}
        before.append((Node("reshape", (operand,), f"{sign.output}.flat", attrs, layer=sign.layer), final))
    return _Plan(chain, shape if reshapes else shape[-1:], tuple(before), pool if pools_signs else None)


def _comparison(plan: _Plan, constants: tuple[str, str], values: dict[str, TensorType]) -> list[Node]:
    """The nodes of a plan; the types of their outputs are added to `values`."""
    sign = plan.chain.nodes[-1]
    operand = plan.chain.accumulator
    for node, shape in plan.before:
        operand = node.output
        values[operand] = TensorType(DType.I32, shape)
    output = sign.output if plan.pool is None else f"{sign.output}.early"
    values[output] = TensorType(DType.BITS, values[operand].shape)
    layer = plan.chain.nodes[-2].layer
    nodes = [
        *(node for node, _ in plan.before),
        Node("threshold", (operand, *constants), output, layer=layer),
    ]
    if plan.pool is not None:
        nodes.append(replace(plan.pool, inputs=(output,), output=sign.output))
    return nodes


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


def _solve(program: Program, plan: _Plan) -> tuple[Array, Array] | None:
    """(thresholds i32[C], flip bool[C]), or None where f is not finite, hence perhaps not monotone."""
    function = _ChainFunction(program, plan.chain, plan.start)
    low = np.full(plan.start, plan.chain.low, dtype=np.int64)
    high = np.full(plan.start, plan.chain.high, dtype=np.int64)
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
    return np.ascontiguousarray(thresholds.reshape(-1)), flip.reshape(-1)


class _ChainFunction:
    """A chain as a function of its accumulator, element by element, run by the reference executor.

    `start`, the shape of its argument, is (C,) or, for a chain with a reshape, that of a whole sample.
    """

    def __init__(self, program: Program, chain: MonotoneChain, start: tuple[int, ...]) -> None:
        self._start = start
        names = {name for node in chain.nodes for name in node.inputs if name in program.constants}
        constants = {name: _last_axis(program.constants[name]) for name in names}
        values = {chain.accumulator: TensorType(DType.I32, start)}
        nodes: list[Node] = []
        previous, shape = chain.accumulator, start
        for node in chain.nodes:
            inputs = tuple(name if name in constants else previous for name in node.inputs)
            nodes.append(replace(node, inputs=inputs))
            previous = node.output
            shape = program.values[previous].shape if node.op == "reshape" else shape
            values[previous] = TensorType(DType.F32, shape)
        values[previous] = TensorType(DType.BITS, shape)
        self._floats = [node.output for node in nodes[:-1]]
        self._program = Program((chain.accumulator,), (previous,), tuple(nodes), constants, values)

    def positive(self, accumulator: Array) -> Array:
        """Where the sign is +1; a bool for each element of the argument."""
        (output,) = self._program.outputs
        signs = execute(self._program, accumulator[None].astype(np.int32))[output]
        return np.asarray(signs[0] > 0).reshape(self._start)

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
