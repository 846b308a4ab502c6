"""The scripts that users copy run as they stand, and show what they claim."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support import ROOT

ELSEWHERE = {"keyword_spotting.py"}  # takes a trained file: test_keyword_spotting.py runs it
EXAMPLES = sorted(p for p in (ROOT / "examples").glob("*.py") if p.name not in ELSEWHERE)


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: os.PathLike[str], tmp_path: os.PathLike[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "scores that differ: 0 of 3600" in done.stdout
