"""Files stay small enough to read in one sitting: 500 lines, an ISA file 300."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import ROOT

FOLDERS = ("src", "csrc", "tests", "benchmarks", "examples")
SUFFIXES = (".py", ".c", ".h", ".inc", ".cu", ".cuh")
MAX_LINES = 500
MAX_LINES_ISA = 300


def too_long(path: Path) -> str | None:
    """Why `path` is too long, or None."""
    is_isa = path.suffix == ".c" and path.name.startswith(("x86_", "arm_", "wasm_"))
    most = MAX_LINES_ISA if is_isa else MAX_LINES
    lines = path.read_text(encoding="utf-8").count("\n")
    return f"{path}: {lines} lines, at most {most}: split it" if lines > most else None


def test_no_file_is_too_long() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    assert len(files) > 40, f"only {len(files)} files: is {ROOT} the right folder?"
    found = [problem for path in sorted(files) if (problem := too_long(path))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("name", "lines", "refused"),
    [("a.py", 500, False), ("a.py", 501, True), ("x86_avx2.c", 300, False), ("x86_avx2.c", 301, True)],
)
def test_the_check_sees_a_long_file(tmp_path: Path, name: str, lines: int, refused: bool) -> None:
    path = tmp_path / name
    path.write_text("x\n" * lines)
    assert (too_long(path) is not None) == refused
