"""Shift-based BatchNorm against the paper's algorithm and its authors' backward, in NumPy, float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onebit.nn import ShiftBatchNorm1d, ShiftBatchNorm2d, ap2

F64 = np.ndarray


def nearest_power(x: float) -> float:
    """From the significand: the logarithms' nearest integer without a logarithm."""
    if x == 0:
        return 0.0
    significand, exponent = math.frexp(abs(x))  # in [1/2, 1)
    return math.copysign(math.ldexp(1, exponent if significand >= math.sqrt(0.5) else exponent - 1), x)


power = np.vectorize(nearest_power, otypes=[np.float64])


def algorithm_3(x: F64, gamma: F64, beta: F64, eps: float) -> tuple[F64, F64, F64, F64]:
    """(y, c, r, mean), x of shape (m, channels), written from the paper."""
    m = len(x)
    mean = x.sum(axis=0) / m
    c = x - mean
    variance = (c * power(c)).sum(axis=0) / m
    r = 1 / np.sqrt(variance + eps)
    return power(gamma) * (c * power(r)) + beta, c, r, mean


def backward(g: F64, c: F64, r: F64, gamma: F64) -> tuple[F64, F64, F64]:
    """Gradients of x, γ, β, in the order of the authors' updateGradInput and accGradParameters."""
    m, std = len(g), power(r)
    grad = -power(c) * ((power(c) * g).sum(axis=0) / m) * std * std
    grad = (grad + g - g.sum(axis=0) / m) * std * power(gamma)
    return grad, (power(c * std) * g).sum(axis=0), g.sum(axis=0)


def case(shape: tuple[int, ...], seed: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    norm = (ShiftBatchNorm2d if len(shape) == 4 else ShiftBatchNorm1d)(shape[1]).double()
    with torch.no_grad():
        norm.weight.copy_(torch.randn(shape[1]) * 3)
        norm.weight[0] = 0
        norm.bias.copy_(torch.randn(shape[1]))
    x = torch.randn(shape, dtype=torch.float64) * 7 + 3
    return norm, x, torch.randn(shape, dtype=torch.float64)


def rows(t: torch.Tensor) -> F64:
    """(N, C, ...) as (m, C)."""
    return t.detach().movedim(1, -1).reshape(-1, t.shape[1]).numpy()


def test_ap2_is_the_nearest_power_of_two() -> None:
    x = torch.cat(
        [torch.randn(2000) * 10.0 ** torch.randint(-30, 30, (2000,)), torch.tensor([0.0, 1, -3, 6])]
    )
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        y = ap2(x.to(dtype))
        assert y.dtype == dtype
        assert y.tolist() == [nearest_power(v) for v in x.to(dtype).tolist()]
    assert ap2(torch.tensor([1.4, 1.42, -2.8, -2.9])).tolist() == [1.0, 2.0, -2.0, -4.0]
    exact = torch.tensor([2.0**k for k in range(-126, 128)])
    assert torch.equal(ap2(exact), exact)


def test_the_gradient_of_ap2_passes_straight_through() -> None:
    x = torch.tensor([0.3, -5.0, 0.0], requires_grad=True)
    ap2(x).backward(torch.tensor([1.0, 2.0, 3.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("shape", [(2, 3), (50, 7), (9, 4, 5), (6, 5, 4, 3)])
def test_training_is_algorithm_3_and_its_backward_the_authors(shape: tuple[int, ...]) -> None:
    norm, x, g = case(shape, seed=len(shape))
    x.requires_grad_()
    y = norm(x)
    y.backward(g)
    gamma, beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    expected, c, r, mean = algorithm_3(rows(x), gamma, beta, 1e-5)
    np.testing.assert_allclose(rows(y), expected, rtol=1e-12, atol=1e-12)
    grads = backward(rows(g), c, r, gamma)
    for found, value in zip((rows(x.grad), norm.weight.grad, norm.bias.grad), grads, strict=True):
        np.testing.assert_allclose(np.asarray(found), value, rtol=1e-10, atol=1e-10)
    assert (rows(x.grad)[:, 1:] != 0).any()
    np.testing.assert_allclose(norm.running_mean.numpy(), mean / 8, rtol=1e-12)
    np.testing.assert_allclose(norm.running_inverse_std.numpy(), 7 / 8 + r / 8, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3), (9, 4, 5), (6, 5, 4, 3)])
def test_eval_uses_the_running_statistics_rounded_to_powers(shape: tuple[int, ...]) -> None:
    norm, x, g = case(shape, seed=9)
    with torch.no_grad():
        for _ in range(30):
            norm(torch.randn_like(x) * 5 - 2)
    before = {name: b.clone() for name, b in norm.named_buffers()}
    norm.eval()
    x.requires_grad_()
    y = norm(x)
    y.backward(g)
    mean, r = norm.running_mean.numpy(), norm.running_inverse_std.numpy()
    factor = power(r) * power(norm.weight.detach().numpy())
    np.testing.assert_allclose(rows(y), (rows(x) - mean) * factor + norm.bias.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(rows(x.grad), rows(g) * factor, rtol=1e-12)
    np.testing.assert_allclose(norm.weight.grad, (rows(g) * (rows(x) - mean) * power(r)).sum(0), rtol=1e-9)
    assert all(torch.equal(before[name], b) for name, b in norm.named_buffers())
    assert set(before) == {"running_mean", "running_inverse_std"}


def test_the_scale_is_near_batchnorms() -> None:
    """Powers of two are within a factor √2, so the output's deviation is within 2 of BatchNorm's 1."""
    torch.manual_seed(1)
    deviation = ShiftBatchNorm1d(200)(torch.randn(500, 200) * 10.0 ** torch.rand(200)).std(dim=0)
    assert 0.5 < deviation.min() < deviation.max() < 2
    assert deviation.max() - deviation.min() > 0.3


@pytest.mark.parametrize("train", [True, False])
def test_compiled_equals_eager(train: bool) -> None:
    torch.compiler.reset()
    norm, x, g = case((5, 6, 4, 4), seed=3)
    norm.train(train)
    twin = ShiftBatchNorm2d(6).double().train(train)
    twin.load_state_dict(norm.state_dict())
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    results = []
    for function, module in ((norm, norm), (compiled, twin)):
        data = x.clone().requires_grad_()
        y = function(data)
        y.backward(g)
        results.append([y.detach(), data.grad, module.weight.grad, module.bias.grad])
    for eager, fast in zip(*results, strict=True):
        assert torch.equal(eager, fast)
        assert eager.count_nonzero() > 0
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), twin.buffers(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    norm = ShiftBatchNorm1d(5)
    twin = ShiftBatchNorm1d(5)
    x = torch.randn(64, 5).to(dtype)
    assert torch.equal(norm(x), twin(x.float()).to(dtype))
    assert torch.equal(norm.running_mean, twin.running_mean)


def test_an_empty_batch_passes_in_eval_mode() -> None:
    assert ShiftBatchNorm1d(5).eval()(torch.zeros(0, 5)).shape == (0, 5)


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (ShiftBatchNorm1d, (4, 6), r"ShiftBatchNorm1d\(5\) takes .*\(N, C\) or .* got \(4, 6\)"),
        (ShiftBatchNorm1d, (4, 5, 3, 3), r"got \(4, 5, 3, 3\)"),
        (ShiftBatchNorm2d, (4, 5), r"\(N, C, H, W\) with 5 channels; got \(4, 5\)"),
        (ShiftBatchNorm1d, (1, 5), r"more than one value per channel in training mode; .*\(1, 5\)"),
    ],
)
def test_other_shapes_are_refused(module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(5)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, "num_features must be a positive integer; got 0"),
        ({"num_features": 3, "eps": 0}, "eps must be positive; got 0"),
        ({"num_features": 3, "momentum": 1.5}, "momentum must lie in .*; got 1.5"),
    ],
)
def test_nonsense_is_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftBatchNorm1d(**arguments)
