"""The small parts of lowering: byte grids, signs as pairs, folding, names, dead code, the table of rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onebit import nn as bnn
from onebit.lowering.capture.constant_folding import fold
from onebit.lowering.capture.reader import capture
from onebit.lowering.emit.context import RULES, lowers
from onebit.lowering.emit.program_builder import ProgramBuilder
from onebit.lowering.lower import lower
from onebit.lowering.passes.cleanup import name_values, remove_dead_code
from onebit.lowering.values.byte_grid import ByteGrid, grid_of
from onebit.program import DType, TensorType, verify

BYTES = torch.arange(256, dtype=torch.uint8).float()


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (BYTES, ByteGrid(1, 0, 1.0)),
        ((2 * BYTES - 255) / 256, ByteGrid(2, -255, 1 / 256)),
        (BYTES - 128, ByteGrid(1, -128, 1.0)),
        (-BYTES / 4, ByteGrid(-1, 0, 0.25)),
        (BYTES * 6 + 4, ByteGrid(3, 2, 2.0)),
        (BYTES / 255, None),
        (BYTES * 0 + 3, None),
        (BYTES.clamp(0, 254), None),
        (BYTES + 2.0**-20, None),  # an offset of 1 and a multiplier of 2^20: no sum of them fits
        (torch.arange(256, dtype=torch.uint8), None),
        (BYTES / 0, None),
    ],
)
def test_grid_of_a_byte_table(table: Tensor, expected: ByteGrid | None) -> None:
    found = grid_of(table)
    assert found == expected
    if found is not None:
        again = (BYTES.double() * found.multiplier + found.offset) * found.unit
        assert torch.equal(again.float(), table)


def test_fold_computes_what_depends_on_parameters_only_and_drops_the_unused() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            alpha = self.weight.abs().mean(1)
            return x @ (bnn.quantizers.ste_sign(self.weight) * alpha[:, None]).t()

    model = Model().eval()
    captured = capture(model, (torch.zeros(1, 4),), "model")
    assert len(captured.calls) > 4
    folded = fold(captured)
    assert [call.op for call in folded.calls] == ["aten.matmul.default"]
    (product,) = folded.calls
    weight = folded.constants[product.refs()[1]]
    expected = (torch.where(model.weight >= 0, 1.0, -1.0) * model.weight.abs().mean(1)[:, None]).t()
    assert torch.equal(weight, expected)


def test_layers_and_lines_are_known() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 3

    captured = capture(nn.Sequential(nn.Sequential(nn.ReLU(), Inner())).eval(), (torch.zeros(2, 4),), "m")
    origins = [(call.op, call.origin.layer, call.origin.kind) for call in captured.calls]
    assert origins == [("aten.relu.default", "0.0", "ReLU"), ("aten.mul.Tensor", "0.1", "Inner")]
    assert captured.calls[1].origin.source.startswith("test_lowering_passes.py:")
    assert captured.calls[1].origin.source.endswith('"return x * 3"')
    assert captured.calls[1].result is not None
    assert captured.calls[1].result.sample == (4,)


def test_lowering_alone_makes_a_valid_program_with_signs_of_floats() -> None:
    model = nn.Sequential(bnn.BinaryLinear(33, 5), nn.BatchNorm1d(5), bnn.BinaryLinear(5, 2)).eval()
    program, hints = lower(fold(capture(model, (torch.zeros(1, 33),), "m")))
    verify(program)
    assert [node.op for node in program.nodes] == [
        *("sign", "binary_gemm", "to_float", "affine"),
        *("sign", "binary_gemm", "to_float"),
    ]
    assert "2.weight" in hints.values()


def test_dead_nodes_and_their_constants_go() -> None:
    builder = ProgramBuilder()
    x = builder.input("x", TensorType(DType.F32, (3,)))
    unused = builder.input("unused", TensorType(DType.F32, (3,)))
    kept = builder.node("relu", x, layer="a")
    builder.node("add", kept, builder.floats(np.ones(3), "dead"), layer="b")
    program = builder.program((kept,), {})
    assert len(program.constants) == 1
    cleaned = remove_dead_code(program)
    verify(cleaned)
    assert [node.op for node in cleaned.nodes] == ["relu"]
    assert not cleaned.constants
    assert cleaned.inputs == (x, unused)


def test_names_are_unique_readable_and_short_enough() -> None:
    builder = ProgramBuilder()
    x = builder.input("output", TensorType(DType.F32, (3,)))  # an input may be called like an output
    y = builder.node("relu", x, layer="a b")
    for number in range(3):
        y = builder.node("add", y, builder.floats(np.full(3, number), "l.w"), layer="deep." * 60)
    program = name_values(builder.program((y,), {}), builder.hints)
    verify(program)
    assert program.inputs == ("output",)
    assert program.outputs == ("output_2",)
    assert "a_b.relu" in program.values
    assert max(map(len, program.values)) <= 256


def test_equal_nodes_are_made_once() -> None:
    builder = ProgramBuilder()
    x = builder.input("x", TensorType(DType.F32, (3,)))
    assert builder.node("relu", x, layer="a") == builder.node("relu", x, layer="b")
    first, second = (builder.node("hardtanh", x, layer="", attrs={"min": -1.0, "max": m}) for m in (1.0, 2.0))
    assert first != second


def test_a_rule_has_one_owner() -> None:
    assert "aten.relu.default" in RULES
    with pytest.raises(RuntimeError, match=r"two lowering rules for 'aten\.relu\.default'"):
        lowers("aten.relu.default")(RULES["aten.relu.default"])


def test_the_builder_knows_which_values_can_be_nan() -> None:
    builder = ProgramBuilder()
    x = builder.input("x", TensorType(DType.F32, (3,)))
    bits = builder.node("sign", x, layer="")
    sums = builder.node("binary_gemm", bits, builder.signs(np.ones((3, 3), bool), "w"), layer="")
    finite = builder.node("to_float", sums, layer="")

    def by(value: str, op: str, *numbers: float) -> str:
        return builder.node(op, value, builder.floats(np.array(numbers), "c"), layer="")

    assert all(builder.never_nan(name) for name in (x, finite, by(x, "mul", 2.0), by(finite, "mul", 0.0)))
    assert builder.never_nan(by(finite, "div", 3.0))
    assert not builder.never_nan(by(x, "mul", 1.0, 0.0, 1.0))  # ∞·0
    assert not builder.never_nan(by(finite, "div", 1.0, 0.0, 1.0))  # 0/0
    assert not builder.never_nan(builder.node("add", x, by(x, "mul", -1.0), layer=""))  # ∞ − ∞
    huge = by(by(finite, "mul", 3e38), "mul", 10.0)
    assert builder.never_nan(huge)
    assert not builder.never_nan(by(huge, "mul", 0.0))
    real = builder.floats(np.ones((2, 3)), "r")
    assert not builder.never_nan(builder.node("f32_gemm", x, real, layer=""))
    assert builder.never_nan(builder.node("f32_gemm", finite, real, layer=""))
