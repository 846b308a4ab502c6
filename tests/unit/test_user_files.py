"""What a path may lead to: pipes, devices, sockets and folders are refused at once, wherever one is read."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import onebit
from onebit import user_files
from onebit.cli import main
from onebit.data import DataError
from onebit.data.crops import read_window
from onebit.data.hub import parquet_files
from onebit.data.pictures import read_picture
from onebit.data.wav import read_clip, read_wav
from onebit.errors import FileKindError
from onebit.train import checkpoint
from onebit.user_files import open_regular

pytestmark = pytest.mark.timeout(20)  # a reader that waits for a pipe fails, it does not hang

READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "program": (onebit.load, onebit.ProgramError),
    "sound": (lambda path: read_wav(path, 8000), DataError),
    "clip": (lambda path: read_clip(path, 8000, 8000), DataError),
    "picture": (lambda path: read_picture(path, path), DataError),
    "picture window": (lambda path: read_window(str(path), path, 8, 1), DataError),
    "checkpoint": (checkpoint.load, onebit.CheckpointError),
    "weights": (lambda path: checkpoint.read(path, "weights"), onebit.CheckpointError),
    "recipe": (onebit.train.load_recipe, onebit.RecipeError),
}


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A path of each kind, by the word that the error must say."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(tmp_path)  # a socket's path may have about a hundred characters
    listening.bind("socket")
    os.chdir(before)
    (tmp_path / "link").symlink_to("pipe")
    yield {
        "a pipe": tmp_path / "pipe",
        "a folder": tmp_path / "folder",
        "a socket": tmp_path / "socket",
        "a device": Path("/dev/zero"),
        "a pipe ": tmp_path / "link",
    }
    listening.close()


@pytest.mark.parametrize("reader", READERS)
def test_nothing_but_a_regular_file_is_read(reader: str, places: dict[str, Path]) -> None:
    read, kind = READERS[reader]
    for word, path in places.items():
        with pytest.raises(kind) as caught:
            read(path)
        assert word.strip() in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_path_that_becomes_a_pipe_after_the_look_is_not_waited_for(
    reader: str, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_files, "check_regular", lambda path: None)  # the look saw a file
    read, kind = READERS[reader]
    with pytest.raises(kind, match="a pipe"):
        read(places["a pipe"])


def test_commands_refuse_a_pipe(places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("inspect", "bench", "run"):
        assert main([command, str(places["a pipe"]), *(["x.npy"] if command == "run" else [])]) == 2
        assert "is a pipe, a socket or a device" in capsys.readouterr().err


def test_parquet_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-0.parquet")
    with pytest.raises(FileKindError, match=r"train-0\.parquet' is a pipe; a regular file is needed"):
        parquet_files(tmp_path)


def test_a_regular_file_is_read_whole_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"12345"
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    torch.save({"a": torch.arange(3)}, tmp_path / "weights")
    assert checkpoint.read(tmp_path / "weights", "weights")["a"].tolist() == [0, 1, 2]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_no_descriptor_is_left(places: dict[str, Path]) -> None:
    before = open_descriptors()
    for _ in range(3):
        for path in places.values():
            with pytest.raises(FileKindError):
                open_regular(path)
    assert open_descriptors() == before


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(FileKindError("a", "a pipe")))
    assert (error.path, error.kind, str(error)) == ("a", "a pipe", "'a' is a pipe; a regular file is needed")
