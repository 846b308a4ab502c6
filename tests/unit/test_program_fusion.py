"""Fusion: what a GEMM takes into its epilogue, what it must leave, and that unneeded nodes are dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onebit.program import Constant, Node, Program, TensorType, execute, verify
from onebit.program.fusion import Step, fuse
from onebit.runtime import Engine
from program_samples import bits, bits_constant, bytes_mlp, constant, f32, feed, i32, signs, u8

N = 33


def _chain(gemm: str, ops: list[tuple[str, Any]], outputs: tuple[str, ...] = ()) -> Program:
    """One GEMM of 65 × 33 and a chain behind it; `ops` are (op, its constant or attributes).

    A constant is an array for the right operand, or ("first", array) for the left one.
    """
    rng = np.random.default_rng(0)
    source = {"binary_gemm": bits(65), "u8_gemm": u8(65)}.get(gemm, f32(65))
    weights = rng.integers(-8, 9, (N, 65)).astype(np.float32) / 8
    constants: dict[str, Constant] = {"w": bits_constant(signs(rng, N, 65))}
    if gemm == "f32_gemm":
        constants["w"] = constant(weights)
    integer = gemm in ("binary_gemm", "u8_gemm")
    values: dict[str, TensorType] = {"x": source, "v0": i32(N) if integer else f32(N)}
    attrs = {"multiplier": 2, "offset": -255} if gemm == "u8_gemm" else {}
    nodes = [Node(gemm, ("x", "w"), "v0", attrs)]
    for op, detail in ops:
        name, before = f"v{len(nodes)}", f"v{len(nodes) - 1}"
        arguments: tuple[str, ...] = (before,)
        if isinstance(detail, list):
            for number, array in enumerate(detail):
                constants[f"{name}.{number}"] = array if isinstance(array, Constant) else constant(array)
            arguments += tuple(f"{name}.{number}" for number in range(len(detail)))
        elif detail is not None:
            first = isinstance(detail, tuple)
            constants[f"{name}.c"] = constant(np.asarray(detail[1] if first else detail, np.float32))
            arguments = (f"{name}.c", before) if first else (before, f"{name}.c")
        nodes.append(Node(op, arguments, name))
        values[name] = bits(N) if op in ("threshold", "sign") else f32(N)
    program = Program(("x",), outputs or (nodes[-1].output,), tuple(nodes), constants, values)
    verify(program)
    return program


def _ops(program: Program) -> list[str]:
    return [step.op for step in fuse(program)]


ROW = (np.arange(N) / 7 - 2).astype(np.float32)
POWERS = (2.0 ** (np.arange(N) % 5 - 2) * np.where(np.arange(N) % 2, 1, -1)).astype(np.float32)
AFFINE = [ROW, ROW[::-1].copy()]
FLIP = bits_constant(np.where(np.arange(N) % 3, 1, -1))
THRESHOLD = [np.arange(N, dtype=np.int32) - 16, FLIP]
TO_FLOAT = ("to_float", None)

# (ops behind the GEMM, the steps that they must become), for an integer GEMM
FUSIONS: dict[str, tuple[list[tuple[str, Any]], list[str]]] = {
    "threshold": ([("threshold", THRESHOLD)], ["G+threshold"]),
    "plain sum": ([], ["G"]),
    "float": ([TO_FLOAT], ["G+to_float"]),
    "affine": ([TO_FLOAT, ("affine", AFFINE)], ["G+to_float+affine"]),
    "pixels": ([TO_FLOAT, ("mul", 1 / 256), ("affine", AFFINE)], ["G+to_float+mul+affine"]),
    "powers": (
        [TO_FLOAT, ("mul", POWERS), ("div", POWERS[::-1].copy()), ("mul", ROW)],
        ["G+to_float+mul+div+mul"],
    ),
    "bias": ([TO_FLOAT, ("add", ROW)], ["G+to_float+add"]),
    "left bias": ([TO_FLOAT, ("add", ("first", ROW))], ["G+to_float+add"]),
    "minus": ([TO_FLOAT, ("mul", 0.5), ("sub", ROW)], ["G+to_float+mul+sub"]),
    "minus from": ([TO_FLOAT, ("mul", 0.5), ("sub", ("first", ROW))], ["G+to_float+mul+sub"]),
    "scale, then affine": ([TO_FLOAT, ("mul", ROW), ("affine", AFFINE)], ["G+to_float+mul", "affine"]),
    "scale, then bias": ([TO_FLOAT, ("mul", 0.3), ("add", 0.7)], ["G+to_float+mul", "add"]),
    "bias, then scale": ([TO_FLOAT, ("add", ROW), ("mul", 0.5)], ["G+to_float+add", "mul"]),
    "affine, then affine": (
        [TO_FLOAT, ("affine", AFFINE), ("affine", AFFINE)],
        ["G+to_float+affine", "affine"],
    ),
    "division": ([TO_FLOAT, ("div", 3.0)], ["G+to_float", "div"]),
    "divided by": ([TO_FLOAT, ("div", ("first", 4.0))], ["G+to_float", "div"]),
    "zero": ([TO_FLOAT, ("mul", 0.0), ("add", 1.0)], ["G+to_float+mul", "add"]),
    "too small": (
        [TO_FLOAT, ("mul", 2.0**-60), ("mul", 2.0**-60), ("mul", 2.0**-30)],
        ["G+to_float+mul+mul", "mul"],
    ),
    "inexact product": ([TO_FLOAT, ("mul", 2.0**-60), ("mul", 1.1e-30)], ["G+to_float+mul", "mul"]),
    "sign": ([TO_FLOAT, ("affine", AFFINE), ("sign", None)], ["G+to_float+affine", "sign"]),
}


@pytest.mark.parametrize("gemm", ["binary_gemm", "u8_gemm"])
@pytest.mark.parametrize("name", FUSIONS)
def test_integer_gemm_takes_just_what_is_exact(name: str, gemm: str, isa: str) -> None:
    ops, steps = FUSIONS[name]
    program = _chain(gemm, ops)
    assert _ops(program) == [step.replace("G", gemm) for step in steps]
    (x,) = feed(program, batch=70)
    expected = execute(program, x)[program.outputs[0]]
    with Engine(program, isa=isa) as engine:
        assert engine(x).tobytes() == expected.tobytes()  # bytes: a zero keeps its sign too


@pytest.mark.parametrize("gemm", ["f32_binary_gemm", "f32_gemm"])
@pytest.mark.parametrize(
    ("ops", "steps"),
    [
        ([], ["G"]),
        ([("affine", AFFINE)], ["G+affine"]),
        ([("add", ROW)], ["G+add"]),
        ([("mul", ROW)], ["G+mul"]),
        ([("mul", 0.5), ("affine", AFFINE)], ["G+mul", "affine"]),
        ([("mul", 0.5), ("mul", 0.5)], ["G+mul", "mul"]),
        ([("relu", None)], ["G", "relu"]),
    ],
)
def test_float_gemm_takes_one_step(gemm: str, ops: list[Any], steps: list[str], isa: str) -> None:
    program = _chain(gemm, ops)
    assert _ops(program) == [step.replace("G", gemm) for step in steps]
    x = (np.random.default_rng(1).integers(-64, 65, (70, 65)) / 16).astype(np.float32)
    expected = execute(program, x)[program.outputs[0]]
    with Engine(program, isa=isa) as engine:
        assert np.array_equal(engine(x), expected)


def test_a_value_that_the_user_sees_is_not_fused_away() -> None:
    program = _chain("binary_gemm", [TO_FLOAT, ("affine", AFFINE)], outputs=("v2", "v0"))
    assert _ops(program) == ["binary_gemm", "to_float", "affine"]
    assert _ops(program.with_outputs("v2", "v1")) == ["binary_gemm+to_float", "affine"]


def test_a_value_with_two_readers_is_not_fused_away() -> None:
    program = _chain("binary_gemm", [("threshold", THRESHOLD)])
    nodes = (*program.nodes, Node("to_float", ("v0",), "y"))
    values = {**program.values, "y": f32(N)}
    twice = Program(("x",), ("v1", "y"), nodes, program.constants, values)
    assert _ops(twice) == ["binary_gemm", "threshold", "to_float"]
    square = Program(
        ("x",),
        ("y",),
        (*_chain("f32_gemm", []).nodes, Node("mul", ("v0", "v0"), "y")),
        _chain("f32_gemm", []).constants,
        {"x": f32(65), "v0": f32(N), "y": f32(N)},
    )
    assert _ops(square) == ["f32_gemm", "mul"]


def test_a_constant_that_varies_by_row_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    for shape, fused in (((4, 1), False), ((4, 4), False), ((1, 4), True), ((1, 1), True), ((), True)):
        constants = {"w": bits_constant(signs(rng, 4, 9)), "c": constant(np.full(shape, 0.5, np.float32))}
        nodes = (
            Node("binary_gemm", ("x", "w"), "a"),
            Node("to_float", ("a",), "b"),
            Node("mul", ("b", "c"), "y"),
        )
        values = {"x": bits(4, 9), "a": i32(4, 4), "b": f32(4, 4), "y": f32(4, 4)}
        program = Program(("x",), ("y",), nodes, constants, values)
        verify(program)
        assert len(fuse(program)) == (1 if fused else 2), shape


def test_nodes_that_no_output_needs_are_dropped() -> None:
    program = bytes_mlp().with_outputs("h0")
    assert _ops(program) == ["u8_gemm+threshold"]
    with Engine(program) as engine:
        assert list(engine.variants) == ["u8_gemm"]


def test_a_step_names_its_output_and_ops() -> None:
    (step, last) = fuse(bytes_mlp())
    assert isinstance(step, Step)
    assert (step.op, step.output, step.epilogue) == ("u8_gemm+threshold", "h0", "bits")
    assert (last.op, last.output, last.epilogue) == ("binary_gemm+to_float+affine", "y", "f32")
