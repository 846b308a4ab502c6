"""csrc/kernels/families.inc and the folders name the same kernels, so that none is dead and none untested."""

from __future__ import annotations

import re
from pathlib import Path

from layering.includes import is_isa_file
from support import ROOT, kernel_list

KERNELS = ROOT / "csrc" / "kernels"
FILES = sorted(path for path in KERNELS.glob("*/*.c") if path.name == "generic.c" or is_isa_file(path))


def _kernel(path: Path) -> tuple[str, str]:
    return path.parent.name, path.stem.partition("_")[2] or path.stem


def test_each_kernel_file_is_listed_and_each_listed_kernel_has_a_file() -> None:
    assert {_kernel(path) for path in FILES} == kernel_list()


def test_each_family_has_a_header_a_generic_kernel_and_a_test() -> None:
    text = (KERNELS / "families.inc").read_text()
    families = set(re.findall(r"^ONEBIT_FAMILY\((\w+),", text, re.MULTILINE))
    assert families == {path.name for path in KERNELS.iterdir() if path.is_dir()}
    assert families == {family for family, isa in kernel_list() if isa == "generic"}
    for family in families:
        assert (KERNELS / family / f"{family}.h").exists(), family
        assert (KERNELS / family / "test.c").exists(), family
