"""One name, one thing, in every room: for modules, but for a short list with reasons, and for types."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path, PurePath

from support import ROOT

SOURCE = ROOT / "src" / "onebit"

# A file in each of these is about one kind of operation, and bears that kind's name: what it means, how it is
# lowered, how a GPU runs it, what it is in ONNX.
KINDS_OF_OPS = {"program/ops", "lowering/rules", "runtime/cuda/kernels", "export/onnx"}

ALLOWED = {
    "__init__.py": "every package has one",
    "errors.py": "the kinds of errors; the form of their messages in program, of the user's own in cli",
    "convert.py": "`onebit.convert` and the command of that name; the same of ONNX in export",
}


def clashes(paths: list[PurePath]) -> list[str]:
    """Names of modules (paths relative to the package) that two rooms share without leave."""
    homes: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder = path.parent.as_posix()
        homes[path.name].add("a kind of ops" if folder in KINDS_OF_OPS else path.parts[0])
    return sorted(name for name, rooms in homes.items() if len(rooms) > 1 and name not in ALLOWED)


def test_no_two_rooms_share_the_name_of_a_module() -> None:
    paths: list[PurePath] = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    assert len(paths) > 100, f"only {len(paths)} modules under {SOURCE}: is this the right folder?"
    assert clashes(paths) == [], "rename one of each, or say in ALLOWED why not"
    for name in ALLOWED:
        assert len({path.parts[0] for path in paths if path.name == name}) > 1, (
            f"{name} needs no leave any more"
        )


def test_a_clash_is_seen() -> None:
    paths = ["nn/a.py", "ops/a.py", "nn/b.py", "nn/deep/b.py", "ops/__init__.py", "nn/__init__.py"]
    paths += ["program/ops/pool.py", "lowering/rules/pool.py", "program/ops/sum.py", "lowering/sum.py"]
    assert clashes([Path(path) for path in paths]) == ["a.py", "sum.py"]


def types_in(text: str) -> set[str]:
    """Names of a module's classes, also of inner ones, and type aliases; `_A` and `A` are one name."""
    module = ast.parse(text)
    classes = {node.name.lstrip("_") for node in ast.walk(module) if isinstance(node, ast.ClassDef)}
    assigned: set[str] = set()
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assigned |= {target.id.lstrip("_") for target in targets if isinstance(target, ast.Name)}
    return classes | {name for name in assigned if name[:1].isupper() and not name.isupper()}


def type_clashes(sources: dict[PurePath, str]) -> list[str]:
    """Names of types that two rooms share, from the text of each module."""
    homes: dict[str, set[str]] = defaultdict(set)
    for path, text in sources.items():
        for name in types_in(text):
            homes[name].add(path.parts[0])
    return sorted(name for name, rooms in homes.items() if len(rooms) > 1)


def test_no_two_rooms_share_the_name_of_a_type() -> None:
    sources: dict[PurePath, str] = {
        path.relative_to(SOURCE): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")
    }
    assert sum(text.count("\nclass ") for text in sources.values()) > 200, "is this the right folder?"
    assert type_clashes(sources) == [], "rename one of each"


def test_a_clash_of_types_is_seen() -> None:
    sources = {
        "nn/a.py": "class Twice: ...\nclass _Hidden: ...\nclass Once: ...",
        "nn/b.py": "class Once: ...\nAlias = int | str\n_LIMIT = 3\nLocal: TypeAlias = int",
        "ops/a.py": "class Twice: ...\ndef f():\n    class Hidden: ...\n",
        "train/a.py": "_Alias = float\nLIMIT = 4\ndef f():\n    Local = 1",
    }
    assert type_clashes({Path(path): text for path, text in sources.items()}) == ["Alias", "Hidden", "Twice"]
