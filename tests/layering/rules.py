"""The dependency table of docs/architecture.md as data, and the code that reads Python imports against it.

What counts as an import: every `import` and `from … import`, at the top of a file, inside a function, or
under `if TYPE_CHECKING`, and every `import_module("…")` or `__import__("…")`. Needing another room's types is
depending on it, so TYPE_CHECKING excuses nothing but a package that may be imported only inside functions:
it is not loaded there either. Exempt are `onebit/__init__.py`, which names rooms so that they resolve lazily,
and `onebit/__main__.py`, which starts the command.
"""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "onebit"


@dataclass(frozen=True)
class Room:
    """What one room under src/onebit may import, besides the standard library and itself."""

    rooms: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()  # third-party packages, anywhere
    inside_functions: frozenset[str] = frozenset()  # third-party packages, only where they are used
    only_in: tuple[tuple[str, str], ...] = ()  # (file pattern, third-party package it alone may import)
    rooms_inside_functions: bool = False  # other rooms only inside functions, so that start-up stays fast


def _room(
    rooms: str = "", packages: str = "", lazy: str = "", only_in: tuple[tuple[str, str], ...] = ()
) -> Room:
    return Room(frozenset(rooms.split()), frozenset(packages.split()), frozenset(lazy.split()), only_in)


_ALL_ROOMS = frozenset(
    {"bench", "data", "export", "lowering", "models", "nn", "ops", "optim", "program", "runtime", "train"}
)

ROOMS = {
    "program": _room("", "numpy"),
    "nn": _room("", "torch"),
    "optim": _room("", "torch"),
    "models": _room("nn", "torch"),
    "data": _room(
        "",
        "numpy",
        "datasets huggingface_hub fsspec pyarrow sklearn PIL soundfile",
        (("streaming*", "torch"), ("tensor_splits*", "torch"), ("whiten*", "torch")),
    ),
    "train": _room("nn optim models data ops", "numpy torch", "tqdm matplotlib tensorboard"),
    "lowering": _room("nn program", "numpy torch"),
    "runtime": _room("program", "numpy", only_in=(("cuda*", "torch"), ("cuda*", "cuda"))),
    "ops": _room("nn program runtime", "torch"),
    "export": _room("program", "numpy", only_in=(("onnx*", "onnx"),)),
    "bench": _room("runtime lowering models program export", "numpy", "torch onnx onnxruntime psutil"),
    "cli": Room(
        _ALL_ROOMS,
        inside_functions=frozenset({"numpy", "torch", "PIL"}),
        rooms_inside_functions=True,
    ),
}

# Modules beside the rooms, which any room may import, and the packages that each may import besides the
# standard library and the other leaves.
LEAVES = {"errors": "", "user_files": "", "needs_torch": "torch"}

# Names that `onebit/__init__.py` resolves lazily, and the room or leaf that each one opens.
LAZY_NAMES = {
    "Engine": "runtime",
    "Program": "program",
    "load": "program",
    "convert": "lowering",
    "pack": "ops",
    "CheckpointError": "errors",
    "ConversionError": "errors",
    "DataError": "errors",
    "EngineError": "errors",
    "ExportError": "errors",
    "FileKindError": "errors",
    "MissingPackageError": "errors",
    "OnebitError": "errors",
    "ProgramError": "errors",
    "RecipeError": "errors",
    "TrainError": "errors",
}


@dataclass(frozen=True)
class Import:
    """One imported module, and where it stands."""

    module: str
    line: int
    deferred: bool  # inside a function or under TYPE_CHECKING: nothing is loaded at start-up


def imports(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import in `source`, which is the dotted `module`; relative ones are resolved."""
    parent = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, inside)
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            if origin == PACKAGE:  # `from onebit import nn, Engine`: the names are what is imported
                for alias in node.names:
                    yield Import(f"{PACKAGE}.{LAZY_NAMES.get(alias.name, alias.name)}", node.lineno, inside)
            else:
                yield Import(origin, node.lineno, inside)
        elif isinstance(node, ast.Call):
            yield from _called_import(node, inside)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types_only = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside or child in types_only)

    yield from visit(ast.parse(source), False)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _called_import(node: ast.Call, inside: bool) -> Iterator[Import]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in ("import_module", "__import__"):
        return
    first = node.args[0] if node.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        yield Import(first.value, node.lineno, inside)
    else:
        yield Import("<computed>", node.lineno, inside)


def violations(path: Path, package_root: Path) -> list[str]:
    """What `path`, a file below `package_root` (the folder of onebit), imports against the table."""
    relative = path.relative_to(package_root)
    if len(relative.parts) == 1:
        if relative.name in ("__init__.py", "__main__.py"):
            return []
        if relative.stem not in LEAVES:
            return [f"{relative}: a module outside every room; move it into one"]
    room_name = Path(relative.parts[0]).stem
    room = _room("", LEAVES[room_name]) if room_name in LEAVES else ROOMS.get(room_name)
    if room is None:
        return [
            f"{relative}: {room_name!r} is no room of docs/architecture.md; add it to tests/layering/rules.py"
        ]
    parts = [PACKAGE, *relative.with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    found = []
    for item in imports(path.read_text(encoding="utf-8"), module, is_package=is_package):
        problem = _judge(item, room_name, room, relative)
        if problem:
            found.append(f"{relative}:{item.line}: {problem}")
    return found


def _judge(item: Import, room_name: str, room: Room, relative: Path) -> str | None:
    top, _, rest = item.module.partition(".")
    if item.module == "<computed>":
        return None if room_name == "cli" else "imports a computed name, which this test cannot read"
    if top == PACKAGE:
        return _judge_room(rest.partition(".")[0], item, room_name, room)
    if top in sys.stdlib_module_names or top in room.packages:
        return None
    if top in room.inside_functions:
        return None if item.deferred else f"{room_name} may import {top} only inside functions"
    patterns = [pattern for pattern, package in room.only_in if package == top]
    inner = "/".join(relative.parts[1:])
    if any(fnmatch.fnmatch(inner, pattern) for pattern in patterns):
        return None
    if patterns:
        return f"{room_name} may import {top} only in {' and '.join(patterns)}"
    return f"{room_name} may not import {top}"


def _judge_room(target: str, item: Import, room_name: str, room: Room) -> str | None:
    if target in ("", room_name):
        if target:
            return None
        return "import the room you mean (`from onebit import x`), not the whole package"
    if target == "__version__" or target in LEAVES:
        return None
    if target not in room.rooms:
        return f"{room_name} may not import {PACKAGE}.{target}"
    if room.rooms_inside_functions and not item.deferred:
        return f"{room_name} may import {PACKAGE}.{target} only inside functions"
    return None
