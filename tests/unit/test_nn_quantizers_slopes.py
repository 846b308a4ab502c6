"""SwishSign, EDE and heaviside: forward and gradient against formulas written a second time, in float64.

The slopes are derivatives of smooth functions given in the papers; autograd differentiates those functions
here, so that the derivative is not derived twice by one hand.
"""

from __future__ import annotations

import math

import pytest
import torch

from onebit.nn import EDE, Heaviside, SwishSign, ede_sign, heaviside, swish_sign

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def values(dtype: torch.dtype) -> torch.Tensor:
    special = torch.tensor(
        [0.0, -0.0, 1.0, -1.0, 1.0000001, 1e-45, -1e-45, 30.0, -250.0, 1e30, math.inf, -math.inf]
    )
    return torch.cat([special, torch.randn(500, generator=torch.Generator().manual_seed(0)) * 2]).to(dtype)


def gradient(x: torch.Tensor) -> torch.Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)


def slope_of(smooth, x: torch.Tensor) -> torch.Tensor:
    """The derivative of a smooth function, by autograd in float64; 0 at infinity."""
    z = x.double().clamp(-300, 300).requires_grad_()
    smooth(z).sum().backward()
    assert z.grad is not None
    return torch.where(x.isinf(), 0.0, z.grad)


def assert_gradient(quantizer, smooth, dtype: torch.dtype) -> None:
    x = values(dtype).requires_grad_()
    g = gradient(x)
    y = quantizer(x)
    y.backward(g)
    assert y.dtype == dtype
    assert y.tolist() == [1.0 if v >= 0 else -1.0 for v in x.tolist()]
    expected = slope_of(smooth, x.detach()) * g.double()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    rtol = {torch.float32: 2e-5, torch.bfloat16: 2**-8, torch.float64: 1e-9}[dtype]
    torch.testing.assert_close(
        x.grad.double(), expected, rtol=rtol, atol=1e-6 if dtype != torch.float64 else 1e-12
    )
    assert x.grad.count_nonzero() > 100


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [1.0, 5.0, 10.0])
def test_swish_sign(beta: float, dtype: torch.dtype) -> None:
    """BNN+, SS_β(x) = 2σ(βx)·[1 + βx·(1 − σ(βx))] − 1."""

    def signed_swish(x: torch.Tensor) -> torch.Tensor:
        s = torch.sigmoid(beta * x)
        return 2 * s * (1 + beta * x * (1 - s)) - 1

    assert_gradient(lambda x: swish_sign(x, beta), signed_swish, dtype)


def test_the_slope_of_swish_sign_at_known_places() -> None:
    x = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64, requires_grad=True)
    SwishSign(beta=5.0)(x).sum().backward()
    # by hand, β·(2 − βx·tanh(βx/2)) / (1 + cosh βx) at βx = 0, 1, 5
    expected = [
        5.0,
        5 * (2 - math.tanh(0.5)) / (1 + math.cosh(1)),
        5 * (2 - 5 * math.tanh(2.5)) / (1 + math.cosh(5)),
    ]
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx(expected, rel=1e-12)
    assert expected[2] < 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t", [0.1, 0.7, 1.0, 3.0, 10.0])
def test_ede(t: float, dtype: torch.dtype) -> None:
    """IR-Net, g(x) = k·tanh(t·x), k = max(1/t, 1)."""
    k = max(1 / t, 1.0)
    assert_gradient(
        lambda x: ede_sign(x, torch.tensor(t, dtype=torch.float64)), lambda x: k * torch.tanh(t * x), dtype
    )


def test_the_schedule_of_ede_is_geometric() -> None:
    module = EDE(t_min=0.01, t_max=10)
    found = [module.t.item()]
    for fraction in (0.0, 1 / 3, 2 / 3, 1.0):
        module.set_progress_(fraction)
        found.append(module.t.item())
    assert found == pytest.approx([0.01, 0.01, 0.1, 1.0, 10.0], rel=1e-6)


def test_ede_follows_its_schedule() -> None:
    module = EDE()
    slopes = []
    for fraction in (0.0, 0.5, 1.0):
        module.set_progress_(fraction)
        x = torch.tensor([0.0, 0.5], requires_grad=True)
        module(x).sum().backward()
        assert x.grad is not None
        slopes.append(x.grad.tolist())
    t = (0.1, 1.0, 10.0)
    expected = [[max(u, 1), max(u, 1) / math.cosh(u / 2) ** 2] for u in t]
    assert slopes[0] == pytest.approx(expected[0], rel=1e-6)
    assert slopes[1] == pytest.approx(expected[1], rel=1e-6)
    assert slopes[2] == pytest.approx(expected[2], rel=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_heaviside(dtype: torch.dtype) -> None:
    x = values(dtype).requires_grad_()
    g = gradient(x)
    y = heaviside(x)
    y.backward(g)
    assert y.dtype == dtype
    assert y.tolist() == [1.0 if v >= 0 else 0.0 for v in x.tolist()]
    assert x.grad is not None
    assert x.grad.tolist() == [
        gv if abs(v) <= 1 else 0.0 for v, gv in zip(x.tolist(), g.tolist(), strict=True)
    ]


def test_heaviside_has_a_window_and_no_gradient_for_nan() -> None:
    x = torch.tensor([math.nan, 1.4, -1.6, 2.0], requires_grad=True)
    y = Heaviside(window=1.5)(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SwishSign(beta=0), "beta must be positive; got 0"),
        (lambda: Heaviside(window=-1.0), "window must be positive; got -1.0"),
        (lambda: EDE(t_min=0), "t_min must be positive; got 0"),
        (lambda: EDE(t_min=2, t_max=1), "t_max must be at least t_min, 2; got 1"),
    ],
)
def test_nonsense_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
