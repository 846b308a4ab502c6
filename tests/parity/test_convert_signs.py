"""Signs written by hand, one-bit weights told by what made them, and constants of too many axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import nn as bnn
from onebit.lowering import ConversionError, convert
from onebit.program import Program
from parity.agreement import assert_equal
from parity.networks import Lambda, random_batch_norm


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def ops(program: Program) -> list[str]:
    return [node.op for node in program.nodes]


W = torch.where
Function = Callable[[Tensor], Tensor]
# Every result is one of two numbers by one comparison; on half of the lines the bit +1 is the smaller one.
SPELLINGS: dict[str, Function] = {
    "x > 0 ? 1 : -1": lambda x: W(x > 0, 1.0, -1.0),
    "x > 0 ? -1 : 1": lambda x: W(x > 0, -1.0, 1.0),
    "x >= 0 ? -1 : 1": lambda x: W(x >= 0, -1.0, 1.0),
    "x < 0 ? 1 : -1": lambda x: W(x < 0, 1.0, -1.0),
    "x < 0 ? -1 : 1": lambda x: W(x < 0, -1.0, 1.0),
    "x <= 0 ? 1 : -1": lambda x: W(x <= 0, 1.0, -1.0),
    "x <= 0 ? -1 : 1": lambda x: W(x <= 0, -1.0, 1.0),
    "(x > 0).float()": lambda x: (x > 0).float(),
    "(x >= 0).float()": lambda x: (x >= 0).float(),
    "(x < 0).float()": lambda x: (x < 0).float(),
    "(x <= 0).to(x.dtype)": lambda x: (x <= 0).to(x.dtype),
    "(~(x > 0)).float()": lambda x: (~(x > 0)).float(),
    "logical_not(x >= 0).float()": lambda x: torch.logical_not(x >= 0).float(),
    "-sign(x)": lambda x: -bnn.ste_sign(x),
    "-sign(-x)": lambda x: -bnn.ste_sign(-x),
    "sign(-x)": lambda x: bnn.ste_sign(-x),
    "sign(-sign(x))": lambda x: bnn.ste_sign(-bnn.ste_sign(x)),
    "2 * (x > 0) - 1": lambda x: 2 * (x > 0).float() - 1,
    "1 - 2 * (x <= 0)": lambda x: 1 - 2 * (x <= 0).float(),
    "1 - 2 * (x > 0)": lambda x: 1 - 2 * (x > 0).float(),
    "(x > 0).float() - 0.5": lambda x: (x > 0).float() - 0.5,
    "0.5 - (x > 0).float()": lambda x: 0.5 - (x > 0).float(),
    "(0 < x) * 2. - 1": lambda x: (0 < x) * 2.0 - 1,  # noqa: SIM300
    "((x > 0) * 2 - 1).float()": lambda x: ((x > 0) * 2 - 1).float(),
    "x > 0.25 ? 1 : -1": lambda x: W(x > 0.25, 1.0, -1.0),
    "x <= 0.25 ? 1 : -1": lambda x: W(x <= 0.25, 1.0, -1.0),
    "(x > 0) - (x <= 0)": lambda x: (x > 0).float() - (x <= 0).float(),
    "x > 0 ? 0 : 3": lambda x: W(x > 0, 0.0, 3.0),
    "x > 0 ? 2 : 5": lambda x: W(x > 0, 2.0, 5.0),
    "relu(-sign(x))": lambda x: F.relu(-bnn.ste_sign(x)),
    "abs(sign(x) - 1)": lambda x: (bnn.ste_sign(x) - 1).abs(),
    "clamp(-sign(x), 0)": lambda x: (-bnn.ste_sign(x)).clamp(min=0),
    "where of where": lambda x: W(W(x > 0, 0.0, 1.0) > 0.5, 1.0, -1.0),
}


def image_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels))
        norm.bias.copy_(torch.randn(channels))
    return norm


def _network(function: Function, name: str) -> nn.Sequential:
    return nn.Sequential(
        bnn.BinaryLinear(33, 65), random_batch_norm(65), Lambda(function, name),
        bnn.BinaryLinear(65, 4, input_quantizer=None),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("form", SPELLINGS)
def test_two_numbers_by_one_comparison_stay_bits_for_the_next_product(form: str) -> None:
    model, x = _network(SPELLINGS[form], form), torch.randn(9, 33)
    program = convert(model, x)
    assert [op for op in ops(program) if op.endswith("gemm")] == ["binary_gemm"] * 2
    assert "(100.0%)" in str(program.summary())
    assert_equal(model, program, x)


@pytest.mark.parametrize("form", ["x > 0 ? 1 : -1", "x > 0 ? -1 : 1", "-sign(x)", "(x <= 0).to(x.dtype)"])
@pytest.mark.parametrize("pool", [False, True])
def test_falling_signs_stay_bits_in_convolutions_and_through_max_pools(form: str, pool: bool) -> None:
    model = nn.Sequential(
        bnn.BinaryConv2d(3, 33, 3), image_norm(33), Lambda(SPELLINGS[form], form),
        *([nn.MaxPool2d(2)] if pool else []),
        bnn.BinaryConv2d(33, 5, 3, padding=0 if pool else 1, input_quantizer=None),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 10, 9)
    program = convert(model, x)
    assert [op for op in ops(program) if op.endswith("conv2d")] == ["binary_conv2d"] * 2
    assert_equal(model, program, x)


def test_rising_and_falling_signs_side_by_side_stay_bits() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = bnn.BinaryLinear(33, 40)
            self.second = bnn.BinaryLinear(80, 4, input_quantizer=None)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.second(torch.cat([W(y > 3, 1.0, -1.0), W(y >= -3, -1.0, 1.0)], 1))

    model, x = Both().eval(), torch.randn(9, 33)
    program = convert(model, x)
    assert [op for op in ops(program) if op.endswith("gemm")] == ["binary_gemm"] * 2
    assert_equal(model, program, x)


class Comparison(nn.Module):
    """A comparison of what 0/0, c/0 and finite numbers give: NaN, infinities and numbers."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.linear = bnn.BinaryLinear(4, 64)
        self.numerator = nn.Parameter(torch.randint(-1, 2, (64,)).float())
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.numerator / self.linear(x))


_NAN: dict[str, Function] = {
    **{
        f"{name}, {c}": lambda x, compare=compare, c=c: W(compare(x, c), 1.0, -1.0)
        for name, compare in {"ge": torch.ge, "gt": torch.gt, "le": torch.le, "lt": torch.lt}.items()
        for c in (0.0, 0.25, -0.25)
    },
    **{
        f"{name} of values": lambda x, compare=compare: W(compare(x, -x), 1.0, -1.0)
        for name, compare in {"ge": torch.ge, "gt": torch.gt, "le": torch.le, "lt": torch.lt}.items()
    },
    "not <": lambda x: (~(x < 0)).float(),
    "not >=": lambda x: (~(x >= 0)).float(),
    "0 < x": lambda x: W(0 < x, 1.0, -1.0),  # noqa: SIM300
    "halves": lambda x: (x > 0).float() - (x <= 0).float(),
    "clamped": lambda x: W(x.clamp(-1, 1) > 0, 1.0, -1.0),
    "relu": lambda x: W(F.relu(x) > 0, 1.0, -1.0),
    "leaky": lambda x: W(F.leaky_relu(x) < 0, 1.0, -1.0),
    "sign": lambda x: bnn.ste_sign(x),
    "minus sign of minus": lambda x: -bnn.ste_sign(-x),
}


@pytest.mark.parametrize("form", _NAN)
def test_a3_no_comparison_holds_for_a_nan_that_arises_inside(form: str) -> None:
    model, x = Comparison(_NAN[form]).eval(), torch.randn(50, 4)
    with torch.no_grad():
        seen = model.numerator / model.linear(x)
    assert bool(seen.isnan().any())
    assert bool(seen.isinf().any())
    assert_equal(model, convert(model, x), x)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 1, 1), (1, 1, 6), (1, 5, 1), (2, 1, 1)], ids=lambda s: "x".join(map(str, s))
)
@pytest.mark.parametrize(
    "function",
    [
        lambda x, c: W(x >= 0, 1.0, -1.0) * c,
        lambda x, c: (W(x >= 0, 1.0, -1.0) * c).permute(1, 0, 2) if c.dim() == 3 else x * c,
        lambda x, c: x + c,
        lambda x, c: c / x,
        lambda x, c: W(x >= c, 1.0, -1.0),
        lambda x, c: W(x > c * 0, 1.0, -1.0),
        lambda x, c: W(x > 0, c, -c),
        lambda x, c: torch.clamp(x, -c, c),
        lambda x, c: bnn.ste_sign(x) - c,
        lambda x, c: F.linear(W(x >= 0, 1.0, -1.0) * c, torch.ones(3, 6)),
    ],
    ids=["mul", "permute", "add", "div", "ge", "gt", "where", "clamp", "sub", "linear"],
)
def test_a_constant_of_more_axes_than_its_operand_is_refused(
    function: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.constant = nn.Parameter(torch.ones(shape))

        def forward(self, x: Tensor) -> Tensor:
            return function(x, self.constant)

    with pytest.raises(ConversionError):
        convert(Model().eval(), torch.randn(5, 6))


def test_constants_of_as_many_axes_broadcast() -> None:
    for shape in ((), (1,), (6,), (1, 1), (1, 6)):
        constant = torch.randn(shape)
        model = Lambda(lambda x, c=constant: W(x >= c, 1.0, -1.0) * 2 + c, "constant").eval()
        x = torch.randn(5, 6)
        assert_equal(model, convert(model, x), x)


def _weights(program: Program) -> list[str]:
    return [op for op in ops(program) if op.endswith(("gemm", "conv2d"))]


def test_real_weights_of_one_column_are_no_signs() -> None:
    x = torch.randn(3, 1)
    assert _weights(convert(nn.Linear(1, 8, bias=False).eval(), x)) == ["f32_gemm"]
    signs = nn.Sequential(Lambda(lambda x: W(x >= 0, 1.0, -1.0), "sign"), nn.Linear(1, 8, bias=False)).eval()
    assert _weights(convert(signs, x)) == ["f32_gemm"]
    depthwise = nn.Conv2d(3, 3, 1, groups=3, bias=False).eval()
    assert _weights(convert(depthwise, torch.randn(2, 3, 4, 4))) == ["f32_conv2d"]


@pytest.mark.parametrize("columns", [1, 7])
@pytest.mark.parametrize("scale", [None, "channel_mean"])
def test_weights_that_a_sign_has_made_are_one_bit(columns: int, scale: str | None) -> None:
    model = bnn.BinaryLinear(columns, 8, weight_scale=scale).eval()
    x = torch.randn(3, columns)
    program = convert(model, x)
    assert _weights(program) == ["binary_gemm"]
    assert_equal(model, program, x)


_MADE: dict[str, Function] = {
    "where": lambda w: W(w >= 0, 1.0, -1.0),
    "where, scaled": lambda w: W(w > 0, 0.5, -0.5),
    "bool": lambda w: (w >= 0).float() * 2 - 1,
    "torch.sign": torch.sign,
    "marker, transposed": lambda w: bnn.ste_sign(w.t()).t(),
    "marker, times alpha": lambda w: bnn.ste_sign(w) * torch.full((8, 1), 0.25),
}


@pytest.mark.parametrize("form", _MADE)
def test_provenance_outlives_the_folding_of_constants(form: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(W(x >= 0, 1.0, -1.0), _MADE[form](self.weight))

    model, x = Model().eval(), torch.randn(3, 1)
    program = convert(model, x)
    assert _weights(program) == ["binary_gemm"]
    assert_equal(model, program, x)


def test_stored_rows_of_alpha_count_as_one_bit() -> None:
    model, x = nn.Linear(7, 8, bias=False).eval(), torch.randint(-3, 4, (3, 7)).float()
    assert _weights(convert(model, x)) == ["f32_gemm"]
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(np.where(model.weight.numpy() >= 0, 0.5, -0.5)))
    program = convert(model, x)
    assert _weights(program) == ["f32_binary_gemm"]
    assert_equal(model, program, x)
