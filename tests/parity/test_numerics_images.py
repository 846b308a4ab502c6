"""docs/numerics.md on images, line by line: test_i1_... tests line I1."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import nn as bnn
from onebit.lowering import ConversionError, convert
from onebit.program import Program
from parity.agreement import EPSILON, EXECUTORS, assert_equal, assert_within_tolerance, run_everywhere
from parity.networks import Lambda, random_batch_norm

Sign = bnn.quantizers.SteSign


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(8)


def _ops(program: Program) -> list[str]:
    return [node.op for node in program.nodes]


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.load_state_dict(random_batch_norm(channels).state_dict())
    return norm


def test_i1_images_are_channels_last_inside_and_flatten_permutes_weights() -> None:
    trunk = [bnn.BinaryConv2d(3, 33, 3), _norm(33)]
    image = nn.Sequential(*trunk).eval()
    x = torch.randn(3, 3, 6, 5)
    program = convert(image, x)
    assert _ops(program) == ["permute", "sign", "binary_conv2d", "to_float", "affine", "permute"]
    assert [node.attrs["axes"] for node in program.nodes if node.op == "permute"] == [(1, 2, 0), (2, 0, 1)]
    assert str(program.values[program.inputs[0]]) == "f32[3, 6, 5]"
    assert_equal(image, program, x)
    flat = nn.Sequential(
        *trunk, nn.Flatten(), nn.PReLU(33 * 12), Lambda(lambda x: x - torch.arange(396.0) / 7, "x - c"),
        random_batch_norm(396), bnn.BinaryLinear(396, 9, weight_scale="channel_mean"),
    ).eval()  # fmt: skip
    program = convert(flat, x)
    assert _ops(program).count("permute") == 1
    assert_equal(flat, program, x)
    one = nn.Sequential(bnn.BinaryConv1d(1, 33, 3), nn.BatchNorm1d(33)).eval()
    y = torch.randn(3, 1, 9)
    program = convert(one, y)
    assert "reshape" in _ops(program)
    assert str(next(program.values[n.inputs[0]] for n in program.nodes if "conv" in n.op)) == "bits[1, 9, 1]"
    assert_equal(one, program, y)


def _taken(kernel: int, **options: Any) -> nn.Module:
    """A convolution of what comes, which is signs already."""
    return bnn.BinaryConv2d(33, 5, kernel, input_quantizer=None, **options)


_PADDINGS: dict[str, tuple[nn.Module, int]] = {
    "zero": (bnn.BinaryConv2d(33, 5, 3, padding=2), 0),
    "plus one": (bnn.BinaryConv2d(33, 5, 3, padding=1, padding_value=1), 1),
    "minus one": (bnn.BinaryConv2d(33, 5, (1, 3), padding=(0, 2), padding_value=-1), -1),
    "pad behind the sign": (nn.Sequential(Sign(), nn.ConstantPad2d((1, 0, 2, 1), -1.0), _taken(2)), -1),
    "pad before the sign": (nn.Sequential(nn.ConstantPad2d((0, 3, 0, 0), 0.0), Sign(), _taken(3)), 1),
    "zero pad behind the sign": (nn.Sequential(Sign(), nn.ZeroPad2d((1, 0, 2, 1)), _taken(3, padding=1)), 0),
}


@pytest.mark.parametrize("kind", _PADDINGS)
def test_i2_padding_is_exact(kind: str) -> None:
    model, value = _PADDINGS[kind]
    x = torch.randn(3, 33, 4, 5)
    program = convert(model.eval(), x)
    (node,) = [n for n in program.nodes if n.op == "binary_conv2d"]
    assert node.attrs["padding_value"] == value
    assert_equal(model, program, x)


def test_i2_padding_of_bytes_and_of_other_kinds() -> None:
    model = nn.Sequential(
        bnn.ScalePixels(), bnn.BinaryConv2d(3, 9, 3, padding=1, input_quantizer=None)
    ).eval()
    x = torch.randint(0, 256, (3, 3, 4, 5), dtype=torch.uint8)
    program = convert(model, x)
    assert _ops(program)[:2] == ["permute", "u8_conv2d"]
    assert_equal(model, program, x)
    for wrong in (
        nn.Sequential(nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 2, 3)),
        nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 2, 3)),
        nn.Sequential(nn.ZeroPad2d(1), nn.ReLU(), nn.Conv2d(3, 2, 3)),
        nn.Sequential(Sign(), nn.ConstantPad2d(1, 0.5), bnn.BinaryConv2d(3, 2, 3, input_quantizer=None)),
    ):
        with pytest.raises(ConversionError, match=r"pad(ded|ding)"):
            convert(wrong.eval(), torch.randn(2, 3, 4, 5))


def test_i3_sums_reach_k_and_thresholds_cover_it() -> None:
    conv, norm = bnn.BinaryConv2d(31, 4, 3, padding=1), nn.BatchNorm2d(4)
    k = 31 * 9
    with torch.no_grad():
        conv.weight.fill_(1)
        # The sign changes at K, at −K + 2, in the middle, and nowhere.
        norm.running_mean.copy_(torch.tensor([k - 0.5, -k + 0.5, 0.25, k + 0.5]))
    model = nn.Sequential(conv, norm, Sign()).eval()
    x = torch.ones(2, 31, 3, 3)
    x[1] = -1
    program = convert(model, x)
    (node,) = [n for n in program.nodes if n.op == "threshold"]
    assert program.constants[node.inputs[1]].array.tolist() == [k, -k + 1, 1, -(2**31)]
    assert_equal(model, program, x)


_POOLS: dict[str, tuple[list[nn.Module], list[str]]] = {
    "sums": ([nn.MaxPool2d(2), _norm(33), Sign()], ["max_pool2d", "threshold"]),
    "floats before which nothing falls": (
        [Lambda(lambda x: x * 0.3 + 1, "0.3 x + 1"), nn.ReLU(), nn.MaxPool2d(2), _norm(33), Sign()],
        ["max_pool2d", "threshold"],
    ),
    "floats behind which nothing falls": ([_norm(33), nn.MaxPool2d(3, 2, 1), nn.Hardtanh(), Sign()],
                                          ["threshold", "max_pool2d"]),
    "signs": ([_norm(33), Sign(), nn.MaxPool2d(2, ceil_mode=True)], ["threshold", "max_pool2d"]),
    "floats between what falls": ([_norm(33), nn.MaxPool2d(2), _norm(33), Sign()],
                                  ["to_float", "affine", "max_pool2d", "affine", "sign"]),
    "pixels with thresholds of their own": (
        [nn.MaxPool2d(2), nn.Flatten(), random_batch_norm(33 * 9), Sign()],
        ["max_pool2d", "reshape", "threshold"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", _POOLS)
def test_i4_max_pool_commutes_with_what_never_falls(kind: str) -> None:
    tail, expected = _POOLS[kind]
    model = nn.Sequential(bnn.BinaryConv2d(5, 33, 2), *tail).eval()
    x = torch.randn(3, 5, 7, 7)
    program = convert(model, x)
    assert _ops(program)[3:][: len(expected)] == expected
    assert_equal(model, program, x)


@pytest.mark.parametrize("kind", ["f32", "u8", "i32", "bits"])
@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": 2, "ceil_mode": True}, {"dilation": 2}])
def test_i4_max_pool_of_every_type(kind: str, options: dict[str, Any]) -> None:
    before: dict[str, nn.Module] = {
        "f32": nn.ReLU(), "u8": bnn.ScalePixels(), "i32": bnn.BinaryConv2d(3, 3, 1), "bits": Sign()
    }  # fmt: skip
    model = nn.Sequential(before[kind], nn.MaxPool2d(3, **options)).eval()
    x = torch.randint(0, 256, (3, 3, 6, 9), dtype=torch.uint8) if kind == "u8" else torch.randn(3, 3, 6, 9)
    program = convert(model, x)
    (pool,) = [n for n in program.nodes if n.op == "max_pool2d"]
    assert program.values[pool.output].dtype.value in (kind, "f32")
    assert_equal(model, program, x)


def test_i5_averages_of_exact_sums_are_pytorchs() -> None:
    averages: dict[str, Any] = {
        "window": nn.AvgPool2d(3, 2, 1),
        "inside only": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        "ceil_mode": nn.AvgPool2d(2, ceil_mode=True),
        "global": nn.AdaptiveAvgPool2d(1),
        "mean": Lambda(lambda x: x.mean((2, 3)), "mean"),
        "rows": Lambda(lambda x: x.mean(-2), "rows"),
        "channels": Lambda(lambda x: x.mean(1, keepdim=True), "channels"),
        "channels, dropped": Lambda(lambda x: x.mean(1), "channels"),
    }
    x = torch.randint(-8, 9, (3, 5, 9, 7)) / 4
    for average, before in zip(averages.values(), cycle((nn.Identity(), Sign(), bnn.BinaryConv2d(5, 33, 1)))):
        model = nn.Sequential(before, average).eval()
        assert_equal(model, convert(model, x), x)
    tiles = nn.AdaptiveAvgPool2d((3, 1)).eval()  # PyTorch divides by the height and by the width in turn
    for name, (found,) in run_everywhere(convert(tiles, x), x.numpy()):
        assert np.allclose(found, tiles(x).numpy(), rtol=4 * EPSILON, atol=0), name
    for wrong in (nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, divisor_override=3)):
        with pytest.raises(ConversionError, match="divisor"):
            convert(wrong.eval(), torch.zeros(2, 3, 6, 6))
    with pytest.raises(ConversionError, match="differ in size"):
        convert(nn.AdaptiveAvgPool2d(4).eval(), x)
    y = torch.randn(3, 33, 5, 7) * 10 ** (torch.rand(3, 33, 5, 7) * 4)
    size = y.double().abs().mean((2, 3)).numpy() * 37 * EPSILON
    for name, (found,) in run_everywhere(convert(averages["mean"].eval(), y), y.numpy()):
        assert (np.abs(found - y.double().mean((2, 3)).numpy()) <= size).all(), name


def test_i6_k_multiplies_the_finished_sum() -> None:
    model = nn.Sequential(
        bnn.BinaryConv2d(8, 33, 2, padding=1, weight_scale="learned", input_scale="xnor"), _norm(33),
        bnn.BinaryConv2d(33, 5, 3, input_scale="xnor"),
    ).eval()  # fmt: skip
    x = torch.randint(-8, 9, (4, 8, 6, 5)) / 4  # dyadic, 8 channels, 4 taps: the first K is exact
    first = model[:2].eval()
    program = convert(first, x)
    assert {"abs", "channel_mean", "avg_pool2d", "mul"} <= set(_ops(program))
    assert_equal(first, program, x)
    whole = convert(model, x)
    assert "sign" in _ops(whole)
    assert "threshold" not in _ops(whole)
    for executor in EXECUTORS.values():
        assert assert_within_tolerance(whole, executor, x.numpy()).signs > 0


def test_i7_a_choice_of_two_numbers_is_exact() -> None:
    def choose(low: float, high: float) -> nn.Module:
        return Lambda(lambda x: torch.where(x >= 0.5, high, low), f"{low}, {high}")

    x = torch.randn(5, 33)
    for low, high in (
        (-1.5507452, 0.4492547),
        (0.1, 0.2),
        (3.0, -1e30),
        (0.0, 0.7),
        (1e-40, 1.0),
        (-0.3, 0.0),
    ):
        model = choose(low, high).eval()
        assert_equal(model, convert(model, x), x)


def test_i7_signs_scaled_by_one_channel() -> None:
    scale, shift = torch.tensor(-0.55).reshape(1, 1, 1), torch.tensor(0.27)

    def forward(x: Tensor) -> Tensor:
        return F.prelu(shift - bnn.quantizers.ste_sign(x) * scale, torch.tensor([0.3]))

    model, x = Lambda(forward, "scaled").eval(), torch.randn(3, 1, 4, 4)
    assert_equal(model, convert(model, x), x)
