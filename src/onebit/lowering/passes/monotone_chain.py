"""Chains: what stands between an integer sum and a sign, and whether it is monotone channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from onebit.program import Node, Program

_ARITHMETIC = ("add", "sub", "mul", "div")
_SUMS_OF_SIGNS = ("binary_gemm", "binary_conv2d")


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
        following = node.inputs[0] if node.op in ("max_pool2d", "reshape") else monotone_input(program, node)
        if following is None:
            return None
        if node.op == "max_pool2d":
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


def never_falls(program: Program, node: Node) -> bool:
    """A larger input of this monotone node gives no smaller output, in any channel."""
    if node.op == "affine":
        return bool((program.constants[node.inputs[1]].array >= 0).all())
    if node.op not in ("mul", "div", "sub"):
        return True
    constant = node.inputs[0 if node.inputs[0] in program.constants else 1]
    if node.op == "sub":
        return constant == node.inputs[1]
    return bool((program.constants[constant].array >= 0).all())


def _range(program: Program, producers: Mapping[str, Node], name: str) -> tuple[int, int] | None:
    """Smallest and largest value that an i32 accumulator can hold."""
    node = producers.get(name)
    while node is not None and node.op in ("reshape", "permute", "max_pool2d"):
        node = producers.get(node.inputs[0])
    if node is None:
        return None
    if node.op == "concat":
        parts = [_range(program, producers, part) for part in node.inputs]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return min(low for low, _ in known), max(high for _, high in known)
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
