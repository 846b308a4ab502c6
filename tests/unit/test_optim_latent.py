"""Clipping of latent weights and Glorot-scaled learning rates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from onebit.nn import BinaryConv1d, BinaryConv2d, BinaryLinear
from onebit.optim import (
    clip_latent_weights_,
    exponential_decay,
    glorot_coefficient,
    glorot_parameter_groups,
    latent_parameters,
)


def network() -> nn.Sequential:
    return nn.Sequential(
        BinaryLinear(31, 65, input_quantizer=None),
        nn.BatchNorm1d(65),
        BinaryLinear(65, 33, weight_quantizer=None, weight_scale="learned", bias=True),
        nn.Linear(33, 7),
        nn.Sequential(BinaryLinear(7, 3, weight_scale="learned", bias=True)),
    )


def test_latent_parameters_are_exactly_the_one_bit_weights() -> None:
    model = network()
    assert [name for name, _ in latent_parameters(model)] == ["0.weight", "4.0.weight"]
    shared = nn.Sequential(model[0], model[0])
    assert [name for name, _ in latent_parameters(shared)] == ["0.weight"]


def test_a_layer_of_ones_own_takes_part_by_the_method() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.full((2, 3), 5.0))
            self.other = nn.Parameter(torch.full((2,), 5.0))

        def latent_parameters(self) -> list[nn.Parameter]:
            return [self.kernel]

    model = nn.Sequential(Own())
    clip_latent_weights_(model)
    assert model[0].kernel.unique().tolist() == [1.0]
    assert model[0].other.unique().tolist() == [5.0]


def test_clip_touches_latent_weights_only_and_in_place() -> None:
    model = network()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    assert clip_latent_weights_(model) is None
    for name, parameter in model.named_parameters():
        old = before[name].flatten().tolist()
        if name in ("0.weight", "4.0.weight"):
            expected = [min(1.0, max(-1.0, v)) for v in old]
            assert expected != old
        else:
            expected = old
        assert parameter.flatten().tolist() == expected, name
        assert parameter.data_ptr() == pointers[name]
        assert parameter.requires_grad


def test_coefficient_counts_the_kernel_in_both_fans() -> None:
    assert glorot_coefficient(torch.empty(65, 31)) == math.sqrt(1.5 / 96)
    assert glorot_coefficient(torch.empty(128, 64, 3, 3)) == math.sqrt(1.5 / (64 * 9 + 128 * 9))
    with pytest.raises(ValueError, match=r"at least 2 axes.*\(3,\)"):
        glorot_coefficient(torch.empty(3))


@pytest.mark.parametrize(("squared", "power"), [(False, 1), (True, 2)])
def test_every_parameter_is_in_one_group_with_its_rate(squared: bool, power: int) -> None:
    model = network()
    groups = glorot_parameter_groups(model, 3e-3, squared=squared)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) == len(rate)
    for name, parameter in model.named_parameters():
        factor = {"0.weight": math.sqrt((31 + 65) / 1.5), "4.0.weight": math.sqrt((7 + 3) / 1.5)}.get(
            name, 1.0
        )
        assert rate[id(parameter)] == pytest.approx(3e-3 * factor**power, rel=1e-12), name
    assert [group["name"] for group in groups] == ["others", "0.weight", "4.0.weight"]


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    groups = glorot_parameter_groups(model, 1.0)
    ids = {id(p) for group in groups for p in group["params"]}
    assert ids == {id(p) for p in model.parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        glorot_parameter_groups(model.requires_grad_(False), 1.0)


@pytest.mark.parametrize("lr", [0, -1.0, math.nan])
def test_a_rate_that_is_not_positive_is_refused(lr: float) -> None:
    with pytest.raises(ValueError, match="lr must be positive; got"):
        glorot_parameter_groups(network(), lr)


def test_adam_step_is_the_papers_update() -> None:
    """The authors' code: w <- clip(w + (adam(w) - w) / c), Adam at the common rate."""
    torch.manual_seed(0)
    model = nn.Sequential(BinaryLinear(31, 17, input_quantizer=None)).double()
    weight = model[0].weight
    start, x = weight.detach().clone(), torch.randn(9, 31, dtype=torch.float64)
    optimizer = torch.optim.Adam(glorot_parameter_groups(model, 0.05))
    model(x).square().mean().backward()
    optimizer.step()
    clip_latent_weights_(model)
    gradient = weight.grad
    plain = 0.05 * gradient / (gradient.abs() + 1e-8)  # Adam's first step, bias-corrected
    expected = (start - plain / math.sqrt(1.5 / 48)).clamp(-1, 1)
    assert (expected.abs() == 1).any()
    torch.testing.assert_close(weight.detach(), expected)


def test_exponential_decay_reaches_the_end_and_keeps_the_ratios() -> None:
    gamma = exponential_decay(3e-3, 3e-7, 1000)
    assert gamma == pytest.approx(0.0001 ** (1 / 1000))
    model = network()
    optimizer = torch.optim.Adam(glorot_parameter_groups(model, 0.5))
    start = [group["lr"] for group in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, exponential_decay(0.5, 0.005, 20))
    for _ in range(20):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate / 100 for rate in start])


@pytest.mark.parametrize("arguments", [(0, 1e-3, 5), (1e-3, -1, 5), (1e-3, 1e-4, 0)])
def test_exponential_decay_refuses_nonsense(arguments: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="must be positive and epochs at least 1"):
        exponential_decay(*arguments)


def test_convolutions_take_part() -> None:
    """Fans of a convolution count its kernel: fan_in = in per group · kernel, fan_out = out · kernel."""
    model = nn.Sequential(BinaryConv2d(32, 64, (3, 5), groups=2, bias=True), nn.Conv2d(64, 4, 3))
    weight = model[0].weight
    assert [name for name, _ in latent_parameters(model)] == ["0.weight"]
    assert glorot_coefficient(weight) == pytest.approx(math.sqrt(1.5 / (16 * 15 + 64 * 15)))
    assert glorot_coefficient(BinaryConv1d(3, 5, 7).weight) == pytest.approx(math.sqrt(1.5 / (8 * 7)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(2)
    others = [p.detach().clone() for p in (model[0].bias, *model[1].parameters())]
    clip_latent_weights_(model)
    assert weight.abs().max() == 1
    for parameter, before in zip((model[0].bias, *model[1].parameters()), others, strict=True):
        assert torch.equal(parameter, before)
