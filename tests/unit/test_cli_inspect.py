"""`onebit inspect`: what it says of the file itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from onebit.cli.shell import main
from onebit.program import save, stored_checksum
from program_samples import bytes_mlp

OLD = Path(__file__).parents[1] / "golden" / "program_v1.safetensors"


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_checksum_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.onebit"
    save(bytes_mlp(), path)
    checksum = stored_checksum(path)
    assert checksum is not None
    assert f"checksum  {checksum}" in said(capsys, path)
    assert json.loads(said(capsys, path, "--json"))["checksum"] == checksum


def test_a_file_without_a_checksum_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.onebit"
    shutil.copy(OLD, path)
    assert "checksum  none: an older onebit wrote this file" in said(capsys, path)
    assert json.loads(said(capsys, path, "--json"))["checksum"] is None
