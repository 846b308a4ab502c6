"""Images in the engine: what convolutions and pools take from what follows, their kernels, their memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onebit.program import Constant, Node, Program, TensorType, execute, verify
from onebit.program.fusion import fuse
from onebit.runtime import Engine, EngineError
from program_samples import bits, bits_constant, constant, f32, i32, one_op, signs, u8
from support import ROOT, kernel_for, require, run_python

C, N = 33, 65
GEOMETRY = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}
POOL = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 1, 0, 0), "dilation": (1, 1)}
ROW = (np.arange(N) / 7 - 2).astype(np.float32)
AFFINE = {"scale": constant(ROW), "shift": constant(ROW[::-1].copy())}


def _thresholds(flip: Any) -> dict[str, Constant]:
    return {"t": constant(np.arange(N, dtype=np.int32) * 2 - 60), "f": bits_constant(flip)}


MIXED = _thresholds(np.where(np.arange(N) % 3, 1, -1))
NEVER = _thresholds(-np.ones(N))


def _program(nodes: list[Node], constants: dict[str, Constant], *outputs: str) -> Program:
    """A program over one image of 5 × 6 pixels; the values' types follow from the ops."""
    source = {"u8_conv2d": u8, "f32_conv2d": f32, "f32_binary_conv2d": f32}.get(nodes[0].op, bits)
    values: dict[str, TensorType] = {"x": source(5, 6, C)}
    for node in nodes:
        shape = values[node.inputs[0]].shape[:-1]
        if node.op == "max_pool2d":
            shape = (3, 3)
        make = {"threshold": bits, "to_float": f32, "affine": f32, "add": f32}.get(node.op)
        if make is None:
            make = f32 if node.op.startswith("f32") else i32
        values[node.output] = make(*shape, N)
    program = Program(("x",), outputs or (nodes[-1].output,), tuple(nodes), constants, values)
    verify(program)
    return program


def _conv(op: str, padding_value: int = 0) -> tuple[Node, dict[str, Constant]]:
    rng = np.random.default_rng(3)
    attrs: dict[str, Any] = {**GEOMETRY, "groups": 1}
    if op == "binary_conv2d":
        attrs["padding_value"] = padding_value
    if op == "u8_conv2d":
        attrs |= {"multiplier": 2, "offset": -255}
    weights = bits_constant(signs(rng, N, 3, 3, C))
    if op == "f32_conv2d":
        weights = constant((rng.integers(-8, 9, (N, 3, 3, C)) / 8).astype(np.float32))
    return Node(op, ("x", "w"), "v", attrs, layer="conv"), {"w": weights}


def _feed(program: Program) -> Any:
    rng, type_ = np.random.default_rng(4), program.values["x"]
    if type_.dtype == "u8":
        return rng.integers(0, 256, (3, *type_.shape), dtype=np.uint8)
    if type_.dtype == "f32":
        return (rng.integers(-32, 33, (3, *type_.shape)) / 16).astype(np.float32)
    return signs(rng, 3, *type_.shape)


def _check(program: Program, steps: list[str], isa: str) -> None:
    assert [step.op for step in fuse(program)] == steps
    x = _feed(program)
    expected = execute(program, x)
    with Engine(program, isa=isa, threads=2) as engine:
        results = engine(x)
    results = results if isinstance(results, tuple) else (results,)
    for name, found in zip(program.outputs, results, strict=True):
        assert np.array_equal(found, expected[name]), name


@pytest.mark.parametrize("op", ["binary_conv2d", "u8_conv2d"])
def test_integer_convolution_takes_what_is_exact(op: str, isa: str) -> None:
    conv, weights = _conv(op)
    threshold = Node("threshold", ("v", "t", "f"), "y")
    to_float, affine = Node("to_float", ("v",), "r"), Node("affine", ("r", "scale", "shift"), "y")
    _check(_program([conv], weights), [op], isa)
    _check(_program([conv, threshold], {**weights, **MIXED}), [f"{op}+threshold"], isa)
    _check(_program([conv, to_float, affine], {**weights, **AFFINE}), [f"{op}+to_float+affine"], isa)
    seen = _program([conv, threshold], {**weights, **MIXED}, "y", "v")
    _check(seen, [op, "threshold"], isa)


@pytest.mark.parametrize("op", ["f32_conv2d", "f32_binary_conv2d"])
def test_float_convolution_takes_one_step(op: str, isa: str) -> None:
    conv, weights = _conv(op)
    affine = Node("affine", ("v", "scale", "shift"), "y")
    add = Node("add", ("y", "scale"), "z")
    _check(_program([conv, affine, add], {**weights, **AFFINE}), [f"{op}+affine", "add"], isa)


@pytest.mark.parametrize("op", ["binary_conv2d", "u8_conv2d"])
def test_a_pool_before_a_threshold_becomes_one_of_bits(op: str, isa: str) -> None:
    conv, weights = _conv(op)
    pool = Node("max_pool2d", ("v",), "p", POOL, layer="pool")
    threshold = Node("threshold", ("p", "t", "f"), "y")
    for flips in (MIXED, NEVER):
        program = _program([conv, pool, threshold], {**weights, **flips})
        _check(program, [f"{op}+threshold", "max_pool2d"], isa)
        first, second = fuse(program)
        assert first.flip is not None
        assert not first.flip.any()
        assert (second.flip is None) == (flips is NEVER)
        with Engine(program, isa=isa) as engine:
            assert [op.layer for op in engine.profile(_feed(program), repeats=1)] == ["conv", "pool"]


def test_a_pool_that_someone_else_reads_stays_where_it_is(isa: str) -> None:
    conv, weights = _conv("binary_conv2d")
    pool = Node("max_pool2d", ("v",), "p", POOL)
    threshold = Node("threshold", ("p", "t", "f"), "y")
    nodes, constants = [conv, pool, threshold], {**weights, **MIXED}
    _check(_program(nodes, constants, "y", "p"), ["binary_conv2d", "max_pool2d", "threshold"], isa)
    _check(_program(nodes, constants, "y", "v"), ["binary_conv2d", "max_pool2d", "threshold"], isa)
    other = Node("to_float", ("p",), "r")
    steps = ["binary_conv2d", "max_pool2d", "threshold", "to_float"]
    _check(_program([*nodes, other], constants, "y", "r"), steps, isa)


@pytest.mark.parametrize("op", ["binary_conv2d", "u8_conv2d", "f32_conv2d", "f32_binary_conv2d"])
def test_each_convolution_runs_a_kernel_of_the_isa(op: str, isa: str) -> None:
    conv, weights = _conv(op)
    with Engine(_program([conv], weights), isa=isa) as engine:
        family, _, tier = engine.variants[op].partition("/")
        (profile,) = engine.profile(_feed(_program([conv], weights)), repeats=1)
    assert f"{family}2d" == op
    assert tier == kernel_for(family, isa)
    assert profile.macs == 3 * 5 * 6 * 9 * C * N


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_ops_that_take_turns_on_blocks_of_rows(threads: int, isa: str) -> None:
    """Elementwise ops between two convolutions, over more rows than a block has. `r` and `s` are read late:
    nobody may write over them before."""
    conv, weights = _conv("binary_conv2d")
    rng = np.random.default_rng(5)
    side, shape = 41, (41, 41, N)
    constants = {**weights, **AFFINE, "w2": bits_constant(signs(rng, 3, 1, 1, N)), "half": constant(ROW[:1])}
    nodes = [
        conv,
        Node("to_float", ("v",), "r"),
        Node("relu", ("r",), "a"),
        Node("affine", ("a", "scale", "shift"), "b"),
        Node("abs", ("r",), "c"),
        Node("channel_mean", ("c",), "k"),
        Node("mul", ("k", "b"), "d"),
        Node("add", ("d", "r"), "s"),
        Node("sign", ("s",), "t"),
        Node("mul", ("s", "half"), "e"),
        Node("concat", ("e", "d"), "both"),
        Node(
            "binary_conv2d",
            ("t", "w2"),
            "y",
            {**GEOMETRY, "padding": (0, 0, 0, 0), "groups": 1, "padding_value": 0},
        ),
    ]
    values = {"x": bits(side, side, C), "v": i32(*shape), "k": f32(side, side, 1), "t": bits(*shape)}
    values |= {name: f32(*shape) for name in "rabcdse"} | {
        "both": f32(side, side, 2 * N),
        "y": i32(side, side, 3),
    }
    program = Program(("x",), ("y", "both"), tuple(nodes), constants, values)
    verify(program)
    x = signs(rng, 2, side, side, C)
    expected = execute(program, x)
    with Engine(program, isa=isa, threads=threads) as engine:
        y, both = engine(x)
        engine.profile(x, repeats=1)  # times each op alone: the same memory must do
        again = engine(x)
    assert np.array_equal(y, expected["y"])
    assert np.array_equal(both, expected["both"])
    assert np.array_equal(again[1], both)


def test_more_parts_than_one_call_takes(isa: str) -> None:
    for make, width in ((bits, 5), (f32, 3), (u8, 1)):
        x = make(2, 3, width)
        parts = ("x",) * 20
        program = Program(
            ("x",), ("y",), (Node("concat", parts, "y"),), {}, {"x": x, "y": make(2, 3, 20 * width)}
        )
        verify(program)
        array = signs(np.random.default_rng(0), 2, 2, 3, width)
        array = array if make is bits else array.astype(x.storage_dtype)
        with Engine(program, isa=isa) as engine:
            assert np.array_equal(engine(array), np.concatenate([array] * 20, axis=-1))


def test_a_permute_that_moves_nothing_costs_nothing() -> None:
    program = one_op("permute", {"x": u8(1, 5, 6)}, {}, u8(5, 6, 1), axes=(1, 2, 0))
    x = np.arange(60, dtype=np.uint8).reshape(2, 1, 5, 6)
    with Engine(program) as engine:
        assert np.array_equal(engine(x), x.reshape(2, 5, 6, 1))
        assert engine.variants == {}


def test_padding_larger_than_memory_is_refused_at_once() -> None:
    """2^31 output rows: the sizes say so before anything is packed or counted."""
    attrs = {**GEOMETRY, "padding": (2**30, 2**30 - 9, 0, 0), "groups": 1, "padding_value": 0}
    rows = 2**31 - 7
    weights = {"w": bits_constant(np.ones((1, 1, 1, 1)))}
    program = one_op("binary_conv2d", {"x": bits(2, 1, 1)}, weights, i32(rows, 1, 1), **attrs)
    verify(program)
    with pytest.raises(EngineError, match=r"binary_conv2d \(layer 'layer'\): .*max_memory"):
        Engine(program)


_GROWTH = """
import ctypes, gc, os, numpy as np
from pathlib import Path
from onebit.runtime import Engine
from program_samples import bits, bits_constant, constant, f32, i32, signs
from onebit.program import Node, Program
def resident():
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)  # what Python freed is not to be taken for the engine
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
rng = np.random.default_rng(0)
nodes, constants, values, last = [], {}, {"x": f32(64, 64, 128)}, "x"
geometry = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
for i in range(60):
    constants[f"w{i}"] = bits_constant(signs(rng, 128, 3, 3, 128))
    values |= {f"b{i}": bits(64, 64, 128), f"s{i}": i32(64, 64, 128), f"f{i}": f32(64, 64, 128)}
    values[f"y{i}"] = f32(64, 64, 128)
    nodes.append(Node("sign", (last,), f"b{i}"))
    nodes.append(Node("binary_conv2d", (f"b{i}", f"w{i}"), f"s{i}", {**geometry, "padding_value": 0}))
    nodes.append(Node("to_float", (f"s{i}",), f"f{i}"))
    nodes.append(Node("add", (f"f{i}", last), f"y{i}"))
    last = f"y{i}"
constants["big"] = constant(rng.normal(size=(256, 3, 3, 1024)).astype(np.float32))
values |= {"r": f32(32, 16, 1024), "z": f32(32, 16, 256)}
nodes.append(Node("reshape", (last,), "r", {"shape": (32, 16, 1024)}))
nodes.append(Node("f32_conv2d", ("r", "big"), "z", geometry))
program = Program(("x",), ("z",), tuple(nodes), constants, values)
small = Program(("x",), ("b0",), tuple(nodes[:1]), {}, {"x": values["x"], "b0": values["b0"]})
x = rng.normal(size=(1, 64, 64, 128)).astype(np.float32)
with Engine(small) as warm:
    warm(x)
before = resident()
engine = Engine(program)
out = engine(x)
print(resident() - before - out.nbytes, engine.memory.total, engine.memory.arena, engine.memory.weights)
"""


def test_an_engine_owns_what_it_counts() -> None:
    """The growth of a process of its own is within 10 % of the engine's count, and this of what it needs."""
    require(Path("/proc/self/statm").exists(), "/proc/self/statm, to see the memory of a process")
    answer = run_python(_GROWTH, env={"PYTHONPATH": str(ROOT / "tests")})
    growth, total, arena, weights = map(int, answer.split())
    needed_weights = 60 * 128 * 9 * 128 // 8 + 256 * 9 * 1024 * 4
    needed_arena = 2 * 64 * 64 * 128 * 4 + 64 * 64 * 128 // 8  # both summands, and the bits
    assert total == pytest.approx(growth, rel=0.1)
    assert weights == pytest.approx(needed_weights, rel=0.1)
    assert needed_arena * 0.9 < arena < needed_arena * 1.6
