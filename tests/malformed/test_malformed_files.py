"""Files that must be refused: one named defect each, and the one error that it gets."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from malformed import conv_cases, forge, graph_cases, header_cases
from malformed.forge import framed, with_graph, with_header
from onebit.program import Program, ProgramError, load

BASES = (
    (forge.base, {**header_cases.CASES, **graph_cases.CASES}),
    (forge.conv_base, conv_cases.CASES),
)
CASES = [
    pytest.param(base, *case, id=f"{base.__name__}: {name}")
    for base, cases in BASES
    for name, case in cases.items()
]
CONSTANT_BYTES = 128 * 2**20  # what the largest header allowed may cost to parse


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("base", "change", "message"), CASES)
def test_one_defect_one_error(
    base: Callable[[], Program], change: forge.Change, message: str, tmp_path: Path
) -> None:
    valid = forge.whole(base(), tmp_path)
    broken = change(valid)
    assert broken != valid, "this case changes nothing"
    path = tmp_path / "broken.onebit"
    path.write_bytes(broken)
    tracemalloc.start()
    try:
        with pytest.raises(ProgramError, match=re.escape(message)) as caught:
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < 600 + len(str(path))
    text.encode()  # no lone surrogates: it can be printed
    assert peak < 2 * len(broken) + CONSTANT_BYTES


def test_the_cases_are_many_and_the_base_is_valid(tmp_path: Path) -> None:
    assert len(CASES) == len(header_cases.CASES) + len(graph_cases.CASES) + len(conv_cases.CASES) >= 40
    path = tmp_path / "valid.onebit"
    for base in (forge.base, forge.conv_base):
        valid = forge.whole(base(), tmp_path)
        path.write_bytes(forge.joined(*forge.split(valid)))
        assert load(path).nodes == base().nodes
        for keep in (with_graph, with_header):
            path.write_bytes(keep(lambda _: None)(valid))
            load(path)


def test_cut_after_every_byte(tmp_path: Path) -> None:
    valid = forge.whole(forge.base(), tmp_path)
    path = tmp_path / "cut.onebit"
    path.write_bytes(valid)
    with path.open("r+b") as file:
        for size in reversed(range(len(valid))):
            file.truncate(size)
            with pytest.raises(ProgramError, match=r"cut short|at least 8"):
                load(path)


def test_the_largest_header_allowed_stays_within_the_constant(tmp_path: Path) -> None:
    room = 2**22 - 200
    texts = {
        "small lists": ('{"a":[' + "[]," * 240_000 + "[]]}").encode(),
        "many keys": ("{" + ",".join(f'"{i:x}":1' for i in range(room // 11)) + "}").encode(),
        "one wide character": ('{"\U0001f600":"' + "a" * room + '"}').encode(),
        "open quotes": ('{"' + '\\"' * (room // 2)).encode(),
    }
    path = tmp_path / "large.onebit"
    for name, text in texts.items():
        assert 2**18 < len(text) <= 2**22
        path.write_bytes(framed(text))
        tracemalloc.start()
        try:
            with pytest.raises(ProgramError):
                load(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 * path.stat().st_size + CONSTANT_BYTES, f"{name}: {peak / 2**20:.0f} MiB"
