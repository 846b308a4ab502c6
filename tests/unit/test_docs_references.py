"""What the pages and the docstrings name is there: files of this repository, and names of the package."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import onebit
from support import ROOT

FOLDERS = ("src", "csrc", "tests", "benchmarks", "examples", "docs", ".ci")
SUFFIXES = "py|c|h|inc|cu|cuh|md"
_FILE = re.compile(rf"(?<![\w/.<>*-])((?:[\w-]+/)*[\w-]+\.(?:{SUFFIXES}))\b(?!\.\w)")
_NAME = re.compile(r"`(onebit(?:\.\w+)+)")

# Files of the reader, of a template, of C and of another project.
ELSEWHERE = {
    "src/onebit/data/NAME.py",
    "model.py",
    "file.py",
    "larq_zoo/sota/quicknet.py",
    "stddef.h",
    "stdint.h",
}


def pages() -> list[Path]:
    """CHANGELOG.md is left out: it tells of old names."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def files() -> set[str]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {f"/{path.relative_to(ROOT).as_posix()}" for path in [*found, *ROOT.glob("*.*")]}


def missing_files(text: str, known: set[str]) -> list[str]:
    """The files that `text` names by the end of their path, and that are nowhere."""
    names = {name for name in _FILE.findall(text) if name not in ELSEWHERE}
    return sorted(name for name in names if not any(path.endswith(f"/{name}") for path in known))


def is_there(name: str) -> bool:
    """Whether `onebit.a.b` is an attribute or a module."""
    parts = name.split(".")
    found: object = onebit
    for i, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:i]))
            except ModuleNotFoundError:
                return False
    return True


def test_the_pages_name_files_that_exist() -> None:
    known = files()
    found = {str(page.relative_to(ROOT)): missing_files(page.read_text(), known) for page in pages()}
    assert {page: names for page, names in found.items() if names} == {}


def test_the_sources_name_files_that_exist() -> None:
    known = files()
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        prose = "\n".join(re.findall(r'"""(?:.|\n)*?"""|#.*', path.read_text()))
        found[str(path.relative_to(ROOT))] = missing_files(prose, known)
    assert {path: names for path, names in found.items() if names} == {}


def test_names_of_the_package_exist() -> None:
    sources = [*pages(), *sorted((ROOT / "src").rglob("*.py"))]
    names = {name for path in sources for name in _NAME.findall(path.read_text()) if name != "onebit.h"}
    assert len(names) > 20, "is the pattern still right?"
    assert sorted(name for name in names if not is_there(name)) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("see `nn/binary_layer.py` and binary_layer.py", []),
        ("see nn/layer_binary.py.", ["nn/layer_binary.py"]),
        ("[recipes](recipes/add-an-op.md) of arm_nein.c", ["arm_nein.c"]),
        ("layer.py", ["layer.py"]),  # the end of another name is no name
    ],
)
def test_a_missing_file_is_seen(text: str, missing: list[str]) -> None:
    assert missing_files(text, files()) == missing


def test_a_missing_name_is_seen() -> None:
    assert is_there("onebit.nn.BinaryLinear")
    assert is_there("onebit.lowering.passes.thresholds")
    assert not is_there("onebit.nn.TernaryLinear")
