"""The scripts that users copy run as they stand, and show what they claim."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support import ROOT

ELSEWHERE = {"keyword_spotting"}  # takes a trained file: test_keyword_spotting.py runs it
# Example → what it prints when its claim holds.
CLAIMS = {
    "pack_any_model": "every score is the same bit for bit",
    "train_and_run": "scores that differ: 0 of 3600",
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*CLAIMS, *ELSEWHERE}


@pytest.mark.parametrize("name", CLAIMS)
def test_example_runs(name: str, tmp_path: os.PathLike[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert CLAIMS[name] in done.stdout
