"""ONNX Runtime for tests: a Program's ONNX form on the CPU, with graph optimizations and without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from onebit.program import Program, execute
from support import require

Array = np.ndarray[Any, Any]


def require_onnx() -> None:
    """Skip where the two packages are missing."""
    for package in ("onnx", "onnxruntime"):
        require(find_spec(package), f"{package} is not installed")


def session(model: bytes, *, optimize: bool, threads: int = 1, save: str = "") -> Any:
    """An inference session; `save` names a file for the optimized graph, before kernels choose layouts."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    if save:
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = save
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, program: Program, inputs: Sequence[Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    """(what ran, output name → array), with all optimizations and with none."""
    names = list(dict.fromkeys(program.outputs))
    feed = dict(zip(program.inputs, inputs, strict=True))
    for optimize in (True, False):
        found = session(model, optimize=optimize).run(names, feed)
        yield f"optimize={optimize}", dict(zip(names, found, strict=True))


def assert_equal(model: bytes, program: Program, inputs: Sequence[Array], context: str = "") -> None:
    """Types, shapes and every number of every output are the reference executor's."""
    expected = execute(program, *inputs)
    for how, got in run(model, program, inputs):
        assert got.keys() == expected.keys()
        for name, array in expected.items():
            said = f"{context} {how} {name}"
            assert got[name].dtype == array.dtype, said
            np.testing.assert_array_equal(got[name], array, err_msg=said)
