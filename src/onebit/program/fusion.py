"""From a Program to the steps of whoever runs it: fusion, and dropping what no output needs.

A product (a GEMM or a convolution) takes what follows it into its epilogue, as long as nobody else reads the
values between and the result is the same float for float:

* integer product → `threshold` becomes bits that never were int32;
* integer product → `max_pool2d` → `threshold` becomes bits too, which are pooled then: max(v) >= t where any
  v >= t, so the pool is an OR of bits, and the flip of a channel comes after it;
* integer product → `to_float` → steps that are one fma(v, scale[n], bias[n]) together. v is an integer below
  2^31, so a factor that is a power of two is exact and may be followed by others; the first factor that is
  not one, and the first summand, end the chain: fma(v, s, −0.0) is v·s rounded once, fma(v, 1, b) is v + b.
* float product → one such step: its sum is an arbitrary float, so a second factor could be inexact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onebit.program.float_environment import default_float_environment
from onebit.program.graph import Graph, Node
from onebit.program.tensors import FloatArray

_MAX_EXPONENT = 64  # powers of two up to 2^±64 times an integer below 2^31 stay normal float32 numbers


@dataclass(frozen=True)
class Step:
    """One op of a run: the nodes that it does, and what the later ones became.

    `epilogue` is "i32", "f32" (with scale and bias, f32[N]) or "bits" (with threshold, i32[N], and flip,
    packed bits) for a product, and "" for any other node, which stands alone. A `threshold` that stands
    alone has these too, and a `max_pool2d` of bits may have a flip that comes after it.
    """

    nodes: tuple[Node, ...]
    epilogue: str = ""
    scale: FloatArray | None = None
    bias: FloatArray | None = None
    threshold: npt.NDArray[np.int32] | None = None
    flip: npt.NDArray[np.uint32] | None = None

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

    scale: FloatArray
    bias: FloatArray
    exact: bool


@default_float_environment()
def fuse(program: Graph) -> list[Step]:
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
        fused = _fuse_pool(program, node, followers) or [_fuse(program, node, followers)]
        if len(fused) > 1:
            done.add(followers[node.output].output)
        done.update(part.output for step in fused for part in step.nodes)
        steps.extend(fused)
    return steps


def _live_nodes(program: Graph) -> list[Node]:
    needed = set(program.outputs)
    live: list[Node] = []
    for node in reversed(program.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            live.append(node)
    return live[::-1]


def _fuse(program: Graph, node: Node, followers: Mapping[str, Node]) -> Step:
    if node.facts.is_float_product:
        return _fuse_floats(program, [node], followers, integers=False)
    if node.op == "threshold":
        return _bits(program, (node,), node, "")
    if not node.facts.is_integer_product:
        return Step((node,))
    after = followers.get(node.output)
    if after is not None and after.op == "threshold":
        return _bits(program, (node, after), after, "bits")
    if after is not None and after.op == "to_float":
        return _fuse_floats(program, [node, after], followers, integers=True)
    return Step((node,), "i32")


def _bits(program: Graph, nodes: tuple[Node, ...], node: Node, epilogue: str) -> Step:
    threshold, flip = (program.constants[name].array for name in node.inputs[1:])
    return Step(nodes, epilogue, threshold=threshold, flip=flip)


def _fuse_pool(program: Graph, product: Node, followers: Mapping[str, Node]) -> list[Step]:
    """product → pool → threshold as product → threshold → pool; [] where the three do not follow each other.

    The pool reads the bits under the name that the sums had, for their shape is the same.
    """
    pool = followers.get(product.output)
    if not product.facts.is_integer_product or pool is None or pool.op != "max_pool2d":
        return []
    last = followers.get(pool.output)
    if last is None or last.op != "threshold":
        return []
    early = replace(last, inputs=(product.output, *last.inputs[1:]), output=product.output)
    step = _bits(program, (product, early), last, "bits")
    flip = step.flip if step.flip is not None and step.flip.any() else None
    unflipped = replace(step, flip=np.zeros_like(step.flip))
    return [unflipped, Step((replace(pool, output=last.output),), flip=flip)]


def _fuse_floats(program: Graph, nodes: list[Node], followers: Mapping[str, Node], integers: bool) -> Step:
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


def _absorb(program: Graph, node: Node, value: str, state: _Fma) -> _Fma | None:
    """`state` followed by `node`, or None where that is not one fma."""
    if not state.exact or not node.facts.is_elementwise:
        return None
    form = node.facts.scale_shift(program.constants_of(node))
    if form is None or not form.exact or node.inputs[form.operand] != value:
        return None
    channels = len(state.scale)
    scale, shift = (
        None if array is None else _per_channel(array, channels) for array in (form.scale, form.shift)
    )
    if (scale is None) != (form.scale is None) or (shift is None) != (form.shift is None):
        return None  # a number a pixel
    if scale is None:
        return None if shift is None else _Fma(state.scale, shift, False)
    return _scaled(state, scale, state.bias if shift is None else shift)


def _per_channel(array: FloatArray, channels: int) -> FloatArray | None:
    """A constant that depends on the last axis only, as f32[channels]; None for any other."""
    if array.dtype != np.float32 or array.size not in (1, channels):
        return None
    if array.size == channels and array.shape[-1:] != (channels,) and channels != 1:
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()


def _scaled(state: _Fma, factor: FloatArray, bias: FloatArray) -> _Fma | None:
    """Another factor is exact on the scale or the two do not fold."""
    with np.errstate(all="ignore"):
        scale = state.scale * factor
    if not np.array_equal(scale.astype(np.float64), state.scale.astype(np.float64) * factor):
        return None
    return _Fma(scale, bias, _powers_of_two(scale) and bias is state.bias)


def _powers_of_two(numbers: FloatArray) -> bool:
    mantissa, exponent = np.frexp(numbers)
    return bool(np.all(np.abs(mantissa) == 0.5) and np.all(np.abs(exponent) <= _MAX_EXPONENT))
