"""A user's own loop that forgets `clip_latent_weights_` is warned once, by name; others are not."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import onebit
from onebit.nn import BinaryConv2d, BinaryLinear, diagnose
from onebit.optim import Bop, binarize_latent_weights_, clip_latent_weights_


def network(quantizer: str | nn.Module | None = "ste_sign", **options) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        BinaryConv2d(1, 4, 3, input_quantizer=None, weight_quantizer=quantizer, **options),
        nn.Flatten(),
        nn.Sequential(nn.BatchNorm1d(64), BinaryLinear(64, 5, weight_quantizer=quantizer, **options)),
    )


def trained(
    model: nn.Module, steps: int = 3, *, clip: bool = False, before: bool = False, lr: float = 1.0
) -> None:
    """An ordinary loop, at a rate that drives weights out of [-1, 1] at once."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 1, 6, 6)).square().sum().backward()
        if clip and before:
            clip_latent_weights_(model)
        optimizer.step()
        if clip and not before:
            clip_latent_weights_(model)


def warned(model: nn.Module) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.eval()
    return [w for w in caught if "latent weights" in str(w.message)]


def test_a_loop_that_forgets_is_told_once_and_where() -> None:
    model = network()
    trained(model)
    (warning,) = warned(model)
    assert issubclass(warning.category, UserWarning)
    assert "onebit.optim.clip_latent_weights_(model) after each optimizer.step()" in str(warning.message)
    assert "of '0' and of 1 more layer:" in str(warning.message)
    assert warning.filename == __file__, "it points at the line that calls eval()"
    trained(model)
    assert warned(model) == []
    assert warned(copy.deepcopy(model).train()) == []


def test_it_names_the_layer_and_how_far() -> None:
    model = network().train()
    with torch.no_grad():
        model[2][1].weight[3, 7] = -2.5
    (warning,) = warned(model)
    assert "of '2.1': they have left [-1, 1], up to |w| = 2.5," in str(warning.message)


def test_a_layer_alone() -> None:
    layer = BinaryLinear(3, 2).train()
    with torch.no_grad():
        layer.weight.fill_(1.01)
    (warning,) = warned(layer)
    assert "of 'BinaryLinear'" in str(warning.message)


@pytest.mark.parametrize("before", [False, True])
def test_who_clips_is_left_alone(before: bool) -> None:
    """Before the step too, as XNOR-Net's authors do: then the last step may lead out a little."""
    model = network()
    trained(model, clip=True, before=before)
    assert before == any(p.abs().max() > 1 for _, p in onebit.optim.latent_parameters(model))
    assert warned(model) == []


def test_who_clips_in_words_of_his_own_is_left_alone() -> None:
    model = network()
    trained(model)
    with torch.no_grad():
        for _, parameter in onebit.optim.latent_parameters(model):
            parameter.clamp_(-1, 1)
    assert warned(model) == []


@pytest.mark.parametrize("quantizer", [None, "ede", "swish_sign", "recu", "libra"])
def test_quantizers_that_need_no_clipping(quantizer: str | None) -> None:
    model = network(quantizer)
    trained(model)
    assert any(p.abs().max() > 1 for p in model.parameters())
    assert warned(model) == []


@pytest.mark.parametrize("quantizer", ["approx_sign", "stochastic_sign", "magnitude_aware_sign"])
def test_quantizers_that_need_it(quantizer: str) -> None:
    model = network(quantizer)
    trained(model)
    assert len(warned(model)) == 1


def test_frozen_weights_and_bop_and_small_steps_are_no_fault() -> None:
    model = network()
    trained(model)
    assert warned(model.requires_grad_(False)) == []
    model = network()
    trained(model, lr=1e-6)
    assert warned(model) == []
    model = network().train()
    binarize_latent_weights_(model)
    bits = [p for _, p in onebit.optim.latent_parameters(model)]
    model(torch.randn(8, 1, 6, 6)).sum().backward()
    Bop(bits).step()
    assert warned(model) == []


def test_weights_without_numbers_to_look_at_break_nothing() -> None:
    """A diverged training, and weights that have a shape only."""
    model = network().train()
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    assert warned(model) == []
    with torch.no_grad():
        model[2][1].weight.fill_(2)
    (warning,) = warned(model.train())
    assert "of '2.1': they have left [-1, 1], up to |w| = 2," in str(warning.message)
    assert warned(network().train().to("meta")) == []
    with FakeTensorMode():
        assert warned(network().train()) == []


def test_a_model_in_eval_mode_is_not_looked_at_again() -> None:
    model = network().eval()
    with torch.no_grad():
        model[0].weight.fill_(3)
    assert warned(model) == []


def test_looking_at_a_model_in_training_tells() -> None:
    model = network()
    trained(model)
    with pytest.warns(UserWarning, match="nobody clips"):
        diagnose(model)
    assert model.training


def test_a_compiled_step_stays_one_graph_and_tells_as_well() -> None:
    torch.compiler.reset()
    model = network()
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)

    def step(x: Tensor) -> Tensor:
        return fast(x).square().sum()

    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        step(torch.randn(8, 1, 6, 6)).backward()
        optimizer.step()
    assert len(warned(fast)) == 1
    assert warned(fast.train()) == []
