"""ShiftAdaMax, Bop and centring, step by step, against the papers' algorithms in NumPy, float64."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from onebit.nn import BinaryConv2d, BinaryLinear
from onebit.optim import (
    Bop,
    ShiftAdaMax,
    binarize_latent_weights_,
    center_latent_weights_,
    latent_parameters,
)


def nearest_power(x: float) -> float:
    """Nearest power of two on a logarithmic scale, from the significand: no logarithm is taken."""
    if x == 0:
        return 0.0
    significand, exponent = math.frexp(abs(x))  # in [1/2, 1)
    return math.copysign(math.ldexp(1, exponent if significand >= math.sqrt(0.5) else exponent - 1), x)


def gradients(steps: int, shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 2, shape) for _ in range(steps)]


def test_shift_adamax_is_algorithm_4() -> None:
    shape, alpha, b1, b2, eps = (5, 7), 3e-3, 1 - 2**-3, 1 - 2**-10, 2.0**-27
    theta = np.random.default_rng(0).standard_normal(shape)
    p = nn.Parameter(torch.tensor(theta))
    frozen = nn.Parameter(torch.ones(2))
    optimizer = ShiftAdaMax([p, frozen], lr=alpha)
    m, v = np.zeros(shape), np.zeros(shape)
    for t, g in enumerate(gradients(60, shape, 1), start=1):
        g[0, 0] = 0.0  # never a gradient: v stays 0
        p.grad = torch.tensor(g)
        optimizer.step()
        m = b1 * m + (1 - b1) * g
        v = np.maximum(b2 * v, np.abs(g))
        rate = nearest_power(alpha / (1 - b1**t))
        divisor = np.maximum(np.vectorize(nearest_power)(v), eps)
        theta = theta - rate * (m / divisor)
        np.testing.assert_allclose(p.detach().numpy(), theta, rtol=1e-12, atol=1e-14)
    assert v.max() > np.abs(g).max()  # the maximum remembers, and has decayed
    assert frozen.tolist() == [1.0, 1.0]


def test_the_steps_of_shift_adamax_are_shifts_of_its_average() -> None:
    p = nn.Parameter(torch.zeros(64))
    optimizer = ShiftAdaMax([p])
    assert optimizer.defaults["lr"] == 2**-10
    before = p.detach().clone()
    p.grad = torch.randn(64, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    quotient = (before - p.detach()) / optimizer.state[p]["exp_avg"]
    assert set(torch.frexp(quotient).mantissa.tolist()) == {0.5}


@pytest.mark.parametrize("gamma", [0.1, 0.003])
def test_bop_is_algorithm_1(gamma: float) -> None:
    shape, tau = (6, 9), 2e-2
    rng = np.random.default_rng(2)
    w = np.where(rng.random(shape) < 0.5, 1.0, -1.0)
    p = nn.Parameter(torch.tensor(w))
    optimizer = Bop([p], gamma=gamma, threshold=tau)
    m, flips = np.zeros(shape), 0
    for g in gradients(80, shape, 3):
        p.grad = torch.tensor(g)
        optimizer.step()
        m = (1 - gamma) * m + gamma * g
        flip = (np.abs(m) > tau) & (np.sign(m) == np.sign(w))
        flips += int(flip.sum())
        w = np.where(flip, -w, w)
        assert p.detach().numpy().tolist() == w.tolist()
    assert flips > 50


def test_bop_takes_one_bit_weights_only_and_says_how_to_get_them() -> None:
    model = nn.Sequential(BinaryLinear(5, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"holds other numbers: call onebit.optim.binarize_latent_weights_"):
        Bop([p for _, p in latent_parameters(model)])
    expected = torch.tensor([[1.0 if v >= 0 else -1.0 for v in row] for row in model[0].weight.tolist()])
    binarize_latent_weights_(model)
    assert torch.equal(model[0].weight, expected)
    optimizer = Bop([p for _, p in latent_parameters(model)])
    with pytest.raises(ValueError, match=r"shape \(3,\) holds other"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    assert len(optimizer.param_groups) == 1


def test_bop_and_an_optimizer_for_the_rest_train_a_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        BinaryLinear(20, 64, input_quantizer=None), nn.BatchNorm1d(64), BinaryLinear(64, 2), nn.BatchNorm1d(2)
    )
    binarize_latent_weights_(model)
    bits = [p for _, p in latent_parameters(model)]
    rest = [p for p in model.parameters() if all(p is not b for b in bits)]
    bop, adam = Bop(bits, gamma=0.01, threshold=1e-4), torch.optim.Adam(rest, 0.01)
    x = torch.randn(512, 20)
    labels = (x[:, :10].sum(dim=1) > x[:, 10:].sum(dim=1)).long()
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), labels)
        for optimizer in (bop, adam):
            optimizer.zero_grad()
        loss.backward()
        bop.step()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(set(p.detach().unique().tolist()) == {-1.0, 1.0} for p in bits)


def _optimizers(p: nn.Parameter) -> list[torch.optim.Optimizer]:
    return [ShiftAdaMax([p], lr=2**-4), Bop([p], gamma=0.2, threshold=1e-3)]


@pytest.mark.parametrize("which", [0, 1])
def test_state_dict_continues_to_the_same_bits(which: int) -> None:
    rng = torch.Generator().manual_seed(5)
    start = torch.where(torch.randn(4, 6, generator=rng) >= 0, 1.0, -1.0)
    grads = [torch.randn(4, 6, generator=rng) for _ in range(12)]
    p = nn.Parameter(start.clone())
    optimizer = _optimizers(p)[which]
    for i, g in enumerate(grads):
        if i == 5:
            q = nn.Parameter(torch.where(p.detach() >= 0, 1.0, -1.0))
            restored = _optimizers(q)[which]
            with torch.no_grad():
                q.copy_(p)
            restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        p.grad = g
        optimizer.step()
        if i >= 5:
            q.grad = g.clone()
            restored.step()
            assert torch.equal(p, q)
    assert not torch.equal(p.detach(), start)


def test_a_restored_step_counter_lies_where_a_new_one_would() -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = ShiftAdaMax(
        [p], lr=torch.tensor(0.25)
    )  # a rate may be a tensor, filled in place by a schedule
    p.grad = torch.ones(3)
    optimizer.step()
    assert p.tolist() == [1 - 2 * 0.125] * 3  # α/(1 - β1) = 2, m = 1/8, v = 1
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["step"] = state["state"][0]["step"].double()
    optimizer.load_state_dict(state)
    assert optimizer.state[p]["step"].dtype == torch.float32
    assert optimizer.state[p]["step"].item() == 1


@pytest.mark.parametrize("which", [0, 1])
def test_a_closure_is_called_with_gradients_on_and_its_loss_returned(which: int) -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = _optimizers(p)[which]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (p * torch.tensor([1.0, 2.0, -3.0])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 0.0
    assert (p[:2] < 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: ShiftAdaMax([p], lr=0), "lr must be positive; got 0"),
        (lambda p: ShiftAdaMax([p], betas=(1.0, 0.5)), r"betas must be two numbers in \[0, 1\); got \(1.0"),
        (lambda p: ShiftAdaMax([p], eps=-1), "eps must be positive; got -1"),
        (lambda p: Bop([p], gamma=0), r"gamma must lie in \(0, 1\]; got 0"),
        (lambda p: Bop([p], threshold=-1e-9), "threshold must be at least 0; got -1e-09"),
    ],
)
def test_nonsense_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(nn.Parameter(torch.ones(2)))


@pytest.mark.parametrize("which", [0, 1])
def test_sparse_gradients_are_refused(which: int) -> None:
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="does not take sparse gradients"):
        _optimizers(p)[which].step()


def test_centring_takes_the_mean_over_the_input_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        BinaryConv2d(5, 4, 3), BinaryConv2d(4, 4, 3, groups=4), BinaryLinear(9, 2, bias=True), nn.Linear(3, 3)
    )
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    center_latent_weights_(model)
    expected = dict(before)
    expected["0.weight"] = before["0.weight"] - before["0.weight"].sum(axis=1)[:, None] / 5
    expected["2.weight"] = before["2.weight"] - before["2.weight"].sum(axis=1)[:, None] / 9
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], atol=1e-6, err_msg=name)
    assert np.abs(before["0.weight"] - expected["0.weight"]).max() > 0.1
