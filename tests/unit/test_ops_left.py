"""`onebit.pack`: what it does not understand it leaves, and says why; what it cannot take it refuses."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import onebit
from onebit.nn import ApproxSign, BinaryConv2d, BinaryLinear, StochasticSign
from onebit.ops import PackedLinear, report


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


# ---- what is left, and why ----


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, inputs, output: output + 1)
    return layer


def parametrized(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", nn.Tanh())
    return layer


@torch.no_grad()  # so that the pruned weight is a leaf, which can be copied
def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 5)


def patched(layer: nn.Module) -> nn.Module:
    forward = layer.forward
    layer.forward = lambda x: forward(x) * 2  # type: ignore[method-assign]
    return layer


class Derived(BinaryLinear):
    """Somebody's own layer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Ternary(nn.Module):
    """No sign."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 1).to(x.dtype) - (x < -1).to(x.dtype)


class Unexportable(nn.Module):
    """A quantizer whose path depends on numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return onebit.nn.ste_sign(x if float(x.sum()) > 0 else -x)


LEFT = {
    "hooks": (lambda: hooked(BinaryLinear(40, 8)), "it has hooks .forward_hooks."),
    "parametrizations": (lambda: parametrized(BinaryLinear(40, 8)), "remove_parametrizations"),
    "pruning": (lambda: pruned(BinaryLinear(40, 8)), "forward_pre_hooks"),
    "a patched forward": (lambda: patched(BinaryLinear(40, 8)), "replaced on the instance"),
    "a derived class": (lambda: Derived(40, 8), "Derived is a class derived"),
    "a ternary input": (
        lambda: BinaryLinear(40, 8, input_quantizer=Ternary()),
        "does not end in onebit::sign",
    ),
    "an odd input": (lambda: BinaryLinear(40, 8, input_quantizer=Unexportable()), "cannot be exported"),
    "a hooked quantizer": (lambda: BinaryLinear(40, 8, input_quantizer=hooked(ApproxSign())), "has hooks"),
    "real weights": (lambda: BinaryLinear(40, 8, weight_quantizer=None), "weights are not ±1"),
    "real weights in eval": (
        lambda: BinaryLinear(40, 8, weight_quantizer=StochasticSign(real_in_eval=True)),
        "weights are not ±1",
    ),
    "float64": (lambda: BinaryLinear(40, 8).double(), "its weight is torch.float64"),
    "meta": (lambda: BinaryLinear(40, 8).to("meta"), "meta device"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_not_understood_stays_as_it_is(case: str) -> None:
    make, words = LEFT[case]
    model = nn.Sequential(BinaryLinear(40, 40), make()).eval()
    packed = onebit.pack(model)
    assert isinstance(packed[0], PackedLinear)
    assert type(packed[1]) is type(model[1])
    told = report(packed).layers[1]
    assert not told.packed
    assert re.search(words, told.why_not), told.why_not
    if case not in ("float64", "meta"):
        x = torch.randn(3, 40)
        with torch.no_grad():
            assert torch.equal(packed(x), model(x))


# ---- refusals ----


def test_nothing_to_pack() -> None:
    with pytest.raises(ValueError, match=r"no onebit.nn.BinaryLinear"):
        onebit.pack(nn.Sequential(nn.Linear(3, 4)).eval())
    packed = onebit.pack(BinaryLinear(3, 4).eval())
    with pytest.raises(ValueError, match="is packed already"):
        onebit.pack(packed)
    model = nn.Sequential(BinaryLinear(3, 4, input_quantizer=None), hooked(BinaryLinear(4, 4))).eval()
    with pytest.raises(ValueError, match=r"(?s)nothing that it can pack.*0: its input.*1: it has hooks"):
        onebit.pack(model, inplace=True)
    assert isinstance(model[0], BinaryLinear)


def test_training_mode_is_refused() -> None:
    model = nn.Sequential(BinaryLinear(8, 9), nn.Dropout(), BinaryLinear(9, 2))
    with pytest.raises(ValueError, match=r"the model is in training mode; call model.eval"):
        onebit.pack(model.train())
    model.eval()[2].train()
    with pytest.raises(ValueError, match="layer '2' is in training mode"):
        onebit.pack(model)
    packed = onebit.pack(model.eval())
    with pytest.raises(RuntimeError, match="cannot be trained: call eval"):
        packed.train()(torch.randn(3, 8))
    assert packed.eval()(torch.randn(3, 8)).shape == (3, 2)


def test_other_arguments_that_are_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a torch.nn.Module, not str"):
        onebit.pack("model")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="real_inputs must be 'leave' or 'pack'; got 'keep'"):
        onebit.pack(nn.Sequential(BinaryLinear(8, 9)).eval(), real_inputs="keep")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pack first"):
        onebit.pack(torch.compile(nn.Sequential(BinaryLinear(8, 9)).eval(), backend="eager"))
    layer = BinaryLinear(3, 4).eval()
    layer.weight.data[1, 2] = math.nan
    with pytest.raises(ValueError, match="layer 'x' has a NaN"):
        onebit.pack(nn.ModuleDict({"x": layer}).eval())


def test_a_model_that_cannot_be_copied() -> None:
    model = nn.Sequential(BinaryLinear(3, 4), nn.Linear(4, 4)).eval()
    prune.l1_unstructured(model[1], "weight", 5)  # leaves a weight with a gradient function
    with pytest.raises(ValueError, match=r"cannot copy .*inplace=True"):
        onebit.pack(model)
    assert isinstance(onebit.pack(model, inplace=True)[0], PackedLinear)


def test_inputs_that_are_refused() -> None:
    linear, conv = onebit.pack(BinaryLinear(40, 8).eval()), onebit.pack(BinaryConv2d(4, 8, 3).eval())
    with pytest.raises(ValueError, match=r"BinaryLinear\(40, 8\), packed, .* \(\.\.\., 40\); got \(3, 41\)"):
        linear(torch.zeros(3, 41))
    with pytest.raises(ValueError, match=r"\(batch, 4, height, width\); got \(4, 5, 5\)"):
        conv(torch.zeros(4, 5, 5))
    with pytest.raises(TypeError, match=r"floating-point inputs, not torch.int32"):
        linear(torch.zeros(3, 40, dtype=torch.int32))
    with pytest.raises(ValueError, match="NaN"):
        linear(torch.full((3, 40), math.nan))
    with pytest.raises(ValueError, match="does not fit"):
        conv(torch.zeros(1, 4, 2, 2))
