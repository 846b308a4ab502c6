"""Where values lie in the engine's arena: values that are not needed at once share memory."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lifetime:
    """A value: the stage that makes it, the last one that reads it, and its bytes a sample."""

    name: str
    first: int
    last: int
    nbytes: int


@dataclass(frozen=True)
class Layout:
    """Offset of each value and size of all, in bytes a sample; for a batch both are multiplied by it."""

    offsets: dict[str, int]
    nbytes: int


def lay_out(lifetimes: Sequence[Lifetime], alignment: int) -> Layout:
    """Give each value the lowest free place at the time when it is made.

    Args:
        lifetimes: in the order in which the values are made.
        alignment: of each value; sizes are rounded up to it.
    """
    offsets: dict[str, int] = {}
    live: list[tuple[int, int, int]] = []  # (offset, end, last stage), by offset
    size = 0
    for value in lifetimes:
        live = [place for place in live if place[2] >= value.first]
        needed = -(-value.nbytes // alignment) * alignment
        offset = 0
        for begin, end, _ in live:
            if offset + needed <= begin:
                break
            offset = max(offset, end)
        offsets[value.name] = offset
        insort(live, (offset, offset + needed, value.last))
        size = max(size, offset + needed)
    return Layout(offsets, size)
