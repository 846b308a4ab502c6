"""What several test files need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def in_ci() -> bool:
    """True on the CI machines, where everything a test needs must be present."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def require(condition: object, reason: str) -> None:
    """Skip the test, saying why, unless `condition` holds. Under CI=true a missing thing is a failure."""
    if condition:
        return
    if in_ci():
        pytest.fail(f"CI must have what this test needs: {reason}", pytrace=False)
    pytest.skip(reason)


def require_tool(name: str) -> str:
    """Path of a program this test needs, from PATH or from the running environment."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    require(found, f"the program {name!r} is not installed")
    assert found is not None
    return found


def sweep(
    names: str | tuple[str, ...], values: Iterable[Any], keep: Collection[Any], **options: Any
) -> pytest.MarkDecorator:
    """parametrize() for a sweep over emulated machines. `make test` has the values to `keep`, few that reach
    each kernel family; `make test-targets` has the others."""
    given = list(values)
    assert keep, "make test would have none of them"
    assert all(value in given for value in keep), "a value to keep is not in the sweep"
    rest = pytest.mark.targets
    parameters = [
        value if value in keep else pytest.param(*((value,) if isinstance(names, str) else value), marks=rest)
        for value in given
    ]
    return pytest.mark.parametrize(names, parameters, **options)


@cache
def kernel_list() -> frozenset[tuple[str, str]]:
    """(family, instruction set) of every kernel that csrc/kernels/families.inc lists."""
    text = (ROOT / "csrc" / "kernels" / "families.inc").read_text()
    return frozenset(re.findall(r"^(?:ONEBIT_ON_\w+\()?ONEBIT_VARIANT\((\w+), (\w+)\)", text, re.MULTILINE))


def kernel_for(family: str, isa: str) -> str:
    """The instruction set whose kernel an engine for `isa` must run here: that one, or the next plainer."""
    from onebit.runtime import available_isas

    here = available_isas()
    return next(name for name in here[here.index(isa) :] if (family, name) in kernel_list())


def run_python(code: str, *, env: dict[str, str] | None = None, timeout: float = 120) -> str:
    """Run `code` in a fresh interpreter and return its stdout; its stderr becomes the failure message."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    return done.stdout
