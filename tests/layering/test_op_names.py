"""What ops have in common is a fact of each op, not a list of their names in whoever asks.

A list that an op is missing from is wrong without a word. So outside `program/ops` no tuple, list, set or
dict holds the names of two ops, but for the tables that say what a consumer implements.
"""

from __future__ import annotations

import ast

import pytest

from onebit.program import OPS
from support import ROOT

SOURCE = ROOT / "src" / "onebit"
ROOMS = ("program", "lowering", "runtime", "export", "bench")  # those that read Programs
ALLOWED = {
    "runtime/builder.py": "the ops that the C library has",
    "runtime/cuda/kernels/layout_ops.py": "the names of kernels",
}


def lists_of_ops(source: str) -> list[tuple[int, list[str]]]:
    """(line, names) of each tuple, list, set and dict whose elements or keys name two ops or more."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            parts = node.keys if isinstance(node, ast.Dict) else node.elts
            names = [part.value for part in parts if isinstance(part, ast.Constant) and part.value in OPS]
            if len(names) > 1:
                found.append((node.lineno, [str(name) for name in names]))
    return found


def test_nobody_lists_ops_by_name() -> None:
    ops = SOURCE / "program" / "ops"
    files = [p for room in ROOMS for p in sorted((SOURCE / room).rglob("*.py")) if ops not in p.parents]
    assert len(files) > 100
    seen = {path.relative_to(SOURCE).as_posix(): lists_of_ops(path.read_text()) for path in files}
    wrong = [
        f"{name}:{line}: {ops}" for name, found in seen.items() for line, ops in found if name not in ALLOWED
    ]
    assert not wrong, "make it a fact of each op (program/ops/facts.py):\n" + "\n".join(wrong)
    for name in ALLOWED:
        assert seen[name], f"{name} needs no leave any more"


@pytest.mark.parametrize(
    "code",
    [
        'X = ("add", "sub")',
        'if node.op in {"relu", "abs"}: pass',
        'X = {"sign": 1, "threshold": 2, "other": 3}',
        'f(["binary_gemm", "u8_gemm"])',
    ],
)
def test_a_list_of_ops_is_seen(code: str) -> None:
    assert len(lists_of_ops(code)) == 1
    assert lists_of_ops('X = ("add", "other")\nY = node.op == "sub"') == []
