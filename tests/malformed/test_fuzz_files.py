"""20,000 damaged files: each is refused with a ProgramError, or loads, verifies and executes. Nothing else.

Every file comes from (SEED, index) alone; a failure prints the index, and `replay(index)` makes it again.
Edits of data, text and graph are signed with a true checksum, so that the rules behind it are reached.
"""

from __future__ import annotations

import json
import random
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from malformed import forge
from onebit.program import OPS, DType, Program, ProgramError, execute, load, verify
from program_samples import (
    bits,
    bits_constant,
    bytes_mlp,
    constant,
    conv_zoo,
    f32,
    feed,
    float_zoo,
    i32,
    one_op,
)

SEED = 20240229
FILES = 20_000
SECONDS = 20.0  # for one file: what must be caught is a hang
MAX_ELEMENTS = 1 << 20  # a program with larger values is loaded and verified, not executed

NUMBERS = (0, 1, -1, 2, 7, 8, 31, 32, 33, 64, 255, 256, 1000, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32)
NUMBERS += (2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63), 10**30)
ODD: tuple[Any, ...] = (None, True, False, 0.5, -0.0, 1e300, "", "x", "\ud800", "\x00", [], {}, [[]])
TOKENS = (b"NaN", b"Infinity", b"1e999", b"[[[[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\xff")


def small_programs() -> list[Program]:
    """Few and small, so that most bytes matter; between them they use every op."""
    ops = bytes_mlp(33, 2, 2)
    identity = Program(("x",), ("x",), (), {}, {"x": bits(33)})
    shared = one_op("prelu", {"x": f32(3)}, {"c": constant(np.array([0.5, 2, -1], np.float32))}, f32(3))
    threshold = one_op(
        "threshold",
        {"x": i32(2, 5)},
        {"t": constant(np.arange(5, dtype=np.int32)), "f": bits_constant([1, -1, 1, -1, 1])},
        bits(2, 5),
    )
    return [ops, float_zoo(4, 3), conv_zoo(3), identity, shared, threshold]


@cache
def valid_files() -> list[bytes]:
    with TemporaryDirectory() as folder:
        return [forge.whole(program, Path(folder)) for program in small_programs()]


def flip_bits(rng: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(rng: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        out[rng.randrange(len(out))] = rng.choice(
            (0, 1, 0x7F, 0x80, 0xFF, ord('"'), ord("["), rng.randrange(256))
        )
    return bytes(out)


def truncate(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw))]


def splice(rng: random.Random, raw: bytes) -> bytes:
    other = rng.choice(valid_files())
    return raw[: rng.randrange(len(raw))] + other[rng.randrange(len(other)) :]


def move_slice(rng: random.Random, raw: bytes) -> bytes:
    begin = rng.randrange(len(raw))
    end = min(len(raw), begin + rng.randint(1, 64))
    piece, rest = raw[begin:end], raw[:begin] + raw[end:]
    kind = rng.randrange(3)  # drop it, repeat it, or put it elsewhere
    if kind == 0:
        return rest
    at = begin if kind == 1 else rng.randrange(len(rest) + 1)
    return (raw if kind == 1 else rest)[:at] + piece + (raw if kind == 1 else rest)[at:]


def edit_length(rng: random.Random, raw: bytes) -> bytes:
    length = int.from_bytes(raw[:8], "little")
    value = rng.choice(
        (0, 1, 2, 7, length - 1, length + 1, len(raw), len(raw) - 8, 2**22, 2**32, 2**63, 2**64 - 1)
    )
    return (value % 2**64).to_bytes(8, "little") + raw[8:]


def edit_data(rng: random.Random, raw: bytes) -> bytes:
    begin = 8 + int.from_bytes(raw[:8], "little")
    if begin == len(raw):
        return raw + b"\0"
    out = bytearray(raw)
    at = rng.randrange(begin, len(raw))
    out[at : at + 4] = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80"))[
        : len(raw) - at
    ]
    return forge.signed(bytes(out))


def edit_text(rng: random.Random, raw: bytes) -> bytes:
    """Change the header's text and give it its true length, so that the JSON parser sees the change."""
    length = int.from_bytes(raw[:8], "little")
    text = raw[8 : 8 + length]
    for _ in range(rng.randint(1, 3)):
        spots = [m.span() for m in re.finditer(rb"-?\d+", text)] if rng.random() < 0.5 else []
        begin, end = rng.choice(spots) if spots else (rng.randrange(len(text)),) * 2
        token = str(rng.choice(NUMBERS)).encode() if rng.random() < 0.5 else rng.choice(TOKENS)
        text = text[:begin] + token + text[end:]
    return forge.signed(forge.framed(text, raw[8 + length :]))


def edit_header(rng: random.Random, raw: bytes) -> bytes:
    header, graph, data = forge.split(raw)
    mutate_tree(rng, header)
    return joined(header, graph, data)


def edit_graph(rng: random.Random, raw: bytes) -> bytes:
    header, graph, data = forge.split(raw)
    for _ in range(rng.randint(1, 2)):
        mutate_tree(rng, graph)
    return joined(header, graph, data)


def edit_graph_gently(rng: random.Random, raw: bytes) -> bytes:
    """Put another number or name of the same graph in the place of one: many such files still load."""
    header, graph, data = forge.split(raw)
    spots = [(owner, key) for owner, key in leaves(graph) if type(owner[key]) in (int, float, str)]
    owner, key = rng.choice(spots)
    same = [o[k] for o, k in spots if type(o[k]) is type(owner[key])]
    pool = [*same, *NUMBERS] if type(owner[key]) is int else [*same, "fresh"]
    owner[key] = rng.choice(pool)
    return joined(header, graph, data)


def joined(header: forge.Tree, graph: forge.Tree, data: bytes) -> bytes:
    return forge.joined(header, graph, data)


def leaves(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in list(pairs):
        found.append((tree, key))
        if isinstance(value, (dict, list)):
            found += leaves(value)
    return found


def mutate_tree(rng: random.Random, tree: forge.Tree) -> None:
    spots = leaves(tree)
    if not spots:
        tree["x"] = 1
        return
    owner, key = rng.choice(spots)
    kind = rng.randrange(5)
    if kind == 0:
        del owner[key]
    elif kind == 1:
        owner[key] = rng.choice(NUMBERS)
    elif kind == 2:
        owner[key] = rng.choice(ODD)
    elif kind == 3:
        other, name = rng.choice(spots)
        owner[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other[name]))
    elif isinstance(owner, list):
        owner.insert(rng.randrange(len(owner) + 1), json.loads(json.dumps(owner[key])))
    else:
        owner[rng.choice(["x", "", "extra", "\ud800", str(key) + "2"])] = json.loads(json.dumps(owner[key]))


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    flip_bits,
    overwrite,
    truncate,
    splice,
    move_slice,
    edit_length,
    edit_data,
    edit_text,
    edit_header,
    edit_graph,
    edit_graph_gently,
)


def replay(index: int) -> tuple[str, bytes]:
    """The mutation and the bytes of file number `index`."""
    rng = random.Random(SEED * 1_000_003 + index)
    mutation = MUTATIONS[index % len(MUTATIONS)]
    return mutation.__name__, mutation(rng, rng.choice(valid_files()))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def expire(*_: object) -> None:
        raise TimeoutError(f"one file took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(path: Path) -> str:
    """What becomes of one file: the broken rule, "executed" or "large"."""
    try:
        program = load(path)
    except ProgramError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 800 + len(str(path))
        message.encode()
        assert message.startswith(f"{path}: ")
        assert ": found " in message
        assert "expected" in message
        return "refused: " + re.sub(
            r"'[^']*'|\d+", "…", message[len(str(path)) + 2 :].partition(": found ")[0]
        )
    verify(program)
    if sum(type_.elements for type_ in program.values.values()) > MAX_ELEMENTS:
        return "large"
    for name, y in execute(program, *feed(program), keep="all").items():
        type_ = program.values[name]
        assert y.shape == (2, *type_.shape)
        assert y.dtype == (np.int8 if type_.dtype is DType.BITS else type_.storage_dtype)
    return "executed"


@pytest.mark.slow
def test_every_damaged_file_is_refused_or_runs(tmp_path: Path) -> None:
    path = tmp_path / "fuzz.onebit"
    outcomes: Counter[str] = Counter()
    by_mutation: Counter[tuple[str, str]] = Counter()
    changed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in range(FILES):
            name, raw = replay(index)
            changed += raw not in valid_files()
            path.write_bytes(raw)
            try:
                with time_limit(SECONDS):
                    outcome = judge(path)
            except BaseException as error:
                raise AssertionError(f"file {index} ({name}), see replay({index}): {error!r}") from error
            outcomes[outcome] += 1
            by_mutation[name, outcome.partition(":")[0]] += 1
    refused = {rule: count for rule, count in outcomes.items() if rule.startswith("refused")}
    print(f"\nseed {SEED}: {FILES} files, {changed} changed")
    print(f"refused {sum(refused.values())} by {len(refused)} rules")
    print(f"executed {outcomes['executed']}, too large to execute {outcomes['large']}")
    print(*(f"{name} {outcome} {count}" for (name, outcome), count in sorted(by_mutation.items())), sep="\n")
    assert sum(outcomes.values()) == FILES
    assert changed > 0.95 * FILES
    assert sum(refused.values()) > FILES // 2
    assert len(refused) > 60, "the fuzz should reach rules of every kind"
    assert outcomes["executed"] > FILES // 50, "some damage is harmless: those programs must run"


def test_the_undamaged_files_run(tmp_path: Path) -> None:
    used = set()
    for raw in valid_files():
        (tmp_path / "f").write_bytes(raw)
        assert judge(tmp_path / "f") == "executed"
        used |= {node.op for node in load(tmp_path / "f").nodes}
    assert used == set(OPS)


def test_a_hang_would_be_caught() -> None:
    with pytest.raises(TimeoutError, match="more than"), time_limit(0.05):
        signal.pause()
