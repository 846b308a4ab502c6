"""Print what pyproject.toml requires, with the named extras, one requirement a line: for `pip install -r`.

    python .ci/requirements.py train

Lets the Makefile install packages apart from onebit itself, so that an edit of C costs a rebuild and no more.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extras: list[str]) -> list[str]:
    """Own dependencies and those of the extras; an extra may name others (`onebit[train,data]`)."""
    optional: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    found: list[str] = list(project["dependencies"])  # type: ignore[call-overload]
    for extra in extras:
        if extra not in optional:
            raise SystemExit(f"pyproject.toml has no extra {extra!r}; it has {', '.join(optional)}")
        for requirement in optional[extra]:
            own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
            more = requirements(project, own.group(1).split(",")) if own else [requirement]
            found += [line for line in more if line not in found]
    return found


if __name__ == "__main__":
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    print("\n".join(requirements(tomllib.loads(text)["project"], sys.argv[1:])))
