"""`onebit bench`: the packed network on this engine, and the same network in float32 and int8 elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.bench.contest import Contender, Timing, contest, fastest
from onebit.export.float_network import FloatNetwork, NotComparable, float_network
from onebit.program import DType, Program
from onebit.program.tensors import FloatArray

ENGINE = "onebit"
PYTORCH = "PyTorch float32"
ONNX_FLOAT = "ONNX Runtime float32"
ONNX_INT8 = "ONNX Runtime int8 static"
ONNX_DYNAMIC = "ONNX Runtime int8 dynamic"
PEERS = ("torch", "onnx")
_SEED = 20160209  # the inputs are random, and the same each time
_IMAGES, _VECTORS = 8, 64  # random samples to calibrate int8 with

Outputs = npt.NDArray[Any]


@dataclass
class BenchReport:
    """Seconds an image of each contender, at one batch size and thread count."""

    batch: int
    threads: int
    results: list[Timing]
    bytes_of: dict[str, int] = field(default_factory=dict)  # model size, where it is known
    disagreeing: dict[str, int] = field(
        default_factory=dict
    )  # samples whose arg max differs from the engine's
    left_out: dict[str, str] = field(default_factory=dict)  # contender → why it did not run
    form_of: dict[str, str] = field(default_factory=dict)  # contender → which of its forms was the fastest

    def seconds_an_image(self, name: str) -> float:
        """Median over the rounds, divided by the batch."""
        return next(r.seconds for r in self.results if r.name == name) / self.batch

    def speedup(self, name: str) -> float:
        """How many times as long as this engine `name` takes."""
        return self.seconds_an_image(name) / self.seconds_an_image(ENGINE)


def bench_program(
    program: Program,
    *,
    batch: int,
    threads: int = 1,
    rounds: int = 7,
    seconds: float = 0.05,
    peers: Collection[str] = PEERS,
) -> BenchReport:
    """Time `program` on this engine and beside its peers ("torch", "onnx"), where they are installed.

    All see the same random inputs, the same batch and the same number of threads, in interleaved rounds.
    """
    from onebit.runtime import Engine  # here, so that facts about the machine need no engine

    inputs = random_inputs(program, batch)
    engine = Engine(program, threads=threads)
    calls: dict[str, Callable[[], object]] = {ENGINE: lambda: engine(*inputs)}
    answers: dict[str, Outputs] = {ENGINE: np.asarray(_first(engine(*inputs)))}
    report = BenchReport(batch, threads, [])
    if peers:
        try:
            network = float_network(program)
        except NotComparable as error:
            report.left_out["float peers"] = str(error)
        else:
            feed = network.feed(inputs)
            if "torch" in peers:
                _add_torch(report, network, feed, calls, answers)
            if "onnx" in peers:
                _add_onnx(report, program, network, feed, calls, answers)
    report.disagreeing = {
        name: _disagreements(answers[ENGINE], answer) for name, answer in answers.items() if name != ENGINE
    }
    contenders = [Contender(name, call) for name, call in calls.items()]
    report.results = contest(contenders, rounds=rounds, seconds_a_round=seconds)
    return report


def random_inputs(program: Program, batch: int) -> list[npt.NDArray[Any]]:
    """Inputs of the right types: random bytes, ±1, or dyadic floats in (−1, 1)."""
    random = np.random.default_rng(_SEED)
    made: list[npt.NDArray[Any]] = []
    for name in program.inputs:
        kind = program.values[name]
        shape = (batch, *kind.shape)
        if kind.dtype is DType.U8:
            made.append(random.integers(0, 256, shape, dtype=np.uint8))
        elif kind.dtype is DType.BITS:
            made.append((random.integers(0, 2, shape, dtype=np.int8) * 2 - 1).astype(np.int8))
        elif kind.dtype is DType.F32:
            made.append((random.integers(-255, 256, shape) / 256).astype(np.float32))
        else:
            made.append(random.integers(-127, 128, shape).astype(kind.storage_dtype))
    return made


def _add_torch(
    report: BenchReport,
    network: FloatNetwork,
    feed: Sequence[FloatArray],
    calls: dict[str, Callable[[], object]],
    answers: dict[str, Outputs],
) -> None:
    try:
        import torch
    except ImportError:
        report.left_out[PYTORCH] = "torch is not installed: pip install 'onebit[train]'"
        return
    from onebit.bench.torch_peer import torch_peers

    torch.set_num_threads(report.threads)
    made = {form: partial(peer, *feed) for form, peer in torch_peers(network).items()}
    report.form_of[PYTORCH], calls[PYTORCH] = fastest(made)
    answers[PYTORCH] = np.asarray(calls[PYTORCH]())


def _add_onnx(
    report: BenchReport,
    program: Program,
    network: FloatNetwork,
    feed: Sequence[FloatArray],
    calls: dict[str, Callable[[], object]],
    answers: dict[str, Outputs],
) -> None:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        report.left_out["ONNX Runtime"] = f"{error.name} is not installed: pip install 'onebit[bench]'"
        return
    del onnx, onnxruntime
    from onebit.bench.onnx_int8 import FORMS, dynamic_int8_bytes, static_int8_bytes
    from onebit.bench.onnx_session import session
    from onebit.export.onnx.float32 import onnx_bytes

    model = onnx_bytes(network)
    images = any(op.kind == "conv" for op in network.ops)
    samples = random_inputs(program, _IMAGES if images else _VECTORS)
    calibration = dict(zip(network.inputs, network.feed(samples), strict=True))
    forms: dict[str, dict[str, Callable[[], bytes]]] = {
        ONNX_FLOAT: {"": lambda: model},
        ONNX_INT8: {form: partial(static_int8_bytes, model, calibration, form=form) for form in FORMS},
    }
    if not images:  # of a convolution the dynamic form is slower than float32
        forms[ONNX_DYNAMIC] = {"": partial(dynamic_int8_bytes, model)}
    named = dict(zip(network.inputs, feed, strict=True))
    for name, makers in forms.items():
        models: dict[str, bytes] = {}
        for form, make in makers.items():
            try:
                models[form] = make()
            except Exception as error:  # the quantizer's failures have no common type; they are shown
                report.left_out[f"{name} {form}".strip()] = f"its quantizer failed: {error}"
        if models:
            sessions = {
                form: partial(session(made, network.outputs[0], threads=report.threads), named)
                for form, made in models.items()
            }
            report.form_of[name], calls[name] = fastest(sessions)
            answers[name] = np.asarray(calls[name]())
            report.bytes_of[name] = len(models[report.form_of[name]])


def _first(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _disagreements(ours: Outputs, theirs: Outputs) -> int:
    if ours.ndim < 2:
        return int(np.count_nonzero(ours != theirs))
    flat = (ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1))
    return int(np.count_nonzero(flat[0].argmax(axis=1) != flat[1].argmax(axis=1)))
