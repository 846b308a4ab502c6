"""Parts of the GPU engine that need no kernel: graphs by batch size, order of streams, constants."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from onebit.program import Constant, DType, Node, Program, TensorType
from onebit.runtime.abi import Binary, EpilogueKind
from onebit.runtime.cuda.engine import graph_replay
from onebit.runtime.cuda.engine.graph_replay import MAX_GRAPHS, MAX_SAMPLES, GraphReplay
from onebit.runtime.cuda.engine.stream_order import StreamOrder
from onebit.runtime.cuda.kernels.elementwise import SOURCES, OperandMode, binary_code, step_of
from onebit.runtime.cuda.kernels.epilogue import RESIDUAL
from onebit.runtime.cuda.kernels.float_products import FloatConv, FloatGemm, full_precision
from onebit.runtime.cuda.kernels.layout_ops import is_alias
from onebit.runtime.cuda.kernels.pack import TYPES
from support import ROOT

GPU = SimpleNamespace(torch_device=torch.device("cuda"))
CPU = SimpleNamespace(torch_device=torch.device("cpu"))


class FakeGraph:
    """What a graph was captured for, and how often it was replayed."""

    made: list[int] = []  # noqa: RUF012

    def __init__(self, inputs: Any, *_: Any) -> None:
        FakeGraph.made.append(len(inputs[0]))

    def replay(self, *_: Any) -> None:
        pass


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    FakeGraph.made = []
    monkeypatch.setattr(graph_replay, "_CapturedGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return FakeGraph.made


def _run(replay: GraphReplay, batch: int) -> bool:
    """Run a batch as an engine does; whether it was replayed."""
    if not replay.wants(batch):
        return False
    x = [torch.zeros(batch)]
    replay.run(batch, x, x, torch.zeros(1), lambda *_: None, lambda: None)
    return True


def test_a_batch_size_is_replayed_from_its_second_run_on(graphs: list[int]) -> None:
    replay = GraphReplay(GPU)
    assert [_run(replay, batch) for batch in (1, 1, 2, 1, 2, 2)] == [
        False,
        True,
        False,
        True,
        True,
        True,
    ]
    assert graphs == [1, 2]


def test_large_batches_and_the_cpu_are_never_replayed(graphs: list[int]) -> None:
    assert not any(_run(GraphReplay(GPU), MAX_SAMPLES + 1) for _ in range(3))
    replay = GraphReplay(CPU)
    assert not any(_run(replay, 1) for _ in range(3))
    assert graphs == []


def test_the_graph_used_least_recently_is_dropped(graphs: list[int]) -> None:
    replay = GraphReplay(GPU)
    sizes = range(1, MAX_GRAPHS + 2)
    for batch in sizes:
        _run(replay, batch)
        _run(replay, batch)
    assert graphs == list(sizes)
    _run(replay, 2)
    assert graphs == list(sizes), "2 was still there"
    _run(replay, 1)
    assert graphs == [*sizes, 1]


def test_within_the_users_capture_nothing_is_replayed(
    graphs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = GraphReplay(GPU)
    _run(replay, 1)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert replay.capturing()
    assert not _run(replay, 1)


class FakeStream:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self._log = name, log

    def wait_event(self, event: Any) -> None:
        self._log.append(f"{self.name} waits for {event.stream}")


class FakeEvent:
    stream = ""
    waited_for = ""

    def record(self, stream: FakeStream) -> None:
        self.stream = stream.name

    def synchronize(self) -> None:
        FakeEvent.waited_for = self.stream


def test_a_run_on_another_stream_waits_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    first, second = FakeStream("first", log), FakeStream("second", log)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    order = StreamOrder(GPU)
    for stream in (first, first, second, second, first):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _, now=stream: now)
        with order.enter(None):
            pass
    assert log == ["second waits for first", "first waits for second"]
    order.finish()
    assert FakeEvent.waited_for == "first"


def test_a_run_that_fails_is_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has launched before works in the same memory."""
    log: list[str] = []
    first, second = FakeStream("first", log), FakeStream("second", log)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    order = StreamOrder(GPU)
    order.finish()  # nothing has run
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: first)
    with pytest.raises(ZeroDivisionError), order.enter(None):
        raise ZeroDivisionError
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: second)
    with order.enter(None):
        pass
    assert log == ["second waits for first"]


@contextmanager
def _precision(matmul: str, conv: str) -> Iterator[Any]:
    backends: Any = torch.backends
    before = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = matmul, conv
    try:
        yield backends
    finally:
        backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = before


def test_float_products_ask_for_full_precision_and_put_settings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def spied(function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            backends: Any = torch.backends
            seen.append((backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision))
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(torch, "mm", spied(torch.mm))
    monkeypatch.setattr(torch.nn.functional, "conv2d", spied(torch.nn.functional.conv2d))
    w = Constant(TensorType(DType.F32, (2, 1, 1, 3)), np.ones((2, 1, 1, 3), np.float32))
    w2 = Constant(TensorType(DType.F32, (2, 3)), np.ones((2, 3), np.float32))
    program = Program((), (), (), {"w": w, "w2": w2}, {})
    attrs = {"stride": (1, 1), "padding": (0, 0, 1, 0), "dilation": (1, 1), "groups": 1}
    with _precision("tf32", "tf32") as backends:
        FloatGemm(CPU, program, Node("f32_gemm", ("x", "w2"), "y"))([torch.ones(4, 3)], [torch.empty(4, 2)])
        out = torch.empty(1, 2, 3, 2)
        FloatConv(CPU, program, Node("f32_conv2d", ("x", "w"), "y", attrs))([torch.ones(1, 2, 2, 3)], [out])
        assert seen == [("ieee", "ieee")] * 2
        assert (backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision) == ("tf32", "tf32")
        with pytest.raises(ZeroDivisionError), full_precision():
            raise ZeroDivisionError
        assert backends.cuda.matmul.fp32_precision == "tf32"
    assert out[0, :, 0].eq(0).all()
    assert out[0, :, 1:].eq(3).all()


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        ((), OperandMode.NUMBER),
        ((1, 1), OperandMode.NUMBER),
        ((5,), OperandMode.CHANNEL),
        ((1, 1, 5), OperandMode.CHANNEL),
        ((3, 1), OperandMode.SAMPLE),
    ],
)
def test_a_constant_is_read_as_its_shape_asks(shape: tuple[int, ...], mode: OperandMode) -> None:
    c = Constant(TensorType(DType.F32, shape), np.zeros(shape, np.float32))
    image = TensorType(DType.F32, (2, 3, 5))
    program = Program(("x",), ("y",), (), {"c": c}, {"x": image, "y": image})
    for names, code in (
        (("x", "c"), binary_code(Binary.SUB)),
        (("c", "x"), binary_code(Binary.SUB, v_first=False)),
    ):
        step = step_of(program, program.values, Node("sub", names, "y"), "x")
        assert step is not None
        assert (step.code, step.mode) == (code, mode)
        assert step.a is not None
        assert step.a.size == {OperandMode.NUMBER: 1, OperandMode.CHANNEL: 5, OperandMode.SAMPLE: 30}[mode]


def _source(file: str) -> str:
    return (ROOT / "csrc" / "cuda" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("enum", "numbers"),
    [
        ("Source", {dtype.name: number for dtype, number in SOURCES.items()}),
        ("Mode", {mode.name: mode.value for mode in OperandMode}),
    ],
)
def test_a_chain_and_its_kernel_number_alike(enum: str, numbers: dict[str, int]) -> None:
    found = re.search(rf"enum {enum} {{(.*?)}}", _source("elementwise/chain.cu"))
    assert found is not None
    assert numbers == {name.strip(): number for number, name in enumerate(found[1].split(","))}


def test_epilogues_have_the_numbers_of_the_kernels() -> None:
    found = dict(re.findall(r"#define EPILOGUE_(\w+) +(\d+)", _source("base/epilogue.cuh")))
    expected = {**{kind.name: kind.value for kind in EpilogueKind}, "SUM": RESIDUAL}
    assert {name: int(number) for name, number in found.items()} == expected


def test_dtypes_have_the_numbers_of_the_packing_kernel() -> None:
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8"}
    found = dict(re.findall(r"#define TYPE_(\w+) +(\d+)", _source("pack/pack.cu")))
    assert found == {names.get(dtype, "BOOL"): str(number) for dtype, number in TYPES.items()}


@pytest.mark.parametrize(
    ("dtype", "x", "out", "alias"),
    [
        (DType.F32, (2, 3), (6,), True),
        (DType.BITS, (2, 3), (6,), False),
        (DType.BITS, (2, 3, 31), (6, 31), True),
        (DType.BITS, (2, 2, 128), (512,), True),
        (DType.BITS, (2, 2, 64), (256,), False),
        (DType.BITS, (256,), (2, 128), True),
    ],
)
def test_a_reshape_is_a_view_where_no_padding_moves(
    dtype: DType, x: tuple[int, ...], out: tuple[int, ...], alias: bool
) -> None:
    assert is_alias(TensorType(dtype, x), TensorType(dtype, out)) is alias
