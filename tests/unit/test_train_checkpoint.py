"""Files of training: damage is told before anything is read, and what stood before still loads."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from onebit.errors import CheckpointError  # noqa: E402
from onebit.train import checked_archive  # noqa: E402
from onebit.train import checkpoint as checkpoints  # noqa: E402
from onebit.train.checkpoint import Best, Checkpoint, Position  # noqa: E402
from onebit.train.files import write_atomically  # noqa: E402


def small() -> Checkpoint:
    return Checkpoint(
        recipe={"name": "small"},
        data=1,
        teacher=0,
        device="cpu",
        torch_version="2",
        position=Position(1, 2, 3.0),
        best=Best(1, 0.5, {"w": torch.arange(3.0)}),
        model={"w": torch.tensor([1.0, -1.0, 0.25])},
        optimizer={"state": {}},
        batches={},
        ranks=[{}],
        history=[{"epoch": 1}],
    )


def old(path: Path) -> None:
    """As it was written before there were checked_archive."""
    checkpoints.save(path, small())
    torch.save({**torch.load(path, weights_only=True), "format": 2}, path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoints.save(tmp_path / "checkpoint.pt", small())
    return tmp_path / "checkpoint.pt"


def test_round_trip(saved: Path) -> None:
    back, wanted = checkpoints.load(saved), small()
    assert back.checked
    assert back.best.model["w"].tolist() == [0, 1, 2]
    assert back.model["w"].tolist() == [1, -1, 0.25]
    for one in fields(Checkpoint):
        if one.name not in ("best", "model"):
            assert getattr(back, one.name) == getattr(wanted, one.name)


def test_other_readers_read_it_and_the_checksum_is_that_of_zlib(saved: Path) -> None:
    raw = saved.read_bytes()
    assert int(raw[-8:], 16) == zlib.crc32(raw[:-8])
    assert torch.load(saved, weights_only=True)["model"]["w"].tolist() == [1, -1, 0.25]
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.comment == b"onebit crc32 " + raw[-8:]


def damaged_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A flipped bit of any byte, then a cut anywhere: one error, and for a flip torch is not even asked."""
    valid = path.read_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read before the checksum was compared")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", never)
        for at in [*range(0, len(valid) - 60, 7), *range(len(valid) - 60, len(valid))]:
            path.write_bytes(valid[:at] + bytes([valid[at] ^ 1 << at % 8]) + valid[at + 1 :])
            with pytest.raises(CheckpointError, match=f"damaged, or no {kind} of onebit.*checksum") as caught:
                checkpoints.read(path, kind)
            assert "\n" not in str(caught.value)
    for size in [*range(0, len(valid), 37), *range(len(valid) - 45, len(valid))]:
        path.write_bytes(valid[:size])
        with pytest.raises(CheckpointError, match=rf"{path.name}: damaged"):
            checkpoints.load(path) if kind == "checkpoint" else checkpoints.read(path, kind)


def test_every_damaged_byte_of_a_checkpoint_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged_is_named(saved, monkeypatch, "checkpoint")


def test_every_damaged_byte_of_a_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    write_atomically(path, lambda file: checked_archive.save({"w": torch.arange(3)}, file))
    damaged_is_named(path, monkeypatch, "model")


def test_a_checkpoint_that_lost_its_checksum_is_damaged(saved: Path) -> None:
    torch.save(torch.load(saved, weights_only=True), saved)
    with pytest.raises(CheckpointError, match=r"damaged \(its checksum is gone\)"):
        checkpoints.load(saved)


def test_a_file_without_a_checksum_loads_and_is_told_from_others(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    old(path)
    back = checkpoints.load(path)
    assert not back.checked
    assert back.model["w"].tolist() == [1, -1, 0.25]
    checkpoints.save(path, back)
    assert checkpoints.load(path).checked


@pytest.mark.parametrize("version", [1, 4, True, 3.0, "3", None])
def test_another_format_is_refused(saved: Path, version: Any) -> None:
    content = {**torch.load(saved, weights_only=True), "format": version}
    write_atomically(saved, lambda file: checked_archive.save(content, file))
    with pytest.raises(CheckpointError, match="made by another version of onebit; start the run anew"):
        checkpoints.load(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"PK\x05\x06",
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"t.7\xce\x91",
        b"hello world",
        b"\x80\x02}q\x00.",
        b"\x93NUMPY\x01\x00",
        b"%PDF-1.7\n",
        b"\x89PNG\r\n\x1a\n",
        bytes(range(256)) * 9,
    ],
)
def test_foreign_bytes_are_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.pt"
    path.write_bytes(content)
    for read in (checkpoints.load, lambda path: checkpoints.read(path, "weights")):
        with pytest.raises(CheckpointError, match=r"foreign\.pt: damaged, or no ") as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value), "no advice to load without the guard"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_old_files_are_an_error_or_load(tmp_path: Path) -> None:
    """There not all damage is told, but nothing but a CheckpointError comes of it."""
    path = tmp_path / "old.pt"
    old(path)
    valid = path.read_bytes()
    refused = 0
    for at in range(0, len(valid), 5):
        path.write_bytes(valid[:at] + bytes([valid[at] ^ 0xFF]) + valid[at + 1 :])
        try:
            assert not checkpoints.load(path).checked
        except CheckpointError:
            refused += 1
    assert refused > len(valid) // 50
