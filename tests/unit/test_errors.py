"""Every error of onebit's own is an `onebit.OnebitError`, and the package exports each kind."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re

import pytest

import onebit
from onebit.errors import Problem
from support import ROOT, run_python

# What is raised and caught within one room, and what only the shell command and the benchmarks raise.
CONTROL_FLOW = {"onebit.lowering.emit.context.Refused"}
NOT_EXPORTED = {"onebit.cli.errors.UserError", "onebit.export.float_ops.NotComparable"}

KINDS = {
    "CheckpointError": ValueError,
    "ConversionError": ValueError,
    "DataError": ValueError,
    "EngineError": RuntimeError,
    "ExportError": ValueError,
    "FileKindError": OSError,
    "MissingPackageError": ImportError,
    "ProgramError": ValueError,
    "RecipeError": ValueError,
    "TrainError": ValueError,
}


def _exceptions() -> dict[str, type[BaseException]]:
    """Every exception class that a file of src/onebit defines, by its dotted name."""
    found = {}
    for path in sorted((ROOT / "src/onebit").rglob("*.py")):
        if not re.search(r"^class \w+\(", path.read_text(), re.MULTILINE):
            continue
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        loaded = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        for name, item in vars(loaded).items():
            own = inspect.isclass(item) and item.__module__ == loaded.__name__
            if own and issubclass(item, BaseException):
                found[f"{loaded.__name__}.{name}"] = item
    return found


def test_every_exception_stands_below_the_base_and_is_exported() -> None:
    found = _exceptions()
    assert set(KINDS) <= {name.rpartition(".")[2] for name in found}
    for name, kind in found.items():
        if name in CONTROL_FLOW:
            continue
        assert issubclass(kind, onebit.OnebitError), name
        if name not in NOT_EXPORTED:
            assert getattr(onebit, kind.__name__) is kind, name


@pytest.mark.parametrize(("name", "builtin"), KINDS.items())
def test_a_kind_is_the_builtin_that_callers_expect(name: str, builtin: type[Exception]) -> None:
    assert name in onebit.__all__
    assert issubclass(getattr(onebit, name), builtin)


def test_a_kind_can_be_named_where_pytorch_is_missing() -> None:
    code = "import sys; sys.modules['torch'] = None; import onebit; print(onebit.ConversionError.__name__)"
    assert run_python(code).split() == ["ConversionError"]


def test_a_conversion_error_survives_pickling() -> None:
    error = onebit.ConversionError(
        [Problem("a", "Linear", "", "why", "fix"), Problem("", "Net", "x", "w", "f")]
    )
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems
    assert str(again) == str(error)


@pytest.mark.parametrize("room", ["data", "lowering", "runtime", "train"])
def test_a_room_names_the_kinds_that_it_raises(room: str) -> None:
    names = importlib.import_module(f"onebit.{room}.errors")
    assert names.__all__
    for name in names.__all__:
        assert getattr(names, name) is getattr(onebit.errors, name)
