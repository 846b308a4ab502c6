"""An ONNX model in int8, by ONNX Runtime's own quantizer: uint8 activations, int8 weights."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from onebit.program.tensors import FloatArray

FORMS = ("QOperator", "QDQ")


def static_int8_bytes(model: bytes, calibration: dict[str, FloatArray], *, form: str) -> bytes:
    """`model` with the range of each activation fixed beforehand, from `calibration`.

    form: "QOperator" or "QDQ". The runtime makes the same kernels of both, but not always of the same ops:
    which is faster depends on the network.
    """
    from onnxruntime import quantization as q

    class CalibrationReader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [calibration]

        def get_next(self) -> dict[str, FloatArray] | None:
            return self.left.pop() if self.left else None

    return _quantized(
        model,
        lambda source, target: q.quantize_static(
            source,
            target,
            CalibrationReader(),
            quant_format=getattr(q.QuantFormat, form),
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            per_channel=True,
        ),
    )


def dynamic_int8_bytes(model: bytes) -> bytes:
    """`model` with int8 weights; the range of each activation is found while it runs, and sums stay exact."""
    from onnxruntime import quantization as q

    return _quantized(
        model,
        lambda source, target: q.quantize_dynamic(
            source, target, weight_type=q.QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
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
