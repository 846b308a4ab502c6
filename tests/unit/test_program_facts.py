"""The facts of every op: none may be missing, and each is true of what the op computes."""

from __future__ import annotations

from dataclasses import MISSING, fields
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from onebit.program import OPS, Constant, DType, Program, execute
from onebit.program.ops import FloatForm, FloatKind, Kind, MacKind, Op
from program_samples import (
    bits,
    bits_constant,
    bytes_mlp,
    constant,
    conv_zoo,
    f32,
    float_zoo,
    i32,
    one_op,
    signs,
)

SAMPLES = (bytes_mlp(), float_zoo(), conv_zoo())
USES = [(program, node) for program in SAMPLES for node in program.nodes]
FACTS = [field.name for field in fields(Op) if field.default is MISSING and field.default_factory is MISSING]


def _fields(op: Op) -> dict[str, Any]:
    return {field.name: getattr(op, field.name) for field in fields(op)}


@pytest.mark.parametrize("missing", FACTS)
def test_an_op_without_a_fact_is_an_error(missing: str) -> None:
    stated = _fields(OPS["relu"])
    assert Op(**stated) == OPS["relu"]
    del stated[missing]
    with pytest.raises(TypeError, match=missing):
        Op(**stated)


def test_what_engines_and_estimates_need_is_among_the_facts() -> None:
    needed = {
        "kind",
        "product",
        "arithmetic",
        "monotone",
        "scale_shift",
        "selects",
        "tolerance",
        "float_form",
    }
    assert needed | {"why_not_one_bit", "infer", "compute"} <= set(FACTS)


def test_a_product_states_its_multiply_accumulates() -> None:
    with pytest.raises(TypeError, match="a matrix product with product=None"):
        Op(**{**_fields(OPS["f32_gemm"]), "product": None})
    with pytest.raises(TypeError, match="a elementwise with product="):
        Op(**{**_fields(OPS["relu"]), "product": OPS["f32_gemm"].product})


@pytest.mark.parametrize(
    ("kind", "torch", "onnx"),
    [
        (FloatKind.FUNCTION, "", "Relu"),
        (FloatKind.FUNCTION, "relu", ""),
        (FloatKind.BINARY, "", ""),
        (FloatKind.LINEAR, "nn.functional.linear", "Gemm"),
    ],
)
def test_a_float_form_names_functions_and_only_those(kind: FloatKind, torch: str, onnx: str) -> None:
    with pytest.raises(TypeError, match="torch and onnx"):
        FloatForm(kind, torch, onnx)


@pytest.mark.parametrize("operand", ["y", "", "X"])
def test_the_steps_of_a_function_are_of_known_operands(operand: str) -> None:
    FloatForm(FloatKind.FUNCTION, "nn.functional.silu", "Mul", (("Sigmoid", "x"), ("Mul", "x", "_", 1.0)))
    with pytest.raises(TypeError, match="onnx_steps are of a function, on x, _ and numbers"):
        FloatForm(FloatKind.FUNCTION, "relu", "Relu", (("Relu", operand),))
    with pytest.raises(TypeError, match="onnx_steps are of a function, on x, _ and numbers"):
        FloatForm(FloatKind.SIGN, onnx_steps=(("Relu", "x"),))


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.float_form.torch])
def test_a_named_float_form_is_what_the_op_computes(name: str) -> None:
    op = OPS[name]
    found: Any = torch
    for part in op.float_form.torch.split("."):
        found = getattr(found, part)
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-64, 64, (2, 5)).astype(np.float32) / 8 for _ in op.operands]
    attrs = dict(zip(op.attrs, (-1.5, 2.25), strict=False))
    program = one_op(name, {operand.name: f32(5) for operand in op.operands}, {}, f32(5), **attrs)
    expected = found(*map(torch.from_numpy, arrays), *attrs.values()).numpy()
    assert np.array_equal(execute(program, *arrays)["y"], expected)


def _drawn(program: Program, rng: np.random.Generator) -> list[Any]:
    def draw(dtype: DType, shape: tuple[int, ...]) -> Any:
        if dtype is DType.BITS:
            return signs(rng, *shape)
        if dtype is DType.U8:
            return rng.integers(0, 256, shape, dtype=np.uint8)
        return rng.standard_normal(shape).astype(np.float32)

    types = [program.values[name] for name in program.inputs]
    return [draw(type_.dtype, (3, *type_.shape)) for type_ in types]


@pytest.mark.parametrize("program", SAMPLES)
def test_facts_are_true_of_what_the_samples_compute(program: Program) -> None:
    values = execute(program, *_drawn(program, np.random.default_rng(2)), keep="all")
    for node in program.nodes:
        op, y = node.facts, values[node.output]
        taken = [values[name] for name in node.inputs if name in values]
        if op.selects:
            assert np.isin(y, np.concatenate([x.reshape(-1) for x in taken])).all(), node.op
        if op.is_layout:
            assert y.size == sum(x.size for x in taken), node.op
        if op.kind is Kind.VIEW:
            assert np.array_equal(y.reshape(-1), taken[0].reshape(-1)), node.op
        if op.is_elementwise:
            assert y.shape == np.broadcast_shapes(*(x.shape for x in taken)), node.op
        if op.is_integer_product:
            assert op.product is not None
            assert op.product.sums is not None
            low, high = op.product.sums(program.call_of(node))
            assert low <= y.min(), node.op
            assert y.max() <= high, node.op
        form = op.scale_shift(program.constants_of(node)) if op.is_elementwise else None
        if form is not None and form.exact:
            scale = 1 if form.scale is None else form.scale.astype(np.float64)
            shift = 0 if form.shift is None else form.shift.astype(np.float64)
            x = values[node.inputs[form.operand]].astype(np.float64)
            assert np.allclose(x * scale + shift, y, rtol=1e-6, atol=1e-6), node.op


# What makes each op that is monotone in one value rise, and what makes it fall (None where nothing does).
CONSTANTS: dict[str, tuple[dict[str, Constant], dict[str, Constant] | None]] = {
    "relu": ({}, None),
    "hardtanh": ({}, None),
    "sign": ({}, None),
    "affine": (
        {"scale": constant(np.float32([0.5, 0, 3])), "shift": constant(np.float32([1, -2, 0]))},
        {"scale": constant(np.float32([0.5, -1, 3])), "shift": constant(np.float32([1, -2, 0]))},
    ),
    "prelu": ({"slope": constant(np.float32([0, 0.25, 2]))}, None),
    "threshold": (
        {"thresholds": constant(np.int32([-3, 0, 4])), "flip": bits_constant(np.int8([-1, -1, -1]))},
        {"thresholds": constant(np.int32([-3, 0, 4])), "flip": bits_constant(np.int8([-1, 1, -1]))},
    ),
    "add": ({"b": constant(np.float32([1, -2, 0]))}, None),
    "sub": ({"b": constant(np.float32([1, -2, 0]))}, {"a": constant(np.float32([1, -2, 0]))}),
    "mul": ({"b": constant(np.float32([1, 0, 7]))}, {"b": constant(np.float32([1, -0.5, 7]))}),
    "div": ({"b": constant(np.float32([1, 3, 7]))}, {"b": constant(np.float32([1, -3, 7]))}),
}


@pytest.mark.parametrize(
    ("name", "falls", "constants"),
    [
        (name, falls, found)
        for name, pair in CONSTANTS.items()
        for falls, found in enumerate(pair)
        if found is not None
    ],
)
def test_an_op_that_is_called_monotone_is(name: str, falls: int, constants: dict[str, Constant]) -> None:
    op = OPS[name]
    value = next(operand.name for operand in op.operands if operand.name not in constants)
    attrs = {"min": -2.0, "max": 3.0} if name == "hardtanh" else {}
    type_ = i32(3) if name == "threshold" else f32(3)
    order = tuple(operand.name for operand in op.operands)
    program = one_op(name, {value: type_}, constants, _output(name), order, **attrs)
    (node,) = program.nodes
    found = op.monotone(program.constants_of(node))
    assert found is not None
    assert (node.inputs[found.operand], found.rises) == (value, not falls)
    x = np.linspace(-8, 8, 65).astype(np.int32 if name == "threshold" else np.float32)
    y = execute(program, np.ascontiguousarray(np.repeat(x[:, None], 3, axis=1)))["y"].astype(np.float64)
    steps = np.diff(y, axis=0)
    up, down = (steps >= 0).all(axis=0), (steps <= 0).all(axis=0)
    assert (up | down).all()
    assert up.all() != bool(falls)


def _output(name: str) -> Any:
    return bits(3) if OPS[name].float_form.kind in (FloatKind.SIGN, FloatKind.LEVEL) else f32(3)


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("abs", {}),
        ("prelu", {"slope": constant(np.float32([0, -0.25, 2]))}),
        ("div", {"a": constant(np.float32([1, 2, 3]))}),
    ],
)
def test_an_op_that_turns_is_not_called_monotone(name: str, constants: dict[str, Constant]) -> None:
    value = next(operand.name for operand in OPS[name].operands if operand.name not in constants)
    order = tuple(operand.name for operand in OPS[name].operands)
    program = one_op(name, {value: f32(3)}, constants, f32(3), order)
    assert OPS[name].monotone(program.constants_of(program.nodes[0])) is None


@pytest.mark.parametrize("exponent", [-127, -126, -125, -3, 0, 5, 125, 126, 127])
def test_a_division_is_a_scale_where_the_reciprocal_is_a_normal_power_of_two(exponent: int) -> None:
    divisor = np.float32(2.0**exponent)
    form = OPS["div"].scale_shift((None, np.array([divisor, -divisor])))
    assert form is not None
    assert form.exact == (-126 <= exponent <= 126)
    if form.exact:
        assert form.scale is not None
        assert [Fraction(float(s)) * Fraction(float(divisor)) for s in form.scale] == [1, -1]
    assert not getattr(OPS["div"].scale_shift((None, np.float32([3]))), "exact", True)


def test_each_kind_of_product_costs_what_its_factors_do() -> None:
    costs = {kind: kind.operations for kind in MacKind}
    one_bit = costs[MacKind.ONE_BIT]
    assert (one_bit.int32_adds * 32, one_bit.float_adds, one_bit.float_multiplies) == (3, 0, 0)
    assert (costs[MacKind.BYTE_BY_BIT].int32_adds, costs[MacKind.FLOAT_BY_BIT].float_adds) == (1, 1)
    assert (costs[MacKind.FLOAT].float_adds, costs[MacKind.FLOAT].float_multiplies) == (1, 1)


@pytest.mark.parametrize(
    ("name", "roundings"),
    [
        ("f32_binary_gemm", lambda types: types[1].shape[-1]),
        ("f32_gemm", lambda types: types[1].shape[-1] + 1),
        ("channel_mean", lambda types: types[0].shape[-1] + 2),
        ("relu", lambda types: 0),
        ("binary_conv2d", lambda types: 0),
    ],
)
def test_the_tolerance_is_that_of_the_definition(name: str, roundings: Any) -> None:
    found = 0
    for program, node in USES:
        if node.op == name:
            call = program.call_of(node)
            assert OPS[name].tolerance.roundings(call) == roundings(call.types)
            found += 1
    assert found
