"""No C file includes or calls what the dependency table forbids, and the check that says so works."""

from __future__ import annotations

from pathlib import Path

import pytest

from layering.includes import c_violations
from support import ROOT

CSRC = ROOT / "csrc"
C_SUFFIXES = (".c", ".h", ".inc", ".cu", ".cuh")


def _planted(tmp_path: Path, where: str, code: str) -> list[str]:
    path = tmp_path / "csrc" / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return c_violations(path, tmp_path / "csrc")


def test_every_c_file_keeps_to_the_table() -> None:
    files = sorted(path for path in CSRC.rglob("*") if path.suffix in C_SUFFIXES)
    assert len(files) > 10, f"only {len(files)} files under {CSRC}: is this the right folder?"
    found = [problem for path in files for problem in c_violations(path, CSRC)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ("base/a.c", '#include "kernels/gemm.h"', "csrc/base may not include"),
        ("base/a.c", "#include <Python.h>", "csrc/base may not include <Python.h>"),
        ("kernels/x/generic.c", '#include "engine/plan.h"', "a kernel family may include"),
        ("kernels/x/generic.c", '#include "kernels/y/y.h"', "a kernel family may include"),
        (
            "kernels/x/generic.c",
            '#define Y "kernels/y/loops.inc"\n#include Y',
            "a kernel family may include",
        ),
        ("kernels/x/generic.c", '#include "kernels/families.h"', "a kernel may not choose other kernels"),
        ("kernels/gemm.h", '#include "kernels/x/x.h"', "a kernel family may include"),
        ("kernels/x/generic.c", '#include "../y/y.h"', "instead of"),
        ("kernels/x/generic.c", '#include "onebit.h"', "a kernel family may include"),
        ("kernels/x/generic.c", "#  include  <stdlib.h>", "may not include <stdlib.h>"),
        ("kernels/x/generic.c", "#include <pthread.h>", "may not include <pthread.h>"),
        ("kernels/x/generic.c", "#include <immintrin.h>", "outside an ISA file"),
        ("kernels/x/generic.c", "void *malloc(unsigned long);", "may not call malloc()"),
        ("kernels/x/x86_avx2.c", "void f(void) { pthread_create (0); }", "may not call pthread_create()"),
        ("engine/a.c", "#include <immintrin.h>", "csrc/engine may not include <immintrin.h>"),
        ("engine/a.c", '#include "kernels/x/generic.c"', "kernel headers"),
        ("engine/a.c", "#include <Python.h>", "csrc/engine may not include <Python.h>"),
        ("include/onebit.h", '#include "base/isa.h"', "the public header may not include"),
        ("cuda/x/x.cu", '#include "include/onebit.h"', "only its own headers"),
        ("cuda/x/x.cu", '#include "base/bits.h"', "only its own headers"),
        ("cuda/x/x.cu", "#include <torch/extension.h>", "csrc/cuda may not include"),
        ("attic/a.c", "", "'attic' is no folder"),
        ("a.c", "", "outside every folder"),
    ],
)
def test_a_forbidden_include_is_caught(tmp_path: Path, where: str, code: str, message: str) -> None:
    found = _planted(tmp_path, where, code)
    assert len(found) == 1, found
    assert message in found[0]


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("base/a.c", '#include <pthread.h>\n#include <cpuid.h>\n#include "base/isa.h"\n#include "isa.h"'),
        (
            "kernels/x/generic.c",
            '#include <stdint.h>\n#include "kernels/gemm.h"\n#include "kernels/x/x.h"',
        ),
        ("kernels/x/x86_avx2.c", '#include <immintrin.h>\n#include "x.h"'),
        ("kernels/select.c", '#include "kernels/families.h"'),
        (
            "kernels/families.h",
            '#include "base/isa.h"\n#include "kernels/x/x.h"\n#include "kernels/families.inc"',
        ),
        ("kernels/x/test.c", "#include <stdlib.h>\nint main(void) { return malloc(1) != 0; }"),
        ("kernels/x/generic.c", "/* we never malloc(x) here */ // #include <stdlib.h>\n"),
        (
            "engine/a.c",
            '#include <stdlib.h>\n#include "kernels/x/x.h"\n#include "onebit.h"\n#include "engine/plan.h"',
        ),
        ("include/onebit.h", '#include <stdint.h>\n#include "onebit_ops.h"'),
        ("kernels/x/x.h", '#include "onebit_ops.h"'),
        ("cuda/x/x.cu", '#include "include/onebit_ops.h"'),
        ("cuda/x/x.cu", '#include "x.cuh"\n#include "cuda/common.cuh"'),
    ],
)
def test_an_allowed_include_passes(tmp_path: Path, where: str, code: str) -> None:
    assert _planted(tmp_path, where, code) == []
