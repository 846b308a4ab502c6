"""`.onebit` files: round trip, determinism, atomic saving, memory, and safetensors' own reader."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from onebit.program import (
    Constant,
    Node,
    Program,
    ProgramError,
    atomic,
    execute,
    load,
    save,
    stored_checksum,
    words,
)
from program_samples import bits, bytes_mlp, constant, f32, feed, float_zoo, i32, one_op

PROGRAMS = [bytes_mlp(), float_zoo(), bytes_mlp(1, 1, 1), bytes_mlp(511, 65, 64)]


def assert_same(a: Program, b: Program) -> None:
    assert (a.inputs, a.outputs, a.nodes, dict(a.values), dict(a.metadata)) == (
        b.inputs,
        b.outputs,
        b.nodes,
        dict(b.values),
        dict(b.metadata),
    )
    assert set(a.constants) == set(b.constants)
    for name, one in a.constants.items():
        assert one.type == b.constants[name].type
        assert one.array.dtype == b.constants[name].array.dtype
        assert one.array.shape == b.constants[name].array.shape
        assert one.array.tobytes() == b.constants[name].array.tobytes()


@pytest.mark.parametrize("program", PROGRAMS)
def test_round_trip(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    save(program, path)
    back = load(path)
    assert_same(program, back)
    inputs = feed(program)
    for name, y in execute(program, *inputs, keep="all").items():
        assert (execute(back, *inputs, keep="all")[name] == y).all()
    with pytest.raises(ValueError, match="read-only"):
        next(iter(back.constants.values())).array[...] = 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_are_pickled_and_copied(program: Program, tmp_path: Path) -> None:
    program.save(tmp_path / "p.onebit")
    for one in (program, load(tmp_path / "p.onebit")):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert_same(one, pickle.loads(pickle.dumps(one, protocol)))
        deep = copy.deepcopy(one)
        assert_same(one, deep)
        assert_same(one, copy.copy(one))
        assert execute(deep, *feed(one)).keys() == execute(one, *feed(one)).keys()
        for name, constant_ in deep.constants.items():
            assert constant_.array is not one.constants[name].array
        with pytest.raises(TypeError, match="does not support item assignment"):
            deep.nodes[0].attrs["k"] = 1  # type: ignore[index]


def test_names_and_metadata_of_any_language(tmp_path: Path) -> None:
    program = one_op("mul", {"x": f32(2)}, {'größe "α"': constant(np.ones(2, np.float32))}, f32(2))
    program = replace(program, metadata={"Größe\\": "日本\n\x00\x1f", "b": "", "a": "\U0001f600"})
    program.save(str(tmp_path / "p.onebit"))
    assert_same(program, load(str(tmp_path / "p.onebit")))


@pytest.mark.parametrize("program", PROGRAMS)
def test_equal_programs_give_equal_bytes(program: Program, tmp_path: Path) -> None:
    reordered = replace(
        program,
        constants=dict(reversed(program.constants.items())),
        values=dict(reversed(program.values.items())),
        metadata=dict(reversed(program.metadata.items())),
        nodes=tuple(replace(node, attrs=dict(reversed(node.attrs.items()))) for node in program.nodes),
    )
    for name, each in (("a", program), ("b", program), ("c", reordered)):
        save(each, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    save(load(tmp_path / "a"), tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == (tmp_path / "a").read_bytes()


def test_every_byte_counts(tmp_path: Path) -> None:
    """A flipped bit of any byte, the spaces after the JSON included, is one error."""
    path = tmp_path / "p.onebit"
    save(bytes_mlp(1, 1, 1), path)
    valid = path.read_bytes()
    for at in range(len(valid)):
        for bit in (0x01, 1 << at % 8):
            path.write_bytes(valid[:at] + bytes([valid[at] ^ bit]) + valid[at + 1 :])
            with pytest.raises(ProgramError, match=r"p\.onebit: .*: found .*, expected"):
                load(path)


def test_a_damaged_tensor_is_told_from_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    save(bytes_mlp(), path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(
        ProgramError, match=r"p\.onebit: file: checksum of the bytes: found [0-9a-f]{8}, expected"
    ):
        load(path)


def test_a_changed_name_that_still_parses_is_told_from_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    save(replace(bytes_mlp(), metadata={"note": "golden"}), path)
    path.write_bytes(path.read_bytes().replace(b"golden", b"molden"))
    with pytest.raises(ProgramError, match="checksum of the bytes"):
        load(path)


def test_the_digits_of_the_checksum_may_stand_elsewhere_too(tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    for digits in ("00000000", "0123456789abcdef"):
        save(replace(bytes_mlp(), metadata={"checksum": digits, "note": digits}), path)
        assert load(path).metadata["note"] == digits


def test_an_old_file_loads_and_is_saved_with_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    save(bytes_mlp(), path)
    new = path.read_bytes()
    length = int.from_bytes(new[:8], "little")
    text = re.sub(rb',\\"checksum\\":\\"[0-9a-f]{8}\\"', b"", new[8 : 8 + length], count=1)
    text = text.replace(rb"\"format_version\":2", rb"\"format_version\":1")
    path.write_bytes(len(text).to_bytes(8, "little") + text + new[8 + length :])
    assert stored_checksum(path) is None
    assert_same(load(path), bytes_mlp())
    save(load(path), path)
    assert path.read_bytes() == new
    assert re.fullmatch("[0-9a-f]{8}", str(stored_checksum(path)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_safetensors_own_reader_reads_it(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    save(program, path)
    tensors = load_file(path)
    assert set(tensors) == set(program.constants)
    for name, array in tensors.items():
        assert array.dtype == program.constants[name].type.storage_dtype
        assert (array == program.constants[name].array).all()
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["onebit"]
    assert [node["op"] for node in json.loads(metadata["onebit"])["nodes"]] == [n.op for n in program.nodes]


def test_data_starts_aligned(tmp_path: Path) -> None:
    for index, program in enumerate(PROGRAMS):
        save(program, tmp_path / str(index))
        raw = (tmp_path / str(index)).read_bytes()
        assert (8 + int.from_bytes(raw[:8], "little")) % 64 == 0


def test_a_broken_program_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="an output exists"):
        save(bytes_mlp().with_outputs("ghost"), tmp_path / "p.onebit")
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_load_would_refuse_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"header: size: found .* bytes, expected at most 4194304"):
        save(replace(bytes_mlp(), metadata={"notes": "x" * 2**22}), tmp_path / "p.onebit")
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_follows_links_and_keeps_permissions(tmp_path: Path) -> None:
    target, link = tmp_path / "real.onebit", tmp_path / "link.onebit"
    save(bytes_mlp(seed=1), target)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    target.chmod(0o640)
    link.symlink_to(target)
    save(bytes_mlp(seed=2), link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert_same(load(target), bytes_mlp(seed=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.onebit", "real.onebit"]


@pytest.fixture(params=["unnamed", "named"])
def temporary_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to hold a file that is not whole yet."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return str(request.param)


@pytest.mark.usefixtures("temporary_kind")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.onebit"
    save(bytes_mlp(seed=1), path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        save(bytes_mlp(seed=2), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.onebit"]


@pytest.mark.usefixtures("temporary_kind")
def test_an_interrupt_between_chunks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def chunks() -> object:
        yield b"new" * 100_000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write_atomically(path, chunks())  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.usefixtures("temporary_kind")
def test_plain_writing(tmp_path: Path) -> None:
    atomic.write_atomically(tmp_path / "f", [b"ab", memoryview(b"cd")])
    assert (tmp_path / "f").read_bytes() == b"abcd"
    for wrong, kind in (("no/f", FileNotFoundError), ("f/g", NotADirectoryError)):
        with pytest.raises(kind) as caught:
            atomic.write_atomically(tmp_path / wrong, [b"ab"])
        assert caught.value.filename == str(tmp_path / wrong)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"directory: '.*folder'"):
        atomic.write_atomically(tmp_path / "folder", [b"ab"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "folder"]


@pytest.mark.usefixtures("temporary_kind")
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(FileExistsError, match=f"not a regular file: '.*{name}'"):
            atomic.write_atomically(tmp_path / name, [b"ab"])
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]


def in_a_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


LIMITED = """
import resource, signal, sys
from onebit.program import save
from program_samples import bytes_mlp
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save(bytes_mlp(511, 2000, 64), sys.argv[1])
except OSError as error:
    print("refused", error.errno)
"""

KILLED = """
import os, signal, sys
from onebit.program import atomic
{prelude}
def chunks():
    yield b"new" * 1_000_000
    print("half", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    yield b""
atomic.write_atomically(sys.argv[1], chunks())
"""


def test_a_real_write_that_runs_out_of_room_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    save(bytes_mlp(seed=1), path)
    before = path.read_bytes()
    done = in_a_process(LIMITED, str(path))
    assert done.stdout.split() == ["refused", str(errno.EFBIG)], done.stderr
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.onebit"]


@pytest.mark.parametrize("prelude", ["", "if hasattr(os, 'O_TMPFILE'): del os.O_TMPFILE"])
def test_a_kill_in_the_middle_of_a_save_leaves_the_old_file(prelude: str, tmp_path: Path) -> None:
    path = tmp_path / "p.onebit"
    save(bytes_mlp(seed=1), path)
    before = path.read_bytes()
    done = in_a_process(KILLED.format(prelude=prelude), str(path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "half\n"
    assert path.read_bytes() == before
    left = sorted(p.name for p in tmp_path.iterdir() if p != path)
    if not prelude and hasattr(os, "O_TMPFILE"):
        assert left == []
    else:
        assert all(name.startswith(".onebit-") and name.endswith(".tmp") for name in left)


def test_loading_takes_at_most_twice_the_file_and_a_constant(tmp_path: Path) -> None:
    n, k = 4096, 2047  # 32 MB of floats; four times as many rows of eight times as many bits: 33 MB more
    packed = np.full((4 * n, words(8 * k)), 0x00FF00FF, np.uint32)
    packed[:, -1] &= np.uint32((1 << 8 * k % 32) - 1)
    constants = {
        "w": constant(np.full((n, k), 0.5, np.float32)),
        "v": Constant(bits(4 * n, 8 * k), packed),
    }
    nodes = (Node("f32_gemm", ("a", "w"), "y"), Node("binary_gemm", ("b", "v"), "z"))
    values = {"a": f32(k), "b": bits(8 * k), "y": f32(n), "z": i32(4 * n)}
    program = Program(("a", "b"), ("y", "z"), nodes, constants, values)
    path = tmp_path / "large.onebit"
    save(program, path)
    size = path.stat().st_size
    assert size > 64_000_000
    tracemalloc.start()
    try:
        loaded = load(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > 0.99 * size, "the tensors should have been counted"
    assert peak < 2 * size + 2**20
    assert peak < 1.1 * size + 2**20, "blocks keep the checks small"
    assert loaded.values["z"].shape == (4 * n,)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onebit"):
        load(tmp_path / "nowhere.onebit")
    with pytest.raises(ProgramError, match="file: kind: found a folder, expected a regular file"):
        load(tmp_path)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ProgramError, match="expected a regular file"):
        load(tmp_path / "pipe")


@pytest.mark.parametrize("wrong", [b"raw bytes", 3, None])
def test_what_is_no_path_is_named(wrong: object) -> None:
    with pytest.raises(TypeError, match=f"load takes the path of a .onebit file.*got {type(wrong).__name__}"):
        load(wrong)
