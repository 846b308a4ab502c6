"""Every quantizer, inputs of {0, 1} and shift-based BatchNorm on the whole path to the engines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import nn as bnn
from onebit.lowering import ConversionError, convert
from onebit.nn import quantizers
from onebit.program import Program
from parity.agreement import assert_equal
from parity.networks import Lambda, random_batch_norm

INPUTS = [
    name for name in quantizers.names() if getattr(quantizers.create(name), "only_for", "") != "weights"
]
WEIGHTS = [
    name for name in quantizers.names() if getattr(quantizers.create(name), "only_for", "") != "inputs"
]


def ops(program: Program) -> list[str]:
    return [node.op for node in program.nodes]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(21)


def image_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.load_state_dict(random_batch_norm(channels).state_dict())
    return norm


def random_shift_norm(width: int, *, images: bool = False) -> nn.Module:
    """γ of both signs and 0, statistics of many sizes."""
    norm = (bnn.ShiftBatchNorm2d if images else bnn.ShiftBatchNorm1d)(width)
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(width) * 5)
        norm.running_inverse_std.copy_(10 ** (torch.rand(width) * 6 - 3))
        norm.weight.copy_(torch.randn(width) * (torch.rand(width) > 0.15))
        norm.bias.copy_(torch.randn(width) * (torch.rand(width) > 0.15))
    return norm


def stack(layers: list[nn.Module]) -> nn.Sequential:
    """The layers with BatchNorm between them, which leaves a threshold before each but the first."""
    return nn.Sequential(*[m for layer in layers for m in (layer, image_norm(33))][:-1]).eval()


def test_every_quantizer_of_inputs() -> None:
    """One after the other, the padding's zeros included, then again behind pools and flattened."""
    convolutions = [bnn.BinaryConv2d(33, 33, 3, padding=1, input_quantizer=name) for name in INPUTS]
    model = stack([bnn.BinaryConv2d(3, 33, 3, input_quantizer=INPUTS[0]), *convolutions])
    x = torch.randn(3, 3, 7, 7)
    program = convert(model, x)
    assert ops(program).count("threshold") == len(INPUTS) > 5
    assert not [op for op in ops(program) if op.startswith("f32")]
    assert_equal(model, program, x)
    dense: list[nn.Module] = [nn.MaxPool2d(2), image_norm(31), nn.Flatten()]
    for width, name in zip((31 * 4, *[33] * len(INPUTS)), INPUTS, strict=False):
        dense += [bnn.BinaryLinear(width, 33, input_quantizer=name, bias=True), random_batch_norm(33)]
    model = nn.Sequential(bnn.BinaryConv2d(3, 31, 3), *dense).eval()
    x = torch.randn(3, 3, 6, 6)
    program = convert(model, x)
    assert ops(program).count("threshold") == len(INPUTS)
    assert not [op for op in ops(program) if op.startswith("f32")]
    assert_equal(model, program, x)


def test_every_quantizer_of_weights() -> None:
    """α of Libra and of the magnitude-aware sign comes after the sum, so everything is exact."""
    model = stack([bnn.BinaryConv2d(33, 33, 3, padding=1, weight_quantizer=name) for name in WEIGHTS])
    x = torch.randn(2, 33, 5, 5)
    program = convert(model, x)
    assert ops(program).count("threshold") == len(WEIGHTS) - 1 > 6
    assert ops(program).count("binary_conv2d") == len(WEIGHTS)
    assert_equal(model, program, x)


@pytest.mark.parametrize(
    ("groups", "stride", "dilation", "padding_value"),
    [(1, 1, 1, 0), (1, 2, 2, 1), (3, 1, 1, 1), (33, 2, 1, 0)],
)
def test_s5_padding_of_zeros_and_ones(groups: int, stride: int, dilation: int, padding_value: int) -> None:
    """A tap of 0 outside is the sign −1, one of 1 the sign +1; both with the sum of the whole filter."""
    channels = {1: 31, 3: 33, 33: 33}[groups]
    layer = bnn.BinaryConv2d(
        channels, 33, (3, 5), stride, (1, 2), dilation, groups,
        input_quantizer="heaviside", padding_value=padding_value, weight_scale="channel_mean",
    )  # fmt: skip
    model = nn.Sequential(layer, image_norm(33), bnn.quantizers.Heaviside()).eval()
    x = torch.randn(2, channels, 7, 9)
    assert_equal(model, convert(model, x), x)
    alone = layer.eval()
    program = convert(alone, x)
    assert (
        next(n for n in program.nodes if n.op == "binary_conv2d").attrs["padding_value"]
        == 2 * padding_value - 1
    )
    assert_equal(alone, program, x)


def test_one_dimension_and_leading_axes() -> None:
    model = nn.Sequential(
        bnn.BinaryConv1d(5, 33, 3, padding=1, input_quantizer="heaviside"), nn.ReLU()
    ).eval()
    x = torch.randn(2, 5, 11)
    assert_equal(model, convert(model, x), x)
    linear = bnn.BinaryLinear(31, 7, input_quantizer="heaviside").eval()
    x = torch.randn(2, 3, 31)
    assert_equal(linear, convert(linear, x), x)


_TWO_NUMBERS = {
    "zero and one": (lambda x: (x >= 0).float(), True),
    "zero and four": (lambda x: (x >= 0).float() * 4, True),
    "minus a half and a half": (lambda x: (x >= 0).float() - 0.5, True),
    "minus two and zero": (lambda x: (x >= 0).float() * 2 - 2, True),
    "zero and three": (lambda x: (x >= 0).float() * 3, True),
    "a half and two": (lambda x: torch.where(x >= 1, 2.0, 0.5), True),
    "one and zero": (lambda x: (x < 0).float(), True),
    "three and minus five": (lambda x: torch.where(x >= 0, -5.0, 3.0), True),
    "far apart": (lambda x: torch.where(x >= 0, 1.0, 2.0**20), False),
}


@pytest.mark.parametrize("form", _TWO_NUMBERS)
def test_s5_products_of_two_numbers_are_products_of_signs(form: str) -> None:
    """Pairs of small integers up to a power of two become signs; others stay floats, to the same result."""
    function, packed = _TWO_NUMBERS[form]
    model = nn.Sequential(
        bnn.BinaryLinear(33, 65), random_batch_norm(65), Lambda(function, form),
        bnn.BinaryLinear(65, 4, input_quantizer=None),
    ).eval()  # fmt: skip
    x = torch.randn(5, 33)
    program = convert(model, x)
    assert ops(program).count("binary_gemm") == (2 if packed else 1)
    assert ("f32_binary_gemm" in ops(program)) == (not packed)
    assert_equal(model, program, x)


def test_zeros_and_ones_shared_by_binary_and_real_layers() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sign = bnn.Heaviside()
            self.binary, self.real = bnn.BinaryLinear(33, 5, input_quantizer=None), nn.Linear(33, 5)
            with torch.no_grad():
                self.real.weight.copy_(torch.randint(-4, 5, (5, 33)) / 4)
                self.real.bias.zero_()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            bits = self.sign(x)
            return self.binary(bits), self.real(bits), bits

    model, x = Both().eval(), torch.randn(3, 33)
    program = convert(model, x)
    assert {"binary_gemm", "f32_gemm"} < set(ops(program))
    assert_equal(model, program, x)


def test_padding_by_minus_one_has_no_bit_of_heaviside() -> None:
    layer = bnn.BinaryConv2d(3, 4, 3, padding=1, padding_value=-1, input_quantizer="heaviside").eval()
    with pytest.raises(ConversionError, match=r"padded with -1; .* one of \{0, 1\} with signs with 1"):
        convert(layer, torch.randn(2, 3, 5, 5))


def test_padding_written_by_hand_around_zeros_and_ones() -> None:
    class Padded(nn.Module):
        def __init__(self, fill: float) -> None:
            super().__init__()
            self.fill = fill
            self.layer = bnn.BinaryConv2d(5, 33, 3, input_quantizer=None)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(F.pad(bnn.heaviside(x), (1, 1, 1, 1), value=self.fill))

    x = torch.randn(2, 5, 6, 6)
    for fill in (0.0, 1.0, 0.5):
        model = Padded(fill).eval()
        program = convert(model, x)
        assert "binary_conv2d" in ops(program)
        assert_equal(model, program, x)


def test_shift_based_batch_norm_becomes_thresholds() -> None:
    model = nn.Sequential(
        bnn.ScalePixels(), bnn.BinaryConv2d(3, 33, 3, padding=1, input_quantizer=None),
        random_shift_norm(33, images=True), bnn.BinaryConv2d(33, 31, 3), nn.MaxPool2d(2),
        random_shift_norm(31, images=True), nn.Flatten(), bnn.BinaryLinear(31 * 9, 65), random_shift_norm(65),
        bnn.BinaryLinear(65, 10, input_quantizer="heaviside"), random_shift_norm(10),
    ).eval()  # fmt: skip
    x = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    program = convert(model, x)
    assert ops(program).count("threshold") == 3
    assert "sign" not in ops(program)
    assert_equal(model, program, x)


def test_n3_shift_based_batch_norm_is_three_operations() -> None:
    model = nn.Sequential(
        random_shift_norm(33), nn.ReLU(), bnn.BinaryLinear(33, 7), random_shift_norm(7)
    ).eval()
    x = torch.randn(64, 33) * 4
    program = convert(model, x)
    head = ["sub", "mul", "add"]
    assert ops(program) == [*head, "relu", "sign", "binary_gemm", "to_float", *head]
    assert_equal(model, program, x)


def test_a_trained_shift_norm_converts_as_it_evaluates() -> None:
    """The statistics come from training, not from a test's pen."""
    model = nn.Sequential(bnn.BinaryLinear(40, 64), bnn.ShiftBatchNorm1d(64), bnn.BinaryLinear(64, 5))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(50, 40)).square().mean().backward()
        optimizer.step()
    model.eval()
    x = torch.randn(200, 40)
    program = convert(model, x)
    assert ops(program) == ["sign", "binary_gemm", "threshold", "binary_gemm", "to_float"]
    assert model[1].running_mean.abs().min() > 0
    assert_equal(model, program, x)
