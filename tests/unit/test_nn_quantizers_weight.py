"""Magnitude-aware sign, Libra and ReCU, forward and gradient, in NumPy, filter by filter, from the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onebit.nn import BinaryConv2d, BinaryLinear, LibraSign, MagnitudeAwareSign, ReCU

F64 = np.ndarray
SHAPES = [(4, 9), (6, 5, 3, 3), (3, 7, 5), (5, 1)]


def weight(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent weights, some beyond ±1 and one exactly at 1, and a gradient."""
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=rng, dtype=torch.float64) * 0.7 + 0.1
    w.view(-1)[1] = 1.0
    return w, torch.randn(shape, generator=rng, dtype=torch.float64)


def run(quantizer: torch.nn.Module, w: torch.Tensor, g: torch.Tensor) -> tuple[F64, F64]:
    latent = w.clone().requires_grad_()
    y = quantizer(latent)
    y.backward(g)
    assert latent.grad is not None
    return y.detach().numpy(), latent.grad.numpy()


def sign(x: F64) -> F64:
    return np.where(x >= 0, 1.0, -1.0)


def standardise(w: F64) -> tuple[F64, float]:
    """((w - mean) / s, s) of one filter."""
    centred = w - w.sum() / w.size
    s = math.sqrt((centred**2).sum() / w.size + 1e-5)
    return centred / s, s


def back_through_standardising(v: F64, s: float, g: F64) -> F64:
    """∂C/∂w of v = (w - mean)/s for ∂C/∂v = g: (g - mean(g) - v·mean(g·v)) / s, as for any normalization."""
    return (g - g.mean() - v * (g * v).mean()) / s


@pytest.mark.parametrize("shape", SHAPES)
def test_magnitude_aware_sign(shape: tuple[int, ...]) -> None:
    w, g = weight(shape)
    y, grad = run(MagnitudeAwareSign(), w, g)
    for i, filter_ in enumerate(w.numpy()):
        alpha = np.abs(filter_).sum() / filter_.size
        np.testing.assert_allclose(y[i], alpha * sign(filter_), rtol=1e-12)
        np.testing.assert_allclose(grad[i], alpha * g.numpy()[i] * (np.abs(filter_) <= 1), rtol=1e-12)
    assert (grad != 0).any()


def test_magnitude_aware_sign_is_the_detached_channel_mean() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(5, 4, 3, weight_quantizer="magnitude_aware_sign")
    twin = BinaryConv2d(5, 4, 3, weight_scale="channel_mean_detached")
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5, 6, 6)
    for module in (layer, twin):
        module(x).square().sum().backward()
    assert torch.equal(layer(x), twin(x))
    assert torch.equal(layer.weight.grad, twin.weight.grad)
    assert layer.weight.grad.count_nonzero() > 0


@pytest.mark.parametrize("t", [0.1, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_libra(shape: tuple[int, ...], t: float) -> None:
    w, g = weight(shape)
    module = LibraSign(t_min=t, t_max=t).double()
    y, grad = run(module, w, g)
    for i, filter_ in enumerate(w.numpy()):
        v, s = standardise(filter_)
        size = np.abs(v).sum() / v.size
        factor = 2.0 ** round(math.log2(size)) if size else 0.0
        np.testing.assert_allclose(y[i], factor * sign(v), rtol=1e-12)
        slope = max(1 / t, 1) * t / np.cosh(t * v) ** 2
        expected = back_through_standardising(v, s, factor * g.numpy()[i] * slope)
        np.testing.assert_allclose(grad[i], expected, rtol=1e-6, atol=1e-9)
    assert (grad != 0).any() or shape[1:] == (1,)


@pytest.mark.parametrize("fraction", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_recu(shape: tuple[int, ...], fraction: float) -> None:
    w, g = weight(shape, seed=3)
    module = ReCU(tau_min=0.7, tau_max=0.9).double()
    module.set_progress_(fraction)
    y, grad = run(module, w, g)
    standard = [standardise(filter_) for filter_ in w.numpy()]
    scaled = [2 * math.sqrt(2) * v for v, _ in standard]
    tau = 0.7 + 0.2 * (math.exp(fraction) - 1) / (math.e - 1)
    b = np.abs(np.stack(scaled)).mean()
    quantile = -b * math.log(2 - 2 * tau)
    inside = 0
    for i, ((v, s), u) in enumerate(zip(standard, scaled, strict=True)):
        clamped = np.maximum(np.minimum(u, quantile), -quantile)
        assert y[i].tolist() == sign(clamped).tolist()
        passed = g.numpy()[i] * (np.abs(u) <= quantile)
        inside += int((np.abs(u) <= quantile).sum())
        expected = back_through_standardising(v, s, 2 * math.sqrt(2) * passed)
        np.testing.assert_allclose(grad[i], expected, rtol=1e-6, atol=1e-9)
    assert shape[1:] == (1,) or 0 < inside < w.numel()


def test_the_quantile_of_recu_is_that_of_a_laplace_distribution() -> None:
    """Of Laplace weights, τ = 0.9 must cut the gradient of the outermost 20 %."""
    torch.manual_seed(0)
    w = torch.distributions.Laplace(0.0, 0.3).sample((4, 50_000)).double().requires_grad_()
    passed = []
    clamp = torch.clamp

    def spy(v: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        passed.append(((v >= low) & (v <= high)).double().mean().item())
        return clamp(v, low, high)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "clamp", spy)
        ReCU(tau_min=0.9).double()(w)
    assert passed == pytest.approx([0.8], abs=0.01)


def test_dead_weights_are_revived_by_their_filter() -> None:
    """A weight far outside gets no gradient of its own and still moves: through mean and variance."""
    w = torch.randn(1, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w[0, 0] = 40.0
    w.requires_grad_()
    y = ReCU().double()(w)
    y[0, 1:].sum().backward()
    assert w.grad is not None
    assert w.grad[0, 0].abs() > 1e-4


def test_a_constant_filter_and_a_single_weight_stay_finite() -> None:
    for module in (LibraSign(), ReCU()):
        w = torch.full((3, 4), 0.3, requires_grad=True)
        y = module(w)
        y.sum().backward()
        assert w.grad is not None
        assert y.isfinite().all()
        assert w.grad.isfinite().all()


@pytest.mark.parametrize("name", ["libra", "recu", "magnitude_aware_sign"])
def test_they_are_for_weights(name: str) -> None:
    with pytest.raises(ValueError, match=rf"input_quantizer='{name}' is a quantizer for weights only"):
        BinaryLinear(3, 4, input_quantizer=name)
    with pytest.raises(ValueError, match=r"at least 2 axes, \(out, in, ...\).*got shape \(3,\)"):
        BinaryLinear(3, 4, weight_quantizer=name).weight_quantizer(torch.ones(3))


def test_heaviside_is_for_inputs() -> None:
    with pytest.raises(ValueError, match="weight_quantizer='heaviside' is a quantizer for inputs only"):
        BinaryConv2d(3, 4, 3, weight_quantizer="heaviside")


@pytest.mark.parametrize("name", ["libra", "magnitude_aware_sign"])
def test_two_scales_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"weight_scale='learned' meets weight_quantizer='{name}'"):
        BinaryLinear(3, 4, weight_quantizer=name, weight_scale="learned")


@pytest.mark.parametrize("tau", [(0.5, 0.9), (0.9, 0.8), (0.9, 1.1)])
def test_nonsense_is_refused(tau: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"tau must rise within .*; got"):
        ReCU(tau_min=tau[0], tau_max=tau[1])
