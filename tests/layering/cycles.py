"""Which modules of the package import each other in a circle, through functions and type checks too.

An import inside a function hides a circle from Python, not from whoever wants to read or to move a module
alone. A submodule imports its parent packages by itself; that is no edge here, an import that is written is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path


def import_graph(package_root: Path) -> dict[str, set[str]]:
    """Module → the modules of the package that it imports, for each file below the package's folder."""
    files = {}
    for path in sorted(package_root.rglob("*.py")):
        parts = (package_root.name, *path.relative_to(package_root).with_suffix("").parts)
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {
        module: {name for name in _imported(path, module, files) if name != module}
        for module, path in files.items()
    }


def _imported(path: Path, module: str, known: Mapping[str, Path]) -> Iterator[str]:
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # a submodule, or a name in the module itself
                submodule = f"{origin}.{alias.name}"
                yield from (name for name in (submodule,) if name in known)
                yield from (name for name in (origin,) if submodule not in known and name in known)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and node.args[0].value in known:
                yield str(node.args[0].value)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules of which each reaches each other one."""
    reached = {module: _reachable(graph, module) for module in graph}
    found: list[list[str]] = []
    for module in sorted(graph):
        group = sorted(other for other in reached[module] if module in reached[other])
        if group and group not in found:
            found.append(group)
    return found


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = list(graph[start])
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left.extend(graph[module])
    return seen
