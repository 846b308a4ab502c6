"""Layers under torch.fx's symbolic tracing: one node each, the same numbers, the same parameters."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, fx, nn

import onebit
from onebit.nn import (
    BatchNormFeatures,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    NormalizePixels,
    RPReLU,
    RSign,
    ScalePixels,
    ShiftBatchNorm1d,
    binarize,
    quantizers,
    save_bits_,
    ste_sign,
)


def check(model: nn.Module, x: Tensor, *, gradients: bool = True) -> fx.GraphModule:
    """The traced model gives the same, of the same parameters, copied and pickled too."""
    traced = fx.symbolic_trace(model)
    assert dict(traced.named_parameters()).keys() == dict(model.named_parameters()).keys()
    for one in (traced, copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        with torch.no_grad():
            assert torch.equal(one(x), model(x))
    if gradients:
        for one in (model, traced):
            one.zero_grad()
            one(x).square().sum().backward()
            found = {name: None if p.grad is None else p.grad.clone() for name, p in one.named_parameters()}
            want = found if one is model else want  # noqa: F821
        for name, gradient in want.items():
            assert gradient is not None, name
            assert torch.equal(found[name], gradient), name
    return traced


LAYERS = [
    (lambda: BinaryLinear(12, 3, weight_scale="channel_mean", input_scale="xnor", bias=True), (12,)),
    (lambda: BinaryConv1d(5, 3, 3, padding="same", weight_scale="channel_mean_loose"), (5, 9)),
    (lambda: BinaryConv2d(5, 3, 3, padding_value=1, padding=1, input_scale="xnor"), (5, 6, 7)),
    (lambda: BinaryConv2d(4, 4, 2, groups=2, weight_scale="learned", weight_quantizer="recu"), (4, 6, 7)),
    (lambda: RSign(5), (5, 4)),
    (lambda: RPReLU(5), (5, 4)),
    (lambda: BatchNormFeatures(5), (4, 5)),
    (lambda: ShiftBatchNorm1d(5), (5,)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_layers(make, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Identity(), make()).eval(), torch.randn(3, *shape)
    calls = [node.target for node in check(model, x).graph.nodes if node.op == "call_module"]
    assert calls == ["0", "1"]
    alone = fx.symbolic_trace(model[1])
    assert torch.equal(alone(x), model(x))
    assert [p.shape for p in alone.parameters()] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize("name", quantizers.names())
def test_quantizers(name: str) -> None:
    model, x = nn.Sequential(quantizers.create(name)).eval(), torch.randn(3, 8)
    assert torch.equal(fx.symbolic_trace(model)(x), model(x))
    traced = fx.symbolic_trace(nn.Sequential(quantizers.StochasticSign()))  # still knows its mode
    assert torch.equal(traced.eval()(x), ste_sign(x))


def test_functions() -> None:
    class Own(nn.Module):
        def forward(self, x):  # unannotated: fx cannot pickle an annotation that is a string
            return ste_sign(x, 1.25) + quantizers.heaviside(x) + quantizers.approx_sign(x + 1)

    check(Own(), torch.randn(5, 7), gradients=False)  # it has no parameters


@pytest.mark.parametrize("pixels", [ScalePixels, NormalizePixels])
def test_pixels(pixels: type[nn.Module]) -> None:
    x = torch.arange(3 * 3 * 4 * 4, dtype=torch.uint8).reshape(3, 3, 4, 4)
    check(nn.Sequential(pixels(), BinaryConv2d(3, 4, 3, input_quantizer=None)), x)


@pytest.mark.parametrize("train", [True, False])
def test_a_binarized_model(train: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(16, 16, 3), nn.ReLU()]
    dense = [nn.Flatten(), nn.Linear(16 * 36, 64), nn.ReLU(), nn.Linear(64, 4)]
    model, x = nn.Sequential(*layers, *dense), torch.randn(4, 3, 8, 8)
    check(binarize(model, example=x).train(train), x)


def test_a_model_that_saves_bits() -> None:
    torch.manual_seed(0)
    layers = [quantizers.SteSign(), BinaryLinear(12, 16, input_quantizer=None), nn.BatchNorm1d(16)]
    model, x = nn.Sequential(*layers, BinaryLinear(16, 3)), torch.randn(5, 12)
    assert len(save_bits_(model, x)) >= 4
    check(model.eval(), x)


@pytest.mark.parametrize("real_inputs", ["leave", "pack"])
def test_a_packed_model(real_inputs) -> None:
    torch.manual_seed(0)
    layers = [
        BinaryConv2d(5, 40, 3, padding=1, input_quantizer=None, weight_scale="channel_mean"),
        RSign(40),
        BinaryConv2d(40, 8, 2, padding="same", padding_value=-1, input_scale="xnor", bias=True),
        nn.Flatten(2),
        BinaryConv1d(8, 4, 3, input_quantizer="stochastic_sign"),
        nn.Flatten(),
        BinaryLinear(4 * 34, 3, weight_scale="learned", bias=True),
    ]
    packed, x = onebit.pack(nn.Sequential(*layers).eval(), real_inputs=real_inputs), torch.randn(3, 5, 6, 6)
    traced = check(packed, x, gradients=False)
    assert [node.op for node in traced.graph.nodes].count("call_module") == len(layers)
    alone = fx.symbolic_trace(packed[6])
    with torch.no_grad():
        y = torch.randn(2, 4 * 34)
        assert torch.equal(alone(y), packed[6](y))
