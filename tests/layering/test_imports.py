"""No file imports what the dependency table forbids, and the check that says so works."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from layering.rules import LAZY_NAMES, PACKAGE, ROOMS, violations
from support import ROOT

SOURCE = ROOT / "src" / PACKAGE


def _planted(tmp_path: Path, where: str, code: str) -> list[str]:
    path = tmp_path / PACKAGE / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return violations(path, tmp_path / PACKAGE)


def test_every_file_keeps_to_the_table() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 20, f"only {len(files)} files under {SOURCE}: is this the right folder?"
    found = [problem for path in files for problem in violations(path, SOURCE)]
    assert not found, "\n" + "\n".join(found)


def test_every_room_on_disk_has_a_rule() -> None:
    on_disk = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert on_disk <= set(ROOMS), f"rooms without a rule: {sorted(on_disk - set(ROOMS))}"


def test_the_lazy_names_are_those_of_the_package() -> None:
    for node in ast.parse((SOURCE / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOME":
            assert ast.literal_eval(node.value) == LAZY_NAMES
            return
    pytest.fail("onebit/__init__.py has no _HOME any more: teach tests/layering/rules.py its new lazy names")


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ("program/a.py", "import torch", "program may not import torch"),
        ("program/a.py", "def f():\n    from torch import nn", "program may not import torch"),
        (
            "program/sub/a.py",
            "class A:\n    def f(self):\n        import torch.fx",
            "program may not import torch",
        ),
        (
            "program/a.py",
            "import importlib\nimportlib.import_module('torch')",
            "program may not import torch",
        ),
        ("program/a.py", "__import__('torch')", "program may not import torch"),
        ("program/a.py", "from importlib import import_module\nimport_module(name)", "computed name"),
        ("program/a.py", "from onebit import runtime", "program may not import onebit.runtime"),
        ("program/a.py", "from ..runtime import Engine", "program may not import onebit.runtime"),
        ("program/__init__.py", "from ..nn import x", "program may not import onebit.nn"),
        ("program/a.py", "from onebit import Engine", "program may not import onebit.runtime"),
        ("program/a.py", "import onebit", "not the whole package"),
        (
            "program/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onebit.nn import BinaryLinear",
            "program may not import onebit.nn",
        ),
        ("nn/a.py", "import numpy", "nn may not import numpy"),
        ("models/a.py", "from onebit.train import loop", "models may not import onebit.train"),
        ("data/a.py", "import datasets", "data may import datasets only inside functions"),
        ("train/a.py", "from onebit import convert", "train may not import onebit.lowering"),
        ("lowering/a.py", "from onebit.runtime import Engine", "lowering may not import onebit.runtime"),
        ("runtime/engine.py", "def f():\n    import torch", "runtime may import torch only in cuda*"),
        ("export/c.py", "import onnx", "export may import onnx only in onnx*"),
        ("bench/a.py", "from onebit.train import recipes", "bench may not import onebit.train"),
        ("cli/a.py", "import numpy as np", "cli may import numpy only inside functions"),
        (
            "cli/a.py",
            "from onebit.program import load",
            "cli may import onebit.program only inside functions",
        ),
        ("nn/a.py", "from onebit.cli import main", "nn may not import onebit.cli"),
        ("attic/a.py", "import os", "'attic' is no room"),
        ("loose.py", "import os", "outside every room"),
        ("errors.py", "import numpy", "errors may not import numpy"),
        ("errors.py", "from onebit.program import Program", "errors may not import onebit.program"),
    ],
)
def test_a_forbidden_import_is_caught(tmp_path: Path, where: str, code: str, message: str) -> None:
    found = _planted(tmp_path, where, code)
    assert len(found) == 1, found
    assert message in found[0]


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("program/a.py", "import os, json\nimport numpy as np\nfrom onebit.program import errors"),
        ("program/__init__.py", "from .graph import Program\nfrom onebit.program.tensors import DType"),
        ("lowering/a.py", "import torch\nfrom onebit.nn import layers\nfrom onebit import Program"),
        ("data/a.py", "def f():\n    import datasets\n    from PIL import Image"),
        ("runtime/cuda.py", "import torch"),
        ("runtime/cuda/engine.py", "import torch"),
        ("cli/a.py", "from onebit import __version__\ndef f():\n    import torch\n    from onebit import nn"),
        ("cli/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy.typing"),
        ("errors.py", "from dataclasses import dataclass"),
        ("program/a.py", "from onebit.errors import ProgramError"),
        ("cli/a.py", "from onebit import OnebitError"),
        ("program/a.py", "'''import torch'''\n# import torch"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, where: str, code: str) -> None:
    assert _planted(tmp_path, where, code) == []
