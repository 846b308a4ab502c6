"""docs/numerics.md on infinities, NaN and floating-point modes, line by line: test_a2_... tests line A2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from float_modes import MODES, mode
from onebit import nn as bnn
from onebit.lowering import convert
from parity.agreement import assert_equal, eager, run_everywhere
from parity.networks import Lambda, random_batch_norm


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def test_a2_infinite_inputs_and_their_two_exceptions() -> None:
    inf = float("inf")
    x = torch.tensor([[inf, -inf, 0.0, 1.0, -1.0]])

    def signs(condition: Tensor) -> Tensor:
        return torch.where(condition, 1.0, -1.0)

    for function in (
        torch.relu,
        torch.abs,
        lambda x: x.clamp(-2.0, 2.0),
        lambda x: (x + 1) * -3,
        *(lambda x, compare=compare: signs(compare(x, 0.25)) for compare in (torch.ge, torch.gt, torch.le)),
    ):
        model = Lambda(function, "a function").eval()
        assert_equal(model, convert(model, torch.zeros(1, 5)), x)
    most = float(np.finfo(np.float32).max)
    program = convert(Lambda(lambda x: x.clamp(min=-0.5), "clamp").eval(), x)
    for name, (found,) in run_everywhere(program, x.numpy()):
        assert found.tolist() == [[most, -0.5, 0.0, 1.0, -0.5]], name
    for compare in (torch.ge, torch.gt, torch.le, torch.lt):
        # x and −x are never infinite with one sign
        model = Lambda(lambda x, compare=compare: signs(compare(x, -x)), "compare").eval()
        assert_equal(model, convert(model, torch.zeros(1, 5)), x)


@pytest.mark.parametrize("name", MODES)
def test_e3_no_result_depends_on_the_callers_floating_point_mode(name: str) -> None:
    norm = random_batch_norm(33)
    with torch.no_grad():
        norm.weight.mul_(1e-39)  # subnormal numbers before a sign, and rounded ones behind it
        norm.bias.mul_(1e-40)
    last = bnn.BinaryLinear(33, 9, weight_scale="channel_mean")
    model = nn.Sequential(
        bnn.ScalePixels(), bnn.BinaryLinear(64, 33, input_quantizer=None), norm, last, random_batch_norm(9)
    ).eval()
    x = torch.randint(0, 256, (40, 64), dtype=torch.uint8)
    (expected,) = eager(model, x)
    with mode(name):
        program = convert(model, x)
        results = list(run_everywhere(program, x.numpy()))
    for executor, (found,) in results:
        assert np.array_equal(found.view(np.int32), expected.view(np.int32)), executor


def test_a2_infinities_that_arise_inside() -> None:
    """1/0 = ∞ and −1/0 = −∞ inside."""
    x = torch.tensor([[0.0, 2.0, -1.0]])
    for numerator in (1.0, -1.0):
        for function in (
            lambda x: x.clamp(min=0.0),
            lambda x: x.clamp(-2.0, 2.0),
            lambda x: torch.where(x > 1, 1.0, -1.0),
            lambda x: torch.where(x <= 1, 1.0, -1.0),
        ):
            model = Lambda(lambda x, f=function, n=numerator: f(n / x), "a function").eval()
            assert_equal(model, convert(model, x), x)
    most = float(np.finfo(np.float32).max)
    program = convert(Lambda(lambda x: (1 / x).clamp(min=-0.25), "clamp").eval(), x)
    for name, (found,) in run_everywhere(program, x.numpy()):
        assert found.tolist() == [[most, 0.5, -0.25]], name


def test_s6_alpha_is_a_multiplication_of_its_own() -> None:
    def scaled(x: Tensor) -> Tensor:
        return torch.add(x, x.abs(), alpha=0.5) - torch.sub(x, x.abs(), alpha=4)

    model = Lambda(scaled, "alpha").eval()
    x = torch.randn(50, 7)
    program = convert(model, x)
    assert_equal(model, program, x)
    smallest = torch.full((1, 7), 2.0**-149)
    model = Lambda(lambda x: torch.add(x, x.abs(), alpha=0.5), "alpha").eval()
    (pytorch,) = eager(model, smallest)
    assert (pytorch == 2.0**-148).all()  # 1.5 times the smallest number, rounded once
    for name, (found,) in run_everywhere(convert(model, x), smallest.numpy()):
        assert (found == 2.0**-149).all(), name  # 0.5 times it is 0


def test_p4_of_a_product_by_hand_the_sum_rounds_once_and_pytorchs_on_the_way() -> None:
    factor = 8191 / 2**18
    layer = bnn.BinaryLinear(784, 33, input_quantizer=None).eval()

    def by_hand(x: Tensor) -> Tensor:
        return nn.functional.linear(x.float() * factor, bnn.ste_sign(layer.weight))

    model = Lambda(by_hand, "a product by hand").eval()
    x = torch.randint(0, 256, (40, 784), dtype=torch.uint8)
    weights = np.where(layer.weight.detach().numpy() >= 0, 1, -1)
    exact = (x.numpy().astype(np.int64) * 8191) @ weights.T / 2**18
    assert (exact != exact.astype(np.float32)).any()
    program = convert(model, x)
    assert "u8_gemm" in [node.op for node in program.nodes]
    for name, (found,) in run_everywhere(program, x.numpy()):
        assert np.array_equal(found, exact.astype(np.float32)), name
    (pytorch,) = eager(model, x)
    total = (x.double() * factor).sum(1, keepdim=True).numpy()
    assert (np.abs(pytorch - exact) <= 785 * 2.0**-24 * total).all()
    assert (pytorch != exact.astype(np.float32)).any()  # it rounds on the way
