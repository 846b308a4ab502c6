"""Each layer, and each way to write it, by itself: what it becomes, and that it equals PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import nn as bnn
from onebit.lowering import convert
from onebit.program import DType, Program
from parity.agreement import assert_equal, assert_hidden_bits_equal
from parity.networks import Affine, Lambda, Residual, random_batch_norm


def ops(program: Program) -> list[str]:
    return [node.op for node in program.nodes]


def pixels(batch: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20)


def test_bytes_times_signs_stay_integer_up_to_the_first_threshold() -> None:
    model = nn.Sequential(
        bnn.ScalePixels(),
        nn.Flatten(),
        bnn.BinaryLinear(63, 65, input_quantizer=None),
        random_batch_norm(65),
        bnn.BinaryLinear(65, 31),
        random_batch_norm(31),
        bnn.BinaryLinear(31, 10),
        random_batch_norm(10),
    ).eval()
    x = pixels(3, 7, 9)
    program = convert(model, x[:1])
    assert program.values[program.inputs[0]].shape == (7, 9)
    assert ops(program) == [
        *("reshape", "u8_gemm", "threshold"),
        *("binary_gemm", "threshold"),
        *("binary_gemm", "to_float", "affine"),
    ]
    assert dict(program.nodes[1].attrs) == {"multiplier": 2, "offset": -255}
    assert_equal(model, program, x)
    assert assert_hidden_bits_equal(model, program, x) > 0


_BYTE_FORMS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, int] | None]] = {
    "plain floats": (lambda x: x.float(), (1, 0)),
    "scaled by hand": (lambda x: (x.float() * 2 - 255) / 256, (2, -255)),
    "centred": (lambda x: 127.5 - x.to(torch.float32), (-2, 255)),
    "halved, negated": (lambda x: -(x.float() / 2 + 3), (-1, -6)),
    "0 to 1, which rounds": (lambda x: x.float() / 255, None),
    "clamped, which bends": (lambda x: x.float().clamp(10, 200), None),
}


@pytest.mark.parametrize("form", _BYTE_FORMS)
def test_bytes_scaled_by_hand_are_recognised_when_the_scaling_is_exact(form: str) -> None:
    function, expected = _BYTE_FORMS[form]
    model = nn.Sequential(
        Lambda(function, form), nn.Flatten(), bnn.BinaryLinear(33, 64, input_quantizer=None)
    ).eval()
    x = pixels(3, 33)
    program = convert(model, x)
    gemm = next(node for node in program.nodes if node.op.endswith("gemm"))
    if expected is None:
        assert gemm.op == "f32_binary_gemm"
    else:
        assert (gemm.attrs["multiplier"], gemm.attrs["offset"]) == expected
        assert_equal(model, program, x)


def test_pixels_whose_sign_is_taken_and_pixels_into_real_weights() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels = bnn.ScalePixels()
            self.binary = bnn.BinaryLinear(32, 5)
            self.real = nn.Linear(32, 5, bias=False)
            with torch.no_grad():
                self.real.weight.copy_(torch.randint(-4, 5, (5, 32)) / 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.pixels(x)
            return self.binary(y), self.real(y)

    model, x = Both().eval(), pixels(3, 32)
    program = convert(model, x)
    assert sorted(ops(program)) == ["binary_gemm", "f32_gemm", "scale_pixels", "sign", "to_float"]
    assert_equal(model, program, x)


_HAND_WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "where, numbers": lambda x: torch.where(x >= 0, 1.0, -1.0),
    "where, integers": lambda x: torch.where(x >= 0, 1, -1).float(),
    "where, tensors": lambda x: torch.where(x >= 0, torch.tensor(1.0), torch.tensor(-1.0)),
    "where, like": lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)),
    "where, below": lambda x: torch.where(x < 0, -1.0, 1.0),
    "bool times 2 minus 1": lambda x: ((x >= 0) * 2 - 1).to(x.dtype),
    "float times 2 minus 1": lambda x: (x >= 0).float() * 2 - 1,
    "1 minus 2 times": lambda x: 1 - 2 * (x < 0).float(),
    "difference of halves": lambda x: (x >= 0).float() - (x < 0).float(),
    "not below": lambda x: (~(x < 0)).float().mul(2).sub(1),
    "0 <= x": lambda x: (0 <= x).float() * 2 - 1,  # noqa: SIM300
}


@pytest.mark.parametrize("form", _HAND_WRITTEN)
def test_a_sign_written_by_hand_becomes_a_threshold(form: str) -> None:
    model = nn.Sequential(
        bnn.BinaryLinear(33, 65), random_batch_norm(65), Lambda(_HAND_WRITTEN[form], form),
        bnn.BinaryLinear(65, 4, input_quantizer=None),
    ).eval()  # fmt: skip
    x = torch.randn(3, 33)
    program = convert(model, x)
    assert ops(program) == ["sign", "binary_gemm", "threshold", "binary_gemm", "to_float"]
    assert_equal(model, program, x)


_COMPARISONS: dict[str, Callable[[Tensor], Tensor]] = {
    "above": lambda x: (x > 0).float() * 2 - 1,
    "at most": lambda x: (x <= 0).float() * 2 - 1,
    "at least 3": lambda x: (x >= 3).float() * 2 - 1,
    "above 3": lambda x: torch.where(x > 3, 1.0, -1.0),
    "below a vector": lambda x: torch.where(x < torch.arange(65.0) - 30, 1.0, -1.0),
    "0 and 1": lambda x: (x >= 0).float(),
    "half or 2": lambda x: torch.where(x >= 1, 2.0, 0.5),
    "sign of minus sign": lambda x: bnn.quantizers.ste_sign(-bnn.quantizers.ste_sign(x)),
}


@pytest.mark.parametrize("form", _COMPARISONS)
def test_other_comparisons_equal_pytorch(form: str) -> None:
    model = nn.Sequential(
        bnn.BinaryLinear(33, 65),
        Lambda(_COMPARISONS[form], form),
        bnn.BinaryLinear(65, 4, input_quantizer=None),
    ).eval()
    x = torch.randn(5, 33)
    program = convert(model, x)
    assert "threshold" in ops(program)
    assert_equal(model, program, x)
    exact = torch.tensor([[1.0] * 18 + [-1.0] * 15])  # sums of exactly 3 and 0 exist among these
    assert_equal(model, program, torch.cat([exact, -exact, exact.roll(5, 1)]))


def test_a_sign_used_in_several_places_is_computed_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = bnn.BinaryLinear(32, 33), random_batch_norm(33)
            self.a, self.b = bnn.BinaryLinear(33, 7), bnn.BinaryLinear(33, 7)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y = self.norm(self.first(x))
            return self.a(y), self.b(y) * 0.3, bnn.quantizers.ste_sign(y)

    model, x = Shared().eval(), torch.randn(3, 32)
    program = convert(model, x)
    assert ops(program).count("threshold") == 1
    assert program.values[program.outputs[2]].dtype is DType.BITS
    assert_equal(model, program, x)


def test_an_accumulator_that_is_also_used_as_a_number() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = (
                bnn.BinaryLinear(64, 64),
                random_batch_norm(64),
                bnn.BinaryLinear(64, 64),
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            sums = self.first(x)
            scaled = self.norm(sums)
            return self.last(scaled) + sums * 0.1, scaled

    model, x = Twice().eval(), torch.randn(3, 64)
    program = convert(model, x)
    assert {"threshold", "affine", "to_float"} <= set(ops(program))
    assert_equal(model, program, x)


def test_residual_sums_of_floats_and_of_signs() -> None:
    body = nn.Sequential(bnn.BinaryLinear(33, 33), random_batch_norm(33))
    model = nn.Sequential(
        bnn.BinaryLinear(31, 33), random_batch_norm(33), bnn.quantizers.SteSign(), Residual(body),
        Residual(nn.Sequential(bnn.BinaryLinear(33, 33), nn.Hardtanh())), bnn.BinaryLinear(33, 5),
    ).eval()  # fmt: skip
    x = torch.randn(3, 31)
    program = convert(model, x)
    assert ops(program).count("add") == 2
    assert_equal(model, program, x)


def test_several_inputs_and_outputs() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.numbers = (
                bnn.BinaryLinear(36, 65, input_quantizer=None),
                bnn.BinaryLinear(31, 65),
            )
            self.pixels = bnn.ScalePixels()

        def forward(self, image: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            a = self.image(self.pixels(image).flatten(1))
            b = self.numbers(numbers)
            return a, b, a - b, a

    model, x, y = Pair().eval(), pixels(3, 4, 9), torch.randn(3, 31)
    program = convert(model, (x, y))
    assert [str(program.values[name]) for name in program.inputs] == ["u8[4, 9]", "f32[31]"]
    assert len(set(program.outputs)) == 4
    assert_equal(model, program, x, y)


def test_an_input_may_be_an_output_and_may_go_unused() -> None:
    model = Lambda(lambda x: x, "x").eval()
    assert_equal(model, convert(model, torch.randn(2, 5)), torch.randn(3, 5))

    class Ignores(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return y + 1

    x, y = torch.randn(3, 5), torch.randn(3, 2)
    assert_equal(Ignores().eval(), convert(Ignores().eval(), (x, y)), x, y)


_VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(1),
    "view, batch named": lambda x: x.view(x.shape[0], -1),
    "view, batch free": lambda x: x.view(-1, 36),
    "reshape": lambda x: x.reshape(x.size(0), 36),
    "through another shape": lambda x: x.reshape(-1, 2, 18).unsqueeze(2).flatten(2).view(x.shape[0], 36),
    "squeeze": lambda x: x.view(-1, 36, 1).squeeze(2),
    "contiguous": lambda x: x.contiguous().flatten(start_dim=1).clone().detach(),
}


@pytest.mark.parametrize("kind", ["bytes", "pixels", "floats", "signs"])
@pytest.mark.parametrize("form", _VIEWS)
def test_views_that_keep_the_batch(form: str, kind: str) -> None:
    before: dict[str, nn.Module] = {
        "pixels": bnn.ScalePixels(), "signs": bnn.quantizers.SteSign()
    }  # fmt: skip
    after = [bnn.ScalePixels()] if kind == "bytes" else []
    model = nn.Sequential(
        before.get(kind, nn.Identity()), Lambda(_VIEWS[form], form), *after,
        bnn.BinaryLinear(36, 31, input_quantizer="ste_sign" if kind == "floats" else None),
    ).eval()  # fmt: skip
    x = torch.randn(3, 4, 9) if kind in ("floats", "signs") else pixels(3, 4, 9)
    program = convert(model, x)
    assert not [node for node in program.nodes if node.op.startswith("f32")]
    assert_equal(model, program, x)


def test_a_sign_after_a_view_still_becomes_a_threshold() -> None:
    model = nn.Sequential(
        bnn.BinaryLinear(33, 64), random_batch_norm(64), nn.Unflatten(1, (8, 8)), bnn.quantizers.SteSign(),
        nn.Flatten(), bnn.BinaryLinear(64, 3, input_quantizer=None),
    ).eval()  # fmt: skip
    x = torch.randn(3, 33)
    program = convert(model, x)
    assert ops(program) == [
        "sign",
        "binary_gemm",
        "threshold",
        "reshape",
        "reshape",
        "binary_gemm",
        "to_float",
    ]
    assert_equal(model, program, x)


def test_products_over_leading_axes() -> None:
    model = nn.Sequential(
        bnn.BinaryLinear(31, 33), Affine(33), bnn.BinaryLinear(33, 5, weight_scale="channel_mean")
    ).eval()
    x = torch.randn(3, 4, 2, 31)
    program = convert(model, x)
    assert "threshold" in ops(program)
    assert_equal(model, program, x)


def test_signs_into_real_weights_and_a_fused_bias() -> None:
    model = nn.Sequential(bnn.BinaryLinear(31, 64), bnn.quantizers.SteSign(), nn.Linear(64, 10)).eval()
    with torch.no_grad():  # dyadic, so that PyTorch's own order of summation does not matter
        model[2].weight.copy_(torch.randint(-8, 9, (10, 64)) / 8)
        model[2].bias.copy_(torch.randint(-8, 9, (10,)) / 8)
    x = torch.randn(3, 31)
    program = convert(model, x)
    assert ops(program) == ["sign", "binary_gemm", "threshold", "to_float", "f32_gemm", "add"]
    assert_equal(model, program, x)


def test_weights_scaled_by_hand_keep_their_one_bit() -> None:
    class ScaledInside(nn.Module):
        """XNOR-Net as many write it: α times the signs, before the product."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(7, 64))
            self.power = 2.0 ** torch.arange(-3, 4)  # dyadic α: PyTorch's sum is exact

        def forward(self, x: Tensor) -> Tensor:
            signs = torch.where(self.weight >= 0, 1.0, -1.0)
            return F.linear(bnn.quantizers.ste_sign(x), signs * self.power[:, None])

    model, x = ScaledInside().eval(), torch.randn(3, 64)
    program = convert(model, x)
    assert ops(program) == ["sign", "binary_gemm", "to_float", "mul"]
    assert_equal(model, program, x)


@pytest.mark.parametrize("form", ["matmul", "mm", "addmm", "functional"])
def test_products_written_by_hand(form: str) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(33, 5))
            self.register_buffer("bias", torch.ones(5))

        def forward(self, x: Tensor) -> Tensor:
            w = bnn.quantizers.ste_sign(self.weight)
            x = bnn.quantizers.ste_sign(x)
            match form:
                case "matmul":
                    return x @ w
                case "mm":
                    return torch.mm(x, w)
                case "addmm":
                    return torch.addmm(self.bias, x, w)
            return F.linear(x, w.t(), self.bias)

    model, x = Product().eval(), torch.randn(3, 33)
    program = convert(model, x)
    assert "binary_gemm" in ops(program)
    assert_equal(model, program, x)


_ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + 0.1,
    "add, other side": lambda x: 0.1 + x,
    "sub": lambda x: x - torch.arange(31.0) * 0.1,
    "rsub": lambda x: 0.1 - x,
    "mul": lambda x: x * 0.1,
    "div": lambda x: x / 3,
    "rdiv": lambda x: 3 / (x + 1000),
    "neg": lambda x: -x,
    "square": lambda x: x * x,
    "self": lambda x: x / (x + 1000) - x,
    "alpha 2": lambda x: torch.add(x, x * 0.3, alpha=2) - torch.sub(x, x * 0.7, alpha=0.5),
    "rsub alpha": lambda x: torch.rsub(x, x * 0.3, alpha=4),
    "alpha and a number": lambda x: torch.add(x, 3.25, alpha=0.5) * torch.sub(x, 0.1, alpha=2),
    "alpha and a constant": lambda x: torch.sub(torch.add(x, torch.arange(31.0), alpha=3), 7, alpha=5),
    "in place": lambda x: (x * 0.1).add_(1).mul_(0.3).relu_(),
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "clamp both": lambda x: x.clamp(-1.3, 0.7),
    "clamp low": lambda x: x.clamp(min=-1.3),
    "clamp high": lambda x: x.clamp(max=0.7),
    "clamp_min": lambda x: torch.clamp_min(x, 0.3),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "leaky, negative": lambda x: F.leaky_relu(x, -0.2),
    "float64 number": lambda x: x * torch.tensor(0.1, dtype=torch.float64),
    "integers": lambda x: x * torch.arange(31),
    "one row": lambda x: x + torch.arange(31.0)[None] * 0.3,
}


@pytest.mark.parametrize("form", _ELEMENTWISE)
def test_arithmetic_equals_pytorch(form: str) -> None:
    model = nn.Sequential(
        bnn.BinaryLinear(65, 31),
        random_batch_norm(31),
        Lambda(_ELEMENTWISE[form], form),
        bnn.BinaryLinear(31, 9),
    ).eval()
    x = torch.randn(5, 65)
    assert_equal(model, convert(model, x), x)
    head = model[:3].eval()
    assert_equal(head, convert(head, x), x)


def test_shared_layers_and_repeated_weights() -> None:
    layer, norm = bnn.BinaryLinear(64, 64, weight_scale="learned"), random_batch_norm(64)
    model = nn.Sequential(layer, norm, layer, norm, layer).eval()
    x = torch.randn(3, 64)
    program = convert(model, x)
    assert (
        sum(c.type.dtype is DType.BITS and c.type.shape == (64, 64) for c in program.constants.values()) == 1
    )
    assert_equal(model, program, x)


def test_names_come_from_the_model() -> None:
    model = nn.Sequential(
        nn.Sequential(bnn.BinaryLinear(8, 9), nn.BatchNorm1d(9)),
        bnn.BinaryLinear(9, 2, weight_scale="learned"),
    ).eval()
    program = convert(model, torch.randn(2, 8), name="tiny")
    assert program.metadata["name"] == "tiny"
    assert {"0.0.weight", "1.weight", "1.scale", "0.1.thresholds", "0.1.flip"} == set(program.constants)
    assert program.outputs == ("output",)
    assert [node.layer for node in program.nodes if node.op == "binary_gemm"] == ["0.0", "1"]


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(bnn.BinaryLinear(8, 9), random_batch_norm(9)).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    program = convert(model, torch.randn(1, 8))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    stored = program.constants["1.shift"].array.copy()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3)
    assert np.array_equal(stored, program.constants["1.shift"].array)


def test_a_compiled_model_is_converted_as_what_it_wraps() -> None:
    model = nn.Sequential(bnn.BinaryLinear(8, 9), random_batch_norm(9)).eval()
    x = torch.randn(3, 8)
    program = convert(torch.compile(model), x)
    assert [node.layer for node in program.nodes] == ["0.input_quantizer", "0", "1", "1"]
    assert program.metadata["name"] == "Sequential"
    assert_equal(model, program, x)
