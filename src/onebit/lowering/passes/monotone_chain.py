"""Chains: what stands between an integer sum and a sign, and whether it is monotone channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onebit.program import Node, Program
from onebit.program.ops import Kind, Monotone


@dataclass(frozen=True)
class MonotoneChain:
    """The nodes from an accumulator to a sign, both ends included, in order, without a max-pool among them.

    accumulator: an i32 value within low..high.  pool: the max-pool, if there was one, and its `place`: it
    stood before nodes[place].
    """

    nodes: tuple[Node, ...]
    accumulator: str
    low: int
    high: int
    pool: Node | None = None
    place: int = 0


def find_chain(program: Program, producers: Mapping[str, Node], sign: Node) -> MonotoneChain | None:
    """The chain that ends in `sign`, or None where there is none or it is not monotone."""
    nodes, pools = [sign], []
    name = sign.inputs[0]
    while True:
        node = producers.get(name)
        if node is None:
            return None
        if node.op == "to_float":
            break
        is_max_pool = node.facts.kind is Kind.POOL and node.facts.selects
        through = is_max_pool or node.facts.kind is Kind.VIEW
        following = node.inputs[0] if through else monotone_input(program, node)
        if following is None:
            return None
        if is_max_pool:
            pools.append((node, len(nodes)))
        else:
            nodes.append(node)
        name = following
    bounds = _range(program, producers, node.inputs[0])
    if bounds is None or len(pools) > 1:
        return None
    ordered = (node, *reversed(nodes))
    pool, after = pools[0] if pools else (None, 0)
    return MonotoneChain(ordered, node.inputs[0], *bounds, pool, len(ordered) - after)


def monotone_input(program: Program, node: Node) -> str | None:
    """The value in which an elementwise node is monotone channel by channel, or None."""
    found = _monotone(program, node)
    if found is None:
        return None
    shapes = [program.constants[name].type.shape for name in node.inputs if name in program.constants]
    # One number a channel: a constant that also differs along other axes has no per-channel threshold.
    return node.inputs[found.operand] if all(size == 1 for s in shapes for size in s[:-1]) else None


def never_falls(program: Program, node: Node) -> bool:
    """A larger input of this monotone node gives no smaller output, in any channel."""
    found = _monotone(program, node)
    return found is not None and found.rises


def _monotone(program: Program, node: Node) -> Monotone | None:
    return node.facts.monotone(program.constants_of(node)) if node.facts.is_elementwise else None


def _range(program: Program, producers: Mapping[str, Node], name: str) -> tuple[int, int] | None:
    """Smallest and largest value that an i32 accumulator can hold."""
    node = producers.get(name)
    if node is None:
        return None
    if node.facts.selects:
        parts = [_range(program, producers, part) for part in node.inputs]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return min(low for low, _ in known), max(high for _, high in known)
    product = node.facts.product
    return product.sums(program.call_of(node)) if product is not None and product.sums is not None else None
