"""Quantizers against formulas written a second time here, eager and compiled."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from onebit.nn import SteSign, StochasticSign, approx_sign, quantizers, ste_sign, stochastic_sign

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.0000001,
    -1.0000001,
    1e-45,
    -1e-45,
    0.5,
    -0.5,
    3.0,
    -3.0,
    math.inf,
    -math.inf,
]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def values(dtype: torch.dtype, n: int = 511, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.tensor(SPECIAL), torch.randn(n, generator=generator)]).to(dtype)


def sample(name: str, dtype: torch.dtype) -> torch.Tensor:
    """Something the quantizer takes: every special value, or filters of weights for those that want them."""
    if getattr(quantizers.create(name), "only_for", None) == "weights":
        return torch.randn(7, 75, generator=torch.Generator().manual_seed(0)).to(dtype)
    return values(dtype)


def expected_sign(x: torch.Tensor) -> list[float]:
    return [1.0 if v == 0 or v > 0 else -1.0 for v in x.tolist()]


def expected_gradient(x: torch.Tensor, g: torch.Tensor) -> list[float]:
    return [gv if -1 <= v <= 1 else 0.0 for v, gv in zip(x.tolist(), g.tolist(), strict=True)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_is_the_sign_with_sign_of_zero_plus_one(dtype: torch.dtype) -> None:
    x = values(dtype)
    y = ste_sign(x)
    assert y.dtype == dtype
    assert y.tolist() == expected_sign(x)
    assert y.data_ptr() != x.data_ptr()


def test_nan_becomes_minus_one_without_gradient() -> None:
    x = torch.tensor([math.nan, 0.5], requires_grad=True)
    y = ste_sign(x)
    y.sum().backward()
    assert y.tolist() == [-1.0, 1.0]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantizer", [ste_sign, stochastic_sign])
def test_gradient_passes_inside_the_window_and_stops_outside(quantizer, dtype: torch.dtype) -> None:
    x = values(dtype).requires_grad_()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    quantizer(x).backward(g)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.tolist() == expected_gradient(x, g)


def test_infinite_gradient_outside_the_window_stays_out() -> None:
    x = torch.tensor([2.0, 0.0], requires_grad=True)
    ste_sign(x).backward(torch.tensor([math.inf, 1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0]


def test_latent_weights_on_the_clip_boundary_are_not_frozen() -> None:
    weight = torch.tensor([1.0, -1.0], requires_grad=True)
    ste_sign(weight).backward(torch.tensor([0.25, -0.25]))
    assert weight.grad is not None
    assert weight.grad.tolist() == [0.25, -0.25]


@pytest.mark.parametrize("x", [-0.9, -0.5, -0.1, 0.0, 0.3, 0.75])
def test_stochastic_probability_is_the_hard_sigmoid(x: float) -> None:
    n = 100_000
    draw = stochastic_sign(torch.full((n,), x), generator=torch.Generator().manual_seed(7))
    assert set(draw.tolist()) == {-1.0, 1.0}
    p = (x + 1) / 2
    frequency = (draw == 1).double().mean().item()
    assert abs(frequency - p) < 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stochastic_is_certain_outside_the_window(dtype: torch.dtype) -> None:
    for x, sign in ((1.0, 1.0), (1.5, 1.0), (math.inf, 1.0), (-1.0, -1.0), (-7.0, -1.0), (-math.inf, -1.0)):
        draw = stochastic_sign(torch.full((4097,), x, dtype=dtype))
        assert draw.dtype == dtype
        assert set(draw.tolist()) == {sign}


def test_stochastic_noise_of_bfloat16_is_finer_than_bfloat16() -> None:
    x = torch.full((200_000,), -1 + 2**-7, dtype=torch.bfloat16)  # p = 2^-8
    draw = stochastic_sign(x, generator=torch.Generator().manual_seed(3))
    frequency = (draw == 1).double().mean().item()
    assert abs(frequency - 2**-8) < 5 * math.sqrt(2**-8 / x.numel())


def test_stochastic_sign_is_deterministic_in_eval_mode() -> None:
    x = values(torch.float32)
    module = StochasticSign().eval()
    assert module(x).tolist() == expected_sign(x)
    module.train()
    inside = torch.zeros(4096)
    assert 0 < (module(inside) == 1).sum().item() < 4096


def test_real_in_eval_returns_the_latent_values_in_eval_mode_only() -> None:
    x = values(torch.float32)
    module = StochasticSign(real_in_eval=True).eval()
    assert torch.equal(module(x), x)
    assert set(module.train()(x).tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("quantizer", [ste_sign, approx_sign, stochastic_sign, SteSign(), StochasticSign()])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_are_refused_and_the_way_out_is_named(quantizer, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"{dtype}.*ScalePixels"):
        quantizer(torch.zeros(3, dtype=dtype))


# Compiled equals eager, exactly, in one graph (fullgraph=True raises at a graph break).


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", quantizers.names())
def test_compiled_equals_eager(name: str, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    quantizer = quantizers.create(name)
    compiled = torch.compile(quantizer, backend="aot_eager", fullgraph=True)
    g = torch.randn(sample(name, dtype).shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    results = []
    for function in (quantizer, compiled):
        torch.manual_seed(11)
        x = sample(name, dtype).requires_grad_()
        y = function(x)
        y.backward(g)
        results.append((y.detach(), x.grad))
    (eager, eager_grad), (fast, fast_grad) = results
    assert torch.equal(eager, fast)
    assert torch.equal(eager_grad, fast_grad)
    assert eager_grad.count_nonzero() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", quantizers.names())
def test_compiled_inside_a_graph_keeps_its_gradient(name: str, dtype: torch.dtype) -> None:
    """The quantizer between other operations, where an alias would lose the gradient (pytorch#180642)."""
    torch.compiler.reset()
    quantizer = quantizers.create(name)

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (quantizer(x * 0.5) @ quantizer(w)).sum(dim=0)

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    generator = torch.Generator().manual_seed(4)
    data = [
        torch.randn(33, 65, generator=generator).to(dtype),
        torch.randn(65, 7, generator=generator).to(dtype),
    ]
    g = torch.randn(7, generator=generator).to(dtype)
    results = []
    for run in (function, compiled):
        torch.manual_seed(5)
        inputs = [t.clone().requires_grad_() for t in data]
        y = run(*inputs)
        y.backward(g)
        results.append([y.detach(), *(t.grad for t in inputs)])
    for eager, fast in zip(*results, strict=True):
        assert torch.equal(eager, fast)
        assert eager.count_nonzero() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", quantizers.names())
def test_an_empty_input_gives_an_empty_output_and_gradient(name: str, dtype: torch.dtype) -> None:
    x = torch.zeros(0, 5, dtype=dtype, requires_grad=True)
    y = quantizers.create(name)(x)
    y.sum().backward()
    assert y.shape == (0, 5)
    assert y.dtype == dtype
    assert x.grad is not None
    assert x.grad.shape == (0, 5)


@pytest.mark.parametrize("name", quantizers.names())
def test_integers_are_refused_by_every_module(name: str) -> None:
    with pytest.raises(TypeError, match=r"int64.*ScalePixels"):
        quantizers.create(name)(torch.zeros(3, 3, dtype=torch.int64))


def test_create_by_name_makes_new_modules() -> None:
    assert quantizers.names() == [
        *("approx_sign", "ede", "heaviside", "libra", "magnitude_aware_sign", "recu"),
        *("ste_sign", "stochastic_sign", "swish_sign"),
    ]
    assert isinstance(quantizers.create("ste_sign"), SteSign)
    assert quantizers.create("stochastic_sign", real_in_eval=True).real_in_eval is True
    assert quantizers.create("ste_sign") is not quantizers.create("ste_sign")


def test_unknown_name_lists_the_near_and_the_known() -> None:
    with pytest.raises(ValueError, match=r"'ste_sing'.*did you mean 'ste_sign'.*'stochastic_sign'"):
        quantizers.create("ste_sing")


def test_duplicate_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'ste_sign' is already registered"):

        @quantizers.register("ste_sign")
        class Other(nn.Module):
            pass

    assert isinstance(quantizers.create("ste_sign"), SteSign)


@pytest.mark.parametrize("dtype", DTYPES)
def test_approx_sign_is_the_sign_with_the_gradient_of_a_quadratic(dtype: torch.dtype) -> None:
    x = values(dtype).requires_grad_()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    y = approx_sign(x)
    y.backward(g)
    assert y.tolist() == expected_sign(x)
    assert x.grad is not None
    # d/dx of 2x + x² left of 0 and of 2x - x² right of it, by hand, in float64
    slope = [2 + 2 * v if -1 < v < 0 else 2 - 2 * v if 0 <= v < 1 else 0.0 for v in x.tolist()]
    expected = torch.tensor([s * gv for s, gv in zip(slope, g.tolist(), strict=True)], dtype=torch.float64)
    torch.testing.assert_close(x.grad.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-40)


def test_approx_sign_keeps_infinite_gradients_outside_its_window() -> None:
    x = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    approx_sign(x).backward(torch.tensor([math.inf, -math.inf, 3.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 3.0]


def test_ste_window_may_be_another() -> None:
    x = torch.tensor([1.25, 1.2500001, -1.25, -1.3, 1.1], requires_grad=True)
    SteSign(window=1.25)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]
    for bad in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"window must be positive; got {bad!r}"):
            SteSign(window=bad)
