"""reestimate_batch_norm_: the statistics against sums by hand, and everything else left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onebit.nn import BinaryLinear, reestimate_batch_norm_


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), BinaryLinear(7, 6), nn.BatchNorm1d(6)
    )


def test_statistics_are_the_average_over_batches() -> None:
    model = _model()
    batches = [torch.randn(n, 5) * 3 + 1 for n in (8, 16, 32)]
    means, variances = torch.zeros(7), torch.zeros(7)
    behind = torch.zeros(6)
    for x in batches:
        h = x @ model[0].weight.detach().T + model[0].bias.detach()
        mean, centred = h.mean(0), h - h.mean(0)
        means += mean / 3
        variances += (centred**2).sum(0) / (len(x) - 1) / 3
        normal = centred / (centred.pow(2).mean(0) + 1e-5).sqrt()  # of the batch; no dropout
        behind += (torch.where(normal >= 0, 1.0, -1.0) @ model[3].weight.detach().sign().T).mean(0) / 3
    assert reestimate_batch_norm_(model, batches) == 3
    torch.testing.assert_close(model[1].running_mean, means)
    torch.testing.assert_close(model[1].running_var, variances)
    torch.testing.assert_close(model[4].running_mean, behind)


def test_nothing_else_changes() -> None:
    model = _model()
    model[1].eval()
    model[4].momentum = 0.3
    model[4].running_mean.fill_(1e6)
    before = {name: p.clone() for name, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    reestimate_batch_norm_(model, [torch.randn(9, 5)])
    assert modes == [m.training for m in model.modules()]
    assert (model[1].momentum, model[4].momentum) == (0.1, 0.3)
    assert model[4].running_mean.abs().max() < 100  # the old statistics are forgotten, not averaged in
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_what_a_data_loader_yields() -> None:
    x = torch.randn(12, 5)
    states = []
    for batch in (x, (x, torch.zeros(12)), [x, torch.zeros(12)], {"input": x}):
        model = _model()
        reestimate_batch_norm_(model, [batch])
        states.append(model[4].running_mean.clone())
    assert all(torch.equal(states[0], other) for other in states[1:])


def test_mistakes_leave_the_statistics_as_they_were() -> None:
    with pytest.raises(ValueError, match="Linear has no BatchNorm with running statistics"):
        reestimate_batch_norm_(nn.Linear(2, 2), [torch.randn(2, 2)])
    untracked = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="no BatchNorm"):
        reestimate_batch_norm_(untracked, [torch.randn(2, 3)])
    model = _model()
    model[1].running_mean.fill_(7)
    with pytest.raises(ValueError, match="batches is empty"):
        reestimate_batch_norm_(model, [])
    assert model[1].running_mean.eq(7).all()
    assert model[1].momentum == 0.1
    assert all(m.training for m in model.modules())
