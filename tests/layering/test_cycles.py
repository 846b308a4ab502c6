"""No modules import each other in a circle, in any room, and the check that says so works."""

from __future__ import annotations

from pathlib import Path

import pytest

from layering.cycles import circles, import_graph
from support import ROOT


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = import_graph(ROOT / "src" / "onebit")
    assert len(graph) > 100
    assert sum(map(len, graph.values())) > 200
    assert "onebit.program.tensors" in graph["onebit.program.verify"]
    found = circles(graph)
    assert not found, "\n".join(" ↔ ".join(group) for group in found)


@pytest.mark.parametrize(
    "code",
    [
        "import onebit.room.b",
        "from onebit.room import b",
        "from onebit.room.b import something",
        "from . import b",
        "from .b import something",
        "def f():\n    from onebit.room.b import something",
        "class A:\n    def f(self):\n        import onebit.room.b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onebit.room.b import something",
        "import importlib\nimportlib.import_module('onebit.room.b')",
    ],
)
def test_a_circle_is_found(tmp_path: Path, code: str) -> None:
    room = tmp_path / "onebit" / "room"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("from onebit.room.a import x")
    (room / "a.py").write_text(code)
    (room / "b.py").write_text("from onebit.room.c import y")
    (room / "c.py").write_text("from onebit.room.a import x")
    graph = import_graph(tmp_path / "onebit")
    assert circles(graph) == [["onebit.room.a", "onebit.room.b", "onebit.room.c"]]
    (room / "c.py").write_text("x = 1")
    assert circles(import_graph(tmp_path / "onebit")) == []


def test_a_module_that_imports_from_its_own_package_is_a_circle(tmp_path: Path) -> None:
    room = tmp_path / "onebit" / "room"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("from onebit.room.a import x")
    (room / "a.py").write_text("from onebit.room import x")
    assert circles(import_graph(tmp_path / "onebit")) == [["onebit.room", "onebit.room.a"]]
