"""One convolution in ONNX Runtime, float32 or int8: what binary_conv.py and f32_conv.py compare with.

A call from Python, and the change of layout at both ends of a graph, are no part of a convolution. Where
input and output have one shape, the time is the difference between a chain of five and one, divided by four.
Elsewhere the time of an empty graph is taken off, and the better of the two layouts that ONNX Runtime has
(blocked and plain) counts. Like the C benchmarks it reads the clock of its own thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CHAIN = 5
SECONDS = 0.1  # a sample
_LEVELS = onnxruntime.GraphOptimizationLevel


@dataclass(frozen=True)
class Shape:
    """A convolution of one square image."""

    size: int
    channels: int
    n: int
    kernel: int
    stride: int
    pad: int
    groups: int = 1

    @property
    def out(self) -> int:
        """Rows, and columns, of the output."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Taps outside the image counted."""
        return self.kernel**2 * (self.channels // self.groups) * self.out**2 * self.n

    @property
    def chains(self) -> bool:
        """The output can be the next one's input."""
        return self.channels == self.n and self.out == self.size


def seconds(shape: Shape, *, int8: bool) -> float:
    """Seconds of one convolution on one thread, as the docstring above says."""
    if shape.chains:
        chain, one = (_time(_session(shape, int8, copies)) for copies in (CHAIN, 1))
        return (chain - one) / (CHAIN - 1)
    empty = _time(_empty())
    return min(_time(_session(shape, int8, 1, blocked)) for blocked in (True, False)) - empty


def _time(call: Callable[[], object]) -> float:
    call()
    start = time.thread_time()
    call()
    repeats = max(1, int(SECONDS / 3 / (time.thread_time() - start + 1e-7)))
    samples = []
    for _ in range(3):
        start = time.thread_time()
        for _ in range(repeats):
            call()
        samples.append((time.thread_time() - start) / repeats)
    return median(samples)


def _run(graph: Any, x: np.ndarray, *, blocked: bool = True) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = _LEVELS.ORT_ENABLE_ALL if blocked else _LEVELS.ORT_ENABLE_EXTENDED
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": x})


@cache
def _empty() -> Callable[[], object]:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "empty", info[:1], info[1:])
    return _run(graph, np.ones(1, np.float32))


@cache
def _session(shape: Shape, int8: bool, copies: int, blocked: bool = True) -> Callable[[], object]:
    random = np.random.default_rng(1)
    weights = (shape.n, shape.channels // shape.groups, shape.kernel, shape.kernel)
    if int8:
        constants: dict[str, np.ndarray] = {
            "w": random.integers(-127, 128, weights, dtype=np.int8),
            "small": np.float32(0.01),
            "middle": np.uint8(128),
            "zero": np.int8(0),
        }
        kind, operands = "QLinearConv", ("small", "middle", "w", "small", "zero", "small", "middle")
        x = random.integers(0, 256, (1, shape.channels, shape.size, shape.size), dtype=np.uint8)
        dtype = TensorProto.UINT8
    else:
        constants = {"w": (random.standard_normal(weights) / np.prod(weights[1:])).astype(np.float32)}
        kind, operands = "Conv", ("w",)
        x = random.standard_normal((1, shape.channels, shape.size, shape.size)).astype(np.float32)
        dtype = TensorProto.FLOAT
    names = ["x", *(f"y{i}" for i in range(copies))]
    attrs = {
        "kernel_shape": [shape.kernel] * 2,
        "strides": [shape.stride] * 2,
        "pads": [shape.pad] * 4,
        "group": shape.groups,
    }
    nodes = [helper.make_node(kind, [names[i], *operands], [names[i + 1]], **attrs) for i in range(copies)]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", dtype, list(x.shape))],
        [helper.make_tensor_value_info(names[-1], dtype, [1, shape.n, shape.out, shape.out])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return _run(graph, x, blocked=blocked)
