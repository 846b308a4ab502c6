"""BinaryLinear against dense arithmetic written out here with integers and fractions of two."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from onebit.nn import BinaryLinear, SteSign, StochasticSign

SIZES = [(1, 1), (31, 33), (32, 1), (33, 32), (63, 65), (64, 64), (65, 63), (511, 7)]


def dyadic(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random multiples of 1/8 in [-2, 2], zero included: sums of their products are exact in any order."""
    return torch.randint(-16, 17, shape, generator=torch.Generator().manual_seed(seed)) / 8


def signs(x: torch.Tensor) -> torch.Tensor:
    """±1 as int64."""
    return torch.where(x < 0, -1, 1)


@pytest.mark.parametrize(("fan_in", "fan_out"), SIZES)
def test_both_sides_binary_gives_the_integer_sum(fan_in: int, fan_out: int) -> None:
    layer = BinaryLinear(fan_in, fan_out)
    with torch.no_grad():
        layer.weight.copy_(dyadic(fan_out, fan_in, seed=1))
    x = dyadic(5, fan_in)
    expected = (signs(x)[:, None, :] * signs(layer.weight)[None]).sum(-1)
    y = layer(x)
    assert y.dtype == torch.float32
    assert y.tolist() == expected.tolist()


@pytest.mark.parametrize(("fan_in", "fan_out"), SIZES)
def test_real_input_binary_weight(fan_in: int, fan_out: int) -> None:
    layer = BinaryLinear(fan_in, fan_out, input_quantizer=None)
    x = dyadic(3, 2, fan_in)
    expected = (x[..., None, :].double() * signs(layer.weight).double()).sum(-1)
    assert layer(x).tolist() == expected.tolist()


def test_without_weight_quantizer_it_is_a_real_layer() -> None:
    layer = BinaryLinear(33, 5, input_quantizer=None, weight_quantizer=None, bias=True)
    with torch.no_grad():
        layer.weight.copy_(dyadic(5, 33, seed=1))
        layer.bias.copy_(dyadic(5, seed=2))
    x = dyadic(4, 33)
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    assert torch.equal(layer(x).double(), expected)
    assert layer.latent_parameters() == []


def test_scale_and_bias_come_after_the_integer_sum() -> None:
    """With factors that round, only (sum * scale) + bias in separate roundings gives these floats."""
    layer = BinaryLinear(511, 65, weight_scale="learned", bias=True).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        layer.scale.copy_(torch.rand(65, generator=generator))
        layer.bias.copy_(torch.randn(65, generator=generator))
    x = torch.randn(33, 511, generator=generator)
    total = (signs(x)[:, None, :] * signs(layer.weight)[None]).sum(-1).numpy().astype("float32")
    expected = (total * layer.scale.detach().numpy()) + layer.bias.detach().numpy()  # NumPy: float32, no fma
    assert layer(x).tolist() == expected.tolist()


def test_channel_mean_is_the_mean_of_the_latent_magnitudes() -> None:
    layer = BinaryLinear(64, 33, weight_scale="channel_mean")
    with torch.no_grad():
        layer.weight.copy_(dyadic(33, 64, seed=1))
    x = dyadic(5, 64)
    alpha = layer.weight.abs().sum(1).double() / 64
    expected = (signs(x)[:, None, :] * signs(layer.weight)[None]).sum(-1).double() * alpha
    assert torch.equal(layer(x).double(), expected)


def test_channel_mean_gradient_is_the_exact_one() -> None:
    """dC/dw_i = sign(w_i)/n · Σ_j g_j·sign(w_j) + α·g_i·1[|w_i| <= 1], g the gradient at α·sign(w)."""
    n = 31
    layer = BinaryLinear(n, 1, input_quantizer=None, weight_scale="channel_mean").double()
    w = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1.5
    x = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.weight.copy_(w[None])
    layer(x[None]).sum().backward()
    alpha = w.abs().mean()
    sign = signs(w).double()
    expected = sign / n * (x * sign).sum() + alpha * x * ((w >= -1) & (w <= 1))
    assert ((w < -1) | (w > 1)).any()
    torch.testing.assert_close(layer.weight.grad[0], expected)


def test_learned_scale_starts_at_the_mean_and_learns() -> None:
    layer = BinaryLinear(65, 7, weight_scale="learned")
    torch.testing.assert_close(layer.scale.detach(), layer.weight.detach().abs().sum(1) / 65)
    layer(dyadic(3, 65)).sum().backward()
    assert layer.scale.grad.count_nonzero() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [None, "channel_mean", "learned"])
@pytest.mark.parametrize("quantizer", ["ste_sign", "stochastic_sign"])
def test_compiled_equals_eager(quantizer: str, scale: str | None, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    layer = BinaryLinear(
        65, 33, input_quantizer=quantizer, weight_quantizer=quantizer, weight_scale=scale, bias=True
    ).to(dtype)
    results = []
    for function in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(3)
        layer.zero_grad()
        x = dyadic(9, 65).to(dtype).requires_grad_()
        y = function(x)
        (y * dyadic(9, 33, seed=5).to(dtype)).sum().backward()
        results.append([y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())])
    for eager, fast in zip(*results, strict=True):
        assert torch.equal(eager, fast)
        assert eager.count_nonzero() > 0


def test_uniform_and_glorot_start() -> None:
    torch.manual_seed(0)
    wide = BinaryLinear(511, 257).weight
    assert 0.99 < wide.abs().max() <= 1
    assert abs(wide.var().item() - 1 / 3) < 0.01
    narrow = BinaryLinear(511, 257, init="glorot").weight
    bound = (6 / (511 + 257)) ** 0.5
    assert 0.99 * bound < narrow.abs().max() <= bound


def test_names_modules_and_none_select_the_quantizer() -> None:
    own = SteSign()
    layer = BinaryLinear(3, 2, input_quantizer=own, weight_quantizer="stochastic_sign")
    assert layer.input_quantizer is own
    assert isinstance(layer.weight_quantizer, StochasticSign)
    assert BinaryLinear(3, 2, input_quantizer=None).input_quantizer is None
    assert layer.latent_parameters()[0] is layer.weight


def test_stochastic_quantizers_follow_the_mode_of_the_layer() -> None:
    layer = BinaryLinear(65, 33, input_quantizer="stochastic_sign", weight_quantizer="stochastic_sign")
    x = dyadic(5, 65)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert layer(x).tolist() == (signs(x)[:, None, :] * signs(layer.weight)[None]).sum(-1).tolist()


def test_state_dict_and_deepcopy_round_trip() -> None:
    layer = BinaryLinear(33, 5, weight_scale="learned", bias=True)
    assert sorted(layer.state_dict()) == ["bias", "scale", "weight"]
    other = BinaryLinear(33, 5, weight_scale="learned", bias=True)
    other.load_state_dict(layer.state_dict())
    x = dyadic(4, 33)
    assert torch.equal(other(x), layer(x))
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    assert twin.latent_parameters()[0] is twin.weight


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"in_features": 0}, ValueError, "in_features must be a positive integer; got 0"),
        ({"out_features": -3}, ValueError, "out_features must be a positive integer; got -3"),
        ({"in_features": 2.0}, ValueError, "in_features must be a positive integer; got 2.0"),
        ({"out_features": True}, ValueError, "out_features must be a positive integer; got True"),
        (
            {"weight_scale": "mean"},
            ValueError,
            "weight_scale must be one of None, 'channel_mean', 'channel_mean_loose', .*'learned'; got 'mean'",
        ),
        ({"input_scale": "K"}, ValueError, "input_scale must be one of None, 'xnor'; got 'K'"),
        (
            {"input_scale": "xnor", "input_quantizer": None},
            ValueError,
            "input_scale='xnor'.*with input_quantizer=None there is none",
        ),
        ({"init": "normal"}, ValueError, "init must be one of 'uniform', 'glorot'; got 'normal'"),
        ({"input_quantizer": "sign"}, ValueError, "unknown quantizer 'sign'"),
        ({"weight_quantizer": 1}, TypeError, "weight_quantizer must be a name .*'ste_sign'.*; got 1"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        BinaryLinear(**{"in_features": 4, "out_features": 3, **options})


@pytest.mark.parametrize("shape", [(2, 34), (), (33, 2)])
def test_wrong_input_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"BinaryLinear\(33, 5\) takes inputs of shape \(\.\.\., 33\); got"):
        BinaryLinear(33, 5)(torch.zeros(shape))


def test_repr_shows_what_differs_from_the_default() -> None:
    text = repr(nn.Sequential(BinaryLinear(4, 3, input_quantizer=None, weight_scale="learned", bias=True)))
    assert "4, 3, weight_scale='learned', bias=True, input_quantizer=None" in text
