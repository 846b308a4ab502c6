"""What an import loads, in fresh processes: running a model needs no torch, importing onebit no library."""

from __future__ import annotations

import json

import pytest

from support import require, run_python

HEAVY = ("torch", "sklearn", "matplotlib", "datasets", "tqdm", "onnx", "onnxruntime", "scipy")

_REPORT = """
import json, sys
from pathlib import Path
maps = Path("/proc/self/maps")
libraries = sorted({line.split()[-1] for line in maps.read_text().splitlines() if "libonebit" in line}) \\
    if maps.exists() else None
print(json.dumps({"modules": sorted(sys.modules), "libraries": libraries}))
"""


def _loaded_by(code: str) -> tuple[set[str], list[str] | None]:
    report = json.loads(run_python(code + _REPORT).splitlines()[-1])
    return set(report["modules"]), report["libraries"]


def test_import_onebit_opens_no_shared_library_and_no_room() -> None:
    modules, libraries = _loaded_by("import onebit\n")
    require(libraries is not None, "/proc/self/maps, to see which libraries are open")
    assert libraries == []
    assert {name for name in modules if name.startswith("onebit")} == {"onebit"}
    assert "numpy" not in modules


@pytest.mark.parametrize(
    "code",
    [
        "import onebit.runtime\n",
        "import onebit.program\n",
        "import onebit\nonebit.Engine\n",
        "import onebit.cli\n",
        "import onebit.data.wav\n",
        "import onebit.data.pictures, onebit.data.crops\n",
        "import onebit.data\nonebit.data.load_arrays\n",
    ],
)
def test_running_a_packed_model_needs_no_training_package(code: str) -> None:
    modules, _ = _loaded_by(code)
    assert modules & set(HEAVY) == set()


def test_starting_the_command_loads_no_room() -> None:
    modules, libraries = _loaded_by("from onebit.cli import main\nmain(['inspect', 'no-such-file.onebit'])\n")
    assert "onebit.cli" in modules
    assert not modules & {"torch", "onebit.nn", "onebit.train", "onebit.runtime"}
    assert libraries == []


def test_the_report_sees_an_open_library() -> None:
    """Without this, a wrong name in the report would make the tests above pass for nothing."""
    modules, libraries = _loaded_by("import numpy, onebit.runtime\nprint(onebit.runtime.available_isas())\n")
    require(libraries is not None, "/proc/self/maps, to see which libraries are open")
    assert "numpy" in modules
    assert libraries
