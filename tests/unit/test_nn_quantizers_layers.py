"""Every quantizer in every kind of layer: gradients, compiled equals eager, schedules that travel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from onebit.nn import EDE, BinaryConv1d, BinaryConv2d, BinaryLinear, ReCU, RSign, quantizers, set_progress_

INPUTS = [
    name for name in quantizers.names() if getattr(quantizers.create(name), "only_for", "") != "weights"
]
WEIGHTS = [
    name for name in quantizers.names() if getattr(quantizers.create(name), "only_for", "") != "inputs"
]
LAYERS = {
    "linear": (lambda **options: BinaryLinear(33, 7, **options), (6, 33)),
    "conv1d": (lambda **options: BinaryConv1d(5, 7, 3, padding=1, **options), (6, 5, 9)),
    "conv2d": (lambda **options: BinaryConv2d(5, 7, 3, padding=1, **options), (6, 5, 8, 8)),
    "grouped": (lambda **options: BinaryConv2d(6, 4, 3, groups=2, **options), (6, 6, 8, 8)),
}
PAIRS = [(name, "ste_sign") for name in INPUTS] + [("ste_sign", name) for name in WEIGHTS]


def test_the_lists_hold_what_they_should() -> None:
    assert set(INPUTS) ^ set(WEIGHTS) == {"heaviside", "libra", "magnitude_aware_sign", "recu"}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("inputs", "weights"), PAIRS)
def test_gradients_reach_input_and_weight(inputs: str, weights: str, kind: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make(input_quantizer=inputs, weight_quantizer=weights, bias=True)
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    y.backward(torch.randn_like(y))
    for tensor in (x, layer.weight, layer.bias):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.count_nonzero() > tensor.numel() // 3


@pytest.mark.parametrize(("inputs", "weights"), PAIRS)
def test_a_compiled_layer_equals_an_eager_one_whatever_the_progress(inputs: str, weights: str) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    layer = BinaryConv2d(5, 7, 3, input_quantizer=inputs, weight_quantizer=weights)
    graphs = []

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    x, g = torch.randn(2, 5, 6, 6), torch.randn(2, 7, 4, 4)
    for fraction in (0.0, 0.5, 1.0):
        set_progress_(layer, fraction)
        results = []
        for function in (layer, compiled):
            torch.manual_seed(1)
            data = x.clone().requires_grad_()
            layer.weight.grad = None
            y = function(data)
            y.backward(g)
            results.append([y.detach(), data.grad, layer.weight.grad])
        for eager, fast in zip(*results, strict=True):
            assert torch.equal(eager, fast)
            assert eager.count_nonzero() > 0
    assert len(graphs) == 1  # moving on recompiles nothing


def test_progress_reaches_every_scheduled_module_and_changes_the_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        BinaryConv2d(3, 4, 3, input_quantizer="ede", weight_quantizer="libra"),
        RSign(4, quantizer="ede"),
        BinaryConv2d(4, 4, 3, input_quantizer=None, weight_quantizer="recu"),
        BinaryConv2d(4, 4, 1),
    )
    x = torch.randn(2, 3, 8, 8)
    gradients = []
    for fraction in (0, 1):
        assert set_progress_(model, fraction) == 4
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    changed = [not torch.equal(a, b) for a, b in zip(*gradients, strict=True)]
    assert changed == [True, True, True, False]
    assert [m.t.item() for m in model.modules() if isinstance(m, EDE)] == pytest.approx([10, 10, 10])
    assert [m.tau.item() for m in model.modules() if isinstance(m, ReCU)] == pytest.approx([0.99])


def test_a_checkpoint_holds_the_progress() -> None:
    model = nn.Sequential(BinaryLinear(3, 4, input_quantizer="ede", weight_quantizer="recu"))
    set_progress_(model, 0.7)
    other = copy.deepcopy(model)
    set_progress_(other, 0.0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other[0].input_quantizer.t, model[0].input_quantizer.t)
    assert torch.equal(other[0].weight_quantizer.tau, model[0].weight_quantizer.tau)
    assert model[0].input_quantizer.t.item() == pytest.approx(0.1 * 100**0.7)


def test_a_model_without_schedules_is_left_alone() -> None:
    model = nn.Sequential(BinaryLinear(3, 4), nn.BatchNorm1d(4))
    before = copy.deepcopy(model.state_dict())
    assert set_progress_(model, 0.5) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_module_of_ones_own_takes_part() -> None:
    class Mine(nn.Module):
        seen = -1.0

        def set_progress_(self, fraction: float) -> None:
            self.seen = fraction

    model = nn.Sequential(Mine(), nn.Sequential(Mine()))
    assert set_progress_(model, 0.25) == 2
    assert (model[0].seen, model[1][0].seen) == (0.25, 0.25)


@pytest.mark.parametrize("fraction", [-0.1, 1.0001, float("nan")])
def test_progress_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 \(start of training\) and 1 \(its end\); got"):
        set_progress_(nn.Identity(), fraction)
