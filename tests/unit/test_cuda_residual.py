"""Residual blocks on the GPU engine: which are one kernel, and that all equal the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cuda_emulation.compile import compiler
from cuda_emulation.device import EmulatedDevice
from onebit.program import Constant, Node, Program, execute, verify
from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
from program_samples import bits, bits_constant, constant, f32, feed, i32, signs
from support import require, sweep

SHAPE = (4, 5, 6)
WINDOW: dict[str, Any] = {
    "stride": (1, 1),
    "padding": (1, 1, 1, 1),
    "dilation": (1, 1),
    "groups": 1,
    "padding_value": 0,
}
CONV = (Node("binary_conv2d", ("b", "w"), "c", WINDOW), Node("to_float", ("c",), "f"))
SCALED = (Node("mul", ("f", "alpha"), "m"), Node("affine", ("m", "scale", "shift"), "n"))
FUSED = "binary_conv2d+to_float+mul+affine+add+sign"


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    require(compiler(), "g++, which compiles kernels for the emulator")


def make(nodes: tuple[Node, ...], outputs: tuple[str, ...]) -> Program:
    """A program over bits b and floats x of one shape, with constants for those nodes that need some."""
    rng = np.random.default_rng(1)
    known: dict[str, Constant] = {
        "w": bits_constant(signs(rng, 6, 3, 3, 6)),
        "alpha": constant(rng.uniform(0.1, 2, 6).astype(np.float32)),
        "scale": constant(rng.normal(size=6).astype(np.float32)),
        "shift": constant(rng.normal(size=6).astype(np.float32)),
        "image": constant(rng.normal(size=SHAPE).astype(np.float32)),
    }
    read = {name for node in nodes for name in node.inputs}
    types = {node.output: bits(*SHAPE) if node.op == "sign" else f32(*SHAPE) for node in nodes}
    types |= {node.output: i32(*SHAPE) for node in nodes if node.op == "binary_conv2d"}
    values = {**types, "b": bits(*SHAPE), "x": f32(*SHAPE)}
    used = {name: values[name] for name in values if name in read or name in types}
    inputs = tuple(name for name in ("b", "x") if name in read)
    return Program(inputs, outputs, nodes, {k: v for k, v in known.items() if k in read}, used)


def add(*names: str) -> Node:
    return Node("add", names, "y")


SIGN = Node("sign", ("y",), "s")
AFTER = Node("abs", ("y",), "z")
CASES: dict[str, tuple[tuple[Node, ...], tuple[str, ...], str]] = {
    "floats and signs": ((*CONV, *SCALED, add("n", "x"), SIGN), ("y", "s"), FUSED),
    "added to the other": ((*CONV, *SCALED, add("x", "n"), SIGN, AFTER), ("z", "s"), FUSED),
    "signs alone": ((*CONV, *SCALED, add("n", "x"), SIGN), ("s",), FUSED),
    "floats alone": ((*CONV, *SCALED, add("n", "x"), AFTER), ("z",), FUSED.removesuffix("+sign")),
    "no affine": ((*CONV, add("f", "x"), SIGN), ("y", "s"), "binary_conv2d+to_float+add+sign"),
    "two signs": (
        (*CONV, add("f", "x"), SIGN, Node("sign", ("y",), "t")),
        ("s", "t"),
        FUSED.replace("+mul+affine", ""),
    ),
    "made after the product": (
        (*CONV, *SCALED, Node("abs", ("x",), "r"), Node("relu", ("r",), "r2"), add("n", "r2"), SIGN),
        ("y", "s"),
        FUSED,
    ),
    "of the sum before": (
        (*CONV, add("f", "x"), SIGN, Node("binary_conv2d", ("s", "w"), "c2", WINDOW)),
        ("y", "c2"),
        "binary_conv2d+to_float+add+sign",
    ),
    # What follows is left to the stages that come after a product.
    "a constant": ((*CONV, *SCALED, add("n", "image"), SIGN), ("y", "s"), ""),
    "twice the same": ((*CONV, *SCALED, add("n", "n"), SIGN), ("y", "s"), ""),
    "the user reads between": ((*CONV, *SCALED, add("n", "x"), SIGN), ("n", "y", "s"), ""),
    "another reads between": (
        (*CONV, *SCALED, add("n", "x"), SIGN, Node("abs", ("n",), "z")),
        ("z", "s"),
        "",
    ),
    "a relu between": ((*CONV, Node("relu", ("f",), "r"), add("r", "x"), SIGN), ("y", "s"), ""),
}


@sweep("name", CASES, keep=("floats and signs", "of the sum before", "a constant"))
def test_a_block_equals_the_reference(name: str) -> None:
    nodes, outputs, fused = CASES[name]
    program = make(nodes, outputs)
    verify(program)
    inputs = feed(program, 3)
    expected = execute(program, *inputs)
    capability = ((9, 0), (7, 5))[len(name) % 2]
    with CudaEngine(program, device=EmulatedDevice(capability=capability)) as engine:
        found = engine(*inputs)
        ops = [info.op for info in engine.ops]
    for output, y in zip(outputs, found if isinstance(found, tuple) else (found,), strict=True):
        np.testing.assert_array_equal(y, expected[output])
    if fused:
        assert fused in ops
    else:
        assert not any("add" in op for op in ops if op.startswith("binary_conv2d"))
