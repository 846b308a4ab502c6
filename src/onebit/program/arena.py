"""Where values lie in one block of memory, the arena: values that are not needed at once share bytes.

Whoever runs a Program says what each of its steps reads and writes and how many bytes a value takes there;
`lifetimes` and `lay_out` place the values. The layout is one sample's: for a batch, offsets and size are
multiplied by it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Access:
    """What one step of a run does to memory.

    Attributes:
        reads: the values that it reads; constants have no place in the arena and are left out.
        writes: the values that it makes.
        in_place: those of `reads` over which the one value of `writes` may be written while they are read.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lifetime:
    """A value: the step that makes it, the last one that reads it, and its bytes.

    `over` names values that it may lie on although the step that makes it still reads them.
    """

    name: str
    first: int
    last: int
    nbytes: int
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArenaLayout:
    """Offset of each value and size of all, in bytes."""

    offsets: dict[str, int]
    nbytes: int


def lifetimes(
    accesses: Sequence[Access],
    nbytes: Callable[[str], int],
    *,
    inputs: Iterable[str] = (),
    outputs: Iterable[str] = (),
    outside: Iterable[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> list[Lifetime]:
    """The lifetimes of the values of a run, in the order in which they are made.

    Args:
        accesses: the steps of the run, in order.
        nbytes: the bytes of a value.
        inputs: values that are in the arena before the first step.
        outputs: values that stay in the arena after the last step.
        outside: values that have memory of their own and no place in the arena.
        aliases: value → the value whose memory it is, in another shape; it gets no place of its own.
    """
    aliases, without = aliases or {}, set(outside)

    def root(name: str) -> str:
        while name in aliases:
            name = aliases[name]
        return name

    last = {root(name): index for index, access in enumerate(accesses) for name in access.reads}
    last.update((root(name), len(accesses)) for name in outputs)
    made = [Lifetime(name, -1, last.get(name, -1), nbytes(name)) for name in inputs if name not in without]
    for index, access in enumerate(accesses):
        over = tuple(root(name) for name in access.in_place)
        made += [
            Lifetime(name, index, last.get(name, index), nbytes(name), over)
            for name in access.writes
            if name not in without and name not in aliases
        ]
    return made


def lay_out(values: Sequence[Lifetime], alignment: int) -> ArenaLayout:
    """Give each value the lowest free place at the time when it is made, or that of a value it may lie on.

    Args:
        values: in the order in which they are made.
        alignment: of each value, in bytes; sizes are rounded up to it.
    """
    offsets: dict[str, int] = {}
    live: list[tuple[int, int, int, str]] = []  # (offset, end, last step, name), by offset
    size = 0
    for value in values:
        live = [place for place in live if place[2] >= value.first]
        needed = -(-value.nbytes // alignment) * alignment
        free = next((place for place in live if _may_lie_on(value, needed, place)), None)
        if free is not None:
            live.remove(free)
        offset = free[0] if free is not None else 0
        for begin, end, _, _ in live if free is None else ():
            if offset + needed <= begin:
                break
            offset = max(offset, end)
        offsets[value.name] = offset
        insort(live, (offset, offset + needed, value.last, value.name))
        size = max(size, offset + needed)
    return ArenaLayout(offsets, size)


def _may_lie_on(value: Lifetime, needed: int, place: tuple[int, int, int, str]) -> bool:
    """Whether the value at this place may be overwritten by `value`, is not read later, and is as large."""
    begin, end, last, name = place
    return name in value.over and last == value.first and needed <= end - begin
