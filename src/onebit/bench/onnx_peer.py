"""The float network in ONNX Runtime: float32, and int8 by its own static and dynamic quantization."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.bench.float_network import FloatOp, Floats, NotComparable

_OPSET = 17
_IR_VERSION = 8


def onnx_bytes(
    ops: list[FloatOp], inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
) -> bytes:
    """The float network as an ONNX model. `inputs` and `outputs` give the shape of one sample."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, array: npt.NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    for op in ops:
        for kind, names, output, attrs in _onnx_nodes(op, constant):
            nodes.append(helper.make_node(kind, names, [output], **attrs))

    def infos(values: dict[str, tuple[int, ...]]) -> list[Any]:
        make = helper.make_tensor_value_info
        return [make(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in values.items()]

    graph = helper.make_graph(nodes, "float32 peer", infos(inputs), infos(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def scalar(value: float) -> npt.NDArray[Any]:
    """A float32 number as ONNX stores it."""
    return np.array(value, np.float32)


Nodes = Iterator[tuple[str, list[str], str, dict[str, Any]]]


def _onnx_nodes(op: FloatOp, constant: Callable[[str, npt.NDArray[Any]], str]) -> Nodes:
    """(ONNX op, inputs, output, attributes) of each ONNX node that `op` becomes."""
    out, first = op.output, op.inputs[0]
    own = {name: constant(f"{out}/{name}", array) for name, array in op.arrays.items() if name != "weight"}
    if op.kind == "linear":
        weight = constant(f"{out}/weight", op.arrays["weight"].T)
        if "bias" in own:
            yield "MatMul", [first, weight], f"{out}/product", {}
            yield "Add", [f"{out}/product", own["bias"]], out, {}
        else:
            yield "MatMul", [first, weight], out, {}
    elif op.kind in ("affine", "signum") and own:
        target = out if op.kind == "affine" else f"{out}/moved"
        yield "Mul", [first, own["scale"]], f"{out}/scaled", {}
        yield "Add", [f"{out}/scaled", own["shift"]], target, {}
        if op.kind == "signum":
            yield "Sign", [target], out, {}
    elif op.kind == "signum":
        yield "Sign", [first], out, {}
    elif op.kind == "sign":
        zero, one = constant(f"{out}/zero", scalar(0)), constant(f"{out}/one", scalar(1))
        minus = constant(f"{out}/minus", scalar(-1))
        yield "GreaterOrEqual", [first, zero], f"{out}/positive", {}
        yield "Where", [f"{out}/positive", one, minus], out, {}
    elif op.kind == "relu":
        yield "Relu", [first], out, {}
    elif op.kind == "prelu":
        yield "PRelu", [first, own["slope"]], out, {}
    elif op.kind == "hardtanh":
        low = constant(f"{out}/min", scalar(op.attrs["min"]))
        yield "Clip", [first, low, constant(f"{out}/max", scalar(op.attrs["max"]))], out, {}
    elif op.kind == "reshape":
        shape = constant(f"{out}/shape", np.array([0, *op.attrs["shape"]], np.int64))
        yield "Reshape", [first, shape], out, {}
    elif op.kind in ("add", "sub", "mul", "div"):
        pair = [first, own.get("other") or op.inputs[1]]
        yield op.kind.capitalize(), pair[::-1] if op.attrs.get("swapped") else pair, out, {}
    else:
        raise NotComparable(f"op {op.kind!r} has no ONNX form here")


def static_int8_bytes(model: bytes, calibration: dict[str, Floats]) -> bytes:
    """`model` with int8 weights and uint8 activations, whose ranges are fixed beforehand from `calibration`.

    In the QOperator form; the QDQ form of the same network takes the same time, since the runtime fuses it.
    """
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [calibration]

        def get_next(self) -> dict[str, Floats] | None:
            return self.left.pop() if self.left else None

    return _quantized(
        model,
        lambda source, target: q.quantize_static(
            source,
            target,
            Reader(),
            quant_format=q.QuantFormat.QOperator,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
        ),
    )


def dynamic_int8_bytes(model: bytes) -> bytes:
    """`model` with int8 weights; the range of each activation is found while it runs, and sums stay exact."""
    from onnxruntime import quantization as q

    return _quantized(
        model,
        lambda source, target: q.quantize_dynamic(
            source, target, weight_type=q.QuantType.QInt8, op_types_to_quantize=["MatMul"]
        ),
    )


def _quantized(model: bytes, quantize: Callable[[str, str], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantize(str(source), str(target))
        return target.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the quantizer's advice to pre-process: shapes are already known here."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


def session(model: bytes, output: str, *, threads: int) -> Callable[[dict[str, Floats]], npt.NDArray[Any]]:
    """A function from a feed to the array `output`, on the CPU with this many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(feed: dict[str, Floats]) -> npt.NDArray[Any]:
        result: npt.NDArray[Any] = made.run([output], feed)[0]
        return result

    return run
