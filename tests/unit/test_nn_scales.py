"""α's three gradients, for dense layers and convolutions, against the formulas written out as sums."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onebit.nn import BinaryConv2d, BinaryLinear


def signs(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def formula(kind: str, w: Tensor, g: Tensor) -> Tensor:
    """∂C/∂w of one filter; g = ∂C/∂W̃ with W̃ = α·sign(w)."""
    n, alpha, inside = w.numel(), w.abs().mean(), (w >= -1) & (w <= 1)
    through = {
        "channel_mean": signs(w) / n * (g * signs(w)).sum(),
        "channel_mean_loose": g / n,
        "channel_mean_detached": torch.zeros_like(g),
    }
    return through[kind] + alpha * g * inside


KINDS = ["channel_mean", "channel_mean_loose", "channel_mean_detached"]


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_a_dense_layer(kind: str) -> None:
    layer = BinaryLinear(31, 3, input_quantizer=None, weight_scale=kind, bias=True).double()
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 31, dtype=torch.float64, generator=generator) * 1.5
    x = torch.randn(5, 31, dtype=torch.float64, generator=generator)
    c = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        layer.weight.copy_(w)
    (layer(x) * c).sum().backward()
    assert (w.abs() > 1).any()
    for o in range(3):
        torch.testing.assert_close(layer.weight.grad[o], formula(kind, w[o], (c[:, o, None] * x).sum(0)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_a_convolution(kind: str) -> None:
    """Two 2×2 filters on 2×3 images: two positions each, written out."""
    layer = BinaryConv2d(3, 2, 2, input_quantizer=None, weight_scale=kind).double()
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=generator) * 1.5
    x = torch.randn(4, 3, 2, 3, dtype=torch.float64, generator=generator)
    c = torch.randn(4, 2, 1, 2, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        layer.weight.copy_(w)
    (layer(x) * c).sum().backward()
    for o in range(2):
        g = sum(c[n, o, 0, j] * x[n, :, :, j : j + 2] for n in range(4) for j in range(2))
        torch.testing.assert_close(layer.weight.grad[o], formula(kind, w[o], g))


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_have_the_same_forward(kind: str) -> None:
    x = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(2))
    layer = BinaryConv2d(5, 3, 3, weight_scale=kind)
    plain = BinaryConv2d(5, 3, 3)
    plain.load_state_dict(layer.state_dict())
    alpha = torch.stack([w.abs().sum() / 45 for w in layer.weight])
    torch.testing.assert_close(layer(x), plain(x) * alpha[:, None, None])
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(x) * alpha[:, None, None])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_all_zero_give_no_nan(kind: str) -> None:
    layer = BinaryLinear(4, 2, input_quantizer=None, weight_scale=kind)
    with torch.no_grad():
        layer.weight.zero_()
    layer(torch.ones(3, 4)).sum().backward()
    assert layer.weight.grad.isfinite().all()


def test_k_of_a_dense_layer_is_the_mean_magnitude() -> None:
    layer = BinaryLinear(33, 5, input_scale="xnor").double()
    x = torch.randn(2, 3, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    k = x.abs().sum(-1, keepdim=True) / 33
    total = (signs(x)[..., None, :] * signs(layer.weight)).sum(-1)
    torch.testing.assert_close(layer(x), total * k)


def test_k_has_a_gradient() -> None:
    """Where |x| > 1 the STE is closed: what arrives there came through K."""
    layer = BinaryConv2d(3, 2, 3, padding=1, input_scale="xnor")
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(4)) * 3
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad[x.abs() > 1].count_nonzero() > 0
