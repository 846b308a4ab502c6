"""Zeros of either sign, subnormals, infinities and a NaN that arises inside, on the engine of every
instruction set and of a GPU: equal to the reference, bit for bit but for what a NaN carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from cuda_emulation.compile import compiler
from cuda_emulation.device import EmulatedDevice
from onebit.program import OPS, Constant, Node, Program, TensorType, execute, verify
from onebit.program.ops import AttrKind, Role
from onebit.runtime import Engine, available_isas
from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
from program_samples import bits, bits_constant, constant, f32, i32, signs
from support import require

SUBNORMAL = np.float32(2.0**-149)
NORMAL = np.float32(2.0**-126)  # the smallest
LARGEST = np.finfo(np.float32).max
FINITE = np.array(
    [0.0, -0.0, SUBNORMAL, -SUBNORMAL, NORMAL - SUBNORMAL, NORMAL, -NORMAL, 0.3, 1, -1, LARGEST, -LARGEST],
    np.float32,
)
INF, NAN = np.float32(np.inf), np.float32(np.nan)
VALUES = np.array([*FINITE, INF, -INF, NAN], np.float32)
NOTHING = np.float32(-0.0)  # added to a number it leaves every bit of it
TAKE_INTEGERS = {"threshold", "to_float", "scale_pixels"}
OF_FLOATS = sorted(name for name, op in OPS.items() if op.is_elementwise and name not in TAKE_INTEGERS)


Make = Callable[[Program], Engine]


@pytest.fixture(params=[*available_isas(), "an emulated GPU"])
def make(request: pytest.FixtureRequest) -> Make:
    """What makes an engine of a Program, for each kind of engine."""
    if request.param in available_isas():
        return partial(Engine, isa=request.param, threads=2)
    require(compiler(), "g++, which compiles kernels for the emulator")
    return partial(CudaEngine, device=EmulatedDevice())


def addends(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two inputs whose sum are these values; a NaN, which no input may hold, is ∞ − ∞."""
    nan = np.isnan(values)
    return np.where(nan, INF, values), np.where(nan, -INF, NOTHING)


def check(make: Make, program: Program, *inputs: np.ndarray) -> None:
    """All outputs, on their own and together, are the reference's."""
    verify(program)
    for outputs in {program.outputs, *((name,) for name in program.outputs)}:
        version = program.with_outputs(*outputs)
        expected = execute(version, *inputs)
        with make(version) as engine:
            found = engine(*inputs)
        for name, y in zip(outputs, found if isinstance(found, tuple) else (found,), strict=True):
            assert_same(y, expected[name], f"{[node.op for node in program.nodes]}: {name}")


def assert_same(found: np.ndarray, wanted: np.ndarray, context: str) -> None:
    """The same bits, and a NaN where a NaN is."""
    assert found.dtype == wanted.dtype, context
    same = found == wanted
    if found.dtype == np.float32:
        same = found.view(np.uint32) == wanted.view(np.uint32)
        same |= np.isnan(found) & np.isnan(wanted)
    wrong = np.argwhere(~same)
    assert not len(wrong), (
        f"{context}: {found[tuple(wrong[0])]!r} at {wrong[0]}, expected {wanted[tuple(wrong[0])]!r}"
    )


def calls(name: str, channels: int) -> Iterator[tuple[tuple[str, ...], dict[str, Constant], dict[str, Any]]]:
    """Uses of an op of floats: its inputs (v and w are values), its constants, its attributes."""
    op = OPS[name]
    floats = [key for key, kind in op.attrs.items() if kind is AttrKind.FLOAT]
    assert len(floats) == len(op.attrs), f"{name} has attributes of other kinds: give them values here"
    attrs = dict(zip(floats, (-float(SUBNORMAL), 0.75, 2.0), strict=False))
    a_channel = constant(np.resize(FINITE, channels))
    a_number = constant(FINITE[1:2])
    if [operand.role for operand in op.operands] == [Role.EITHER] * 2:
        a_sample = constant(np.resize(FINITE, (len(VALUES), channels)))
        for c in (a_channel, a_number, a_sample):
            yield ("v", "c"), {"c": c}, attrs
            yield ("c", "v"), {"c": c}, attrs
        for names in (("v", "w"), ("v", "row"), ("row", "v")):
            yield names, {}, attrs
        return
    constants = {operand.name: a_channel for operand in op.operands[1:]}
    assert all(operand.role is Role.CONST for operand in op.operands[1:]), name
    yield ("v", *constants), constants, attrs
    if len(constants) > 1:  # a factor with another summand
        last = constant(np.resize(-FINITE[::-1], channels))
        yield ("v", *constants), {**constants, op.operands[-1].name: last}, attrs


@pytest.mark.parametrize("channels", [len(FINITE), len(FINITE) + 1])  # four channels a thread, and one
@pytest.mark.parametrize("op", OF_FLOATS)
def test_an_elementwise_op(make: Make, op: str, channels: int) -> None:
    """Each value meets each constant, or each other value; then the sign, in the same chain."""
    shape = (len(VALUES), channels)
    rows = np.repeat(VALUES[:, None], channels, 1)[None]
    columns = np.resize(VALUES, shape)[None]
    data = {"v": addends(rows), "w": addends(columns), "row": addends(rows[:, ::-1, :1])}
    for names, constants, attrs in calls(op, channels):
        read = [name for name in ("v", "w", "row") if name in names]
        nodes = [Node("add", (f"{name}0", f"{name}1"), name) for name in read]
        values: dict[str, TensorType] = {
            one: f32(*data[name][0].shape[1:]) for name in read for one in (name, f"{name}0", f"{name}1")
        }
        nodes.append(Node(op, names, "y", attrs))
        outputs: tuple[str, ...] = ("y",)
        values["y"] = bits(*shape) if op == "sign" else f32(*shape)
        if op != "sign":
            nodes.append(Node("sign", ("y",), "s"))
            outputs, values["s"] = ("y", "s"), bits(*shape)
        inputs = tuple(f"{name}{i}" for name in read for i in (0, 1))
        program = Program(inputs, outputs, tuple(nodes), constants, values)
        check(make, program, *(x for name in read for x in data[name]))


RIGHT: dict[str, tuple[dict[str, float], dict[float, float]]] = {
    "abs": ({}, {-0.0: 0.0, -np.inf: np.inf, -float(SUBNORMAL): float(SUBNORMAL), np.nan: np.nan}),
    "relu": ({}, {-0.0: -0.0, -float(SUBNORMAL): 0.0, np.inf: np.inf, -np.inf: 0.0, np.nan: np.nan}),
    "hardtanh": (
        {"min": -1.0, "max": 1.0},
        {-0.0: -0.0, np.inf: 1.0, -np.inf: -1.0, float(SUBNORMAL): float(SUBNORMAL), np.nan: np.nan},
    ),
    "sign": ({}, {-0.0: 1, -float(SUBNORMAL): -1, np.inf: 1, -np.inf: -1, np.nan: -1}),
}


@pytest.mark.parametrize("op", RIGHT)
def test_known_values(make: Make, op: str) -> None:
    """Written down, so that engine and reference cannot be wrong alike."""
    attrs, table = RIGHT[op]
    x = np.array([list(table)] * 2, np.float32)
    out = bits(len(table)) if op == "sign" else f32(len(table))
    wanted = np.array([list(table.values())] * 2, np.int8 if op == "sign" else np.float32)
    values = {"a": f32(len(table)), "b": f32(len(table)), "v": f32(len(table)), "y": out}
    nodes = (Node("add", ("a", "b"), "v"), Node(op, ("v",), "y", attrs))
    with make(Program(("a", "b"), ("y",), nodes, {}, values)) as engine:
        assert_same(engine(*addends(x)), wanted, op)


def test_sums_of_integers_scaled_to_subnormals_and_beyond_the_largest(make: Make) -> None:
    """The epilogue of a product: one fma, which neither flushes nor stops at the largest number."""
    rng = np.random.default_rng(0)
    n = len(FINITE)
    for bias in (np.full(n, NOTHING), FINITE, FINITE[::-1].copy()):
        constants = {"w": bits_constant(signs(rng, n, 9)), "s": constant(FINITE), "t": constant(bias)}
        nodes = (
            Node("binary_gemm", ("x", "w"), "a"),
            Node("to_float", ("a",), "f"),
            Node("affine", ("f", "s", "t"), "y"),
            Node("sign", ("y",), "b"),
        )
        values = {"x": bits(9), "a": i32(n), "f": f32(n), "y": f32(n), "b": bits(n)}
        check(make, Program(("x",), ("y", "b"), nodes, constants, values), signs(rng, 5, 9))


def test_a_residual_that_is_special(make: Make) -> None:
    """A binary convolution, the sum with such a value and its sign, in one kernel."""
    rng = np.random.default_rng(1)
    shape = (3, len(VALUES), 6)
    window = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, "padding_value": 0}
    constants = {
        "w": bits_constant(signs(rng, 6, 3, 3, 6)),
        "s": constant(FINITE[:6]),
        "t": constant(FINITE[6:]),
    }
    nodes = (
        Node("add", ("v0", "v1"), "v"),
        Node("binary_conv2d", ("x", "w"), "a", window),
        Node("to_float", ("a",), "f"),
        Node("affine", ("f", "s", "t"), "g"),
        Node("add", ("g", "v"), "y"),
        Node("sign", ("y",), "b"),
    )
    values = {name: f32(*shape) for name in ("v0", "v1", "v", "f", "g", "y")}
    values |= {"x": bits(*shape), "a": i32(*shape), "b": bits(*shape)}
    program = Program(("v0", "v1", "x"), ("y", "b"), nodes, constants, values)
    v = np.broadcast_to(VALUES[None, None, :, None], (2, *shape))
    check(make, program, *addends(v), signs(rng, 2, *shape))
    with make(program) as engine:
        fused = any(op.op == "binary_conv2d+to_float+affine+add+sign" for op in engine.ops)
        assert fused == isinstance(engine, CudaEngine)


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d", "channel_mean"])
def test_a_reduction(make: Make, op: str) -> None:
    """Of two neighbours, whose sum float32 and float64 round to one number. Zeros may have either sign."""
    pairs = np.array([(a, b) for a in VALUES for b in VALUES if max(abs(a), abs(b)) != LARGEST], np.float32)
    x = pairs.reshape(1, -1, 2, 1) if op != "channel_mean" else pairs[None]
    attrs: dict[str, Any] = {}
    if op != "channel_mean":
        attrs = {"kernel": (1, 2), "stride": (1, 2), "padding": (0, 0, 0, 0)}
        attrs["dilation" if op == "max_pool2d" else "count_include_pad"] = (1, 1) if op == "max_pool2d" else 0
    into, out = f32(*x.shape[1:]), f32(len(pairs), 1, 1) if attrs else f32(len(pairs), 1)
    nodes = (Node("add", ("v0", "v1"), "v"), Node(op, ("v",), "y", attrs))
    program = Program(("v0", "v1"), ("y",), nodes, {}, {"v0": into, "v1": into, "v": into, "y": out})
    verify(program)
    expected = execute(program, *addends(x))["y"]
    with make(program) as engine:
        found = engine(*addends(x))
    zeros = (found == 0) & (expected == 0)
    assert_same(np.where(zeros, 0, found), np.where(zeros, 0, expected), op)
