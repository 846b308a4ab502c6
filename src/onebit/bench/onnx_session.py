"""A session of ONNX Runtime on the CPU, as a function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from onebit.program.tensors import FloatArray


def session(
    model: bytes, output: str, *, threads: int
) -> Callable[[dict[str, FloatArray]], npt.NDArray[np.float32]]:
    """A function from a feed to the array `output`, on the CPU with this many threads, fully optimized."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(feed: dict[str, FloatArray]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = made.run([output], feed)[0]
        return result

    return run
