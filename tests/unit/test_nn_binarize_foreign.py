"""What binarize makes of other people's modules: norms with an activation inside, pads, methods that read
weights, tokens; and that it converts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onebit
from onebit.nn import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    binarize,
    binarize_report,
    reestimate_batch_norm_,
)


def reasons(model: nn.Module) -> dict[str, str]:
    return {layer.name: layer.reason for layer in binarize_report(model).layers}


# ---- norms ----


class ReluInside(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class ActInside(nn.BatchNorm2d):
    """Its activation is a child that anybody may exchange, as timm's is."""

    act: nn.Module = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class PlainAct(ActInside):
    act = nn.Identity()


class SiluInside(ActInside):
    act = nn.SiLU()


class GroupNormAct(nn.GroupNorm):
    def __init__(self, channels: int) -> None:
        super().__init__(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.hardtanh(super().forward(x), 0.0, 6.0)


class LayerNorm2d(nn.LayerNorm):
    """ConvNeXt's: over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


NORMS = [  # and whether a BatchNorm goes between it and the next layer: with an example, without
    (nn.BatchNorm2d, False, False),
    (nn.SyncBatchNorm, False, False),
    (ReluInside, True, True),
    (GroupNormAct, True, True),
    (PlainAct, False, True),
    (SiluInside, False, True),
    (LayerNorm2d, False, True),
]


@pytest.mark.parametrize(("norm", "seen", "unseen"), NORMS)
def test_a_norm_is_judged_by_what_it_gives(norm: type[nn.Module], seen: bool, unseen: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), norm(16), nn.Dropout(), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 10, 3)]
    model, x = nn.Sequential(*layers), torch.randn(8, 3, 16, 16)
    for example, want in ((x, seen), (None, unseen)):
        binary = binarize(model, example=example)
        assert ("BatchNorm in front" in reasons(binary)["3"]) == want
        inputs: list[Tensor] = []
        layer = next(m for m in binary.modules() if isinstance(m, BinaryConv2d))
        layer.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
        y = binary.train()(x)
        below = (inputs[0] < 0).float().mean()
        assert 0.1 < below < 0.9
        assert y.std(0).min() > 0


def test_a_replaced_forward_or_a_hook_of_a_norm_counts() -> None:
    x = torch.randn(4, 64)

    def model() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 2)
        )

    hooked = model()
    hooked[1].register_forward_hook(lambda _module, _args, y: y.relu())
    assert "BatchNorm" in reasons(binarize(hooked, example=x))["2"]
    assert "BatchNorm" in reasons(binarize(hooked))["2"]
    assert "BatchNorm" not in reasons(binarize(model()))["2"]
    replaced = model()
    replaced[1].forward = lambda y: y.relu()  # type: ignore[method-assign]
    assert "BatchNorm" in reasons(binarize(replaced, example=x, inplace=True))["2"]


# ---- weights that are read ----


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding=1)


class NeverCalled(Reads):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def reparameterize(self) -> Tensor:
        return self._fused() * 2

    def _fused(self) -> Tensor:
        return self.conv.weight + 1


class ThroughAMethod(Reads):
    def forward(self, x: Tensor) -> Tensor:
        return self._first(x)

    def _first(self, x: Tensor) -> Tensor:
        return self._second(x)

    def _second(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, padding=1)


class ThroughAProperty(Reads):
    @property
    def kernel(self) -> Tensor:
        return self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1)


class ThroughAName(Reads):
    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, "initial_product")(x)  # noqa: B009

    def initial_product(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, padding=1)


class HandedOn(Reads):
    def __init__(self) -> None:
        super().__init__()
        self.compute = self._compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)

    def _compute(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, padding=1)


class ByAHook(Reads):
    def __init__(self) -> None:
        super().__init__()

        def scaled(_module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
            return args[0] * self.conv.weight.mean()

        self.register_forward_pre_hook(scaled)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class CalledByTheParent(Reads):
    def filtered(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, padding=1)


class Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = CalledByTheParent()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.filtered(x)


@pytest.mark.parametrize(
    "kind",
    [ThroughAMethod, ThroughAProperty, ThroughAName, HandedOn, ByAHook, Parent],
    ids=lambda k: k.__name__,
)
def test_a_weight_read_on_the_way_of_a_forward_pass_stays_real(kind: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), kind(), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 8, 1))
    (reason,) = [reason for name, reason in reasons(binarize(model)).items() if name.startswith("1.")]
    assert "reads conv.weight directly" in reason


def test_a_weight_read_by_what_no_forward_pass_calls_does_not_matter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), NeverCalled(), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 8, 1))
    assert "weights and inputs" in reasons(binarize(model))["1.conv"]


# ---- pads ----


class PadThenConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv = nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(16, 16, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pad(x)).relu()


class PadForTwo(PadThenConv):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(16, 16, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pad(x)
        return self.conv(x) + self.other(x)


def converts(binary: nn.Module, x: Tensor) -> None:
    reestimate_batch_norm_(binary, [torch.randn(16, *x.shape[1:]) for _ in range(2)])
    got = onebit.Engine(onebit.convert(binary.eval(), x), threads=1)(x.numpy())
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), binary(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize("dropout", [True, False])
def test_causal_pads(example: bool, dropout: bool) -> None:
    torch.manual_seed(0)

    def block() -> list[nn.Module]:
        between = [nn.Dropout()] if dropout else []
        return [nn.ConstantPad1d((2, 0), 0.0), *between, nn.Conv1d(64, 64, 3), nn.ReLU()]

    model, x = nn.Sequential(*block(), *block(), *block()).eval(), torch.randn(2, 64, 20)
    binary = binarize(model, example=x if example else None)
    conv = "6" if dropout else "4"
    assert reasons(binary)[conv] == "weights and inputs, BatchNorm in front of its padding"
    assert isinstance(binary.get_submodule(conv), BinaryConv1d)
    converts(binary, x)


def test_a_pad_inside_of_a_module_is_seen_with_an_example() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), PadThenConv(), PadThenConv(), nn.Conv2d(16, 4, 1))
    x = torch.randn(2, 3, 18, 18)
    binary = binarize(model.eval(), example=x)
    assert reasons(binary)["2.conv"].endswith("in front of its padding")
    converts(binary, x)


def test_a_pad_that_others_see_stays_before_the_norm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), PadForTwo(), nn.Conv2d(16, 4, 1))
    binary = binarize(model.eval(), example=torch.randn(2, 3, 18, 18))
    assert isinstance(binary[2].pad, nn.ZeroPad2d)
    assert reasons(binary)["2.conv"].endswith("BatchNorm in front")
    shared = nn.ZeroPad2d(1)
    layers = [
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        shared,
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        shared,
        nn.Conv2d(16, 4, 3),
    ]
    binary = binarize(nn.Sequential(*layers), example=torch.randn(2, 3, 18, 18))
    assert binary[2] is binary[5]
    assert reasons(binary)["3"].endswith("BatchNorm in front")
    features = nn.Sequential(
        nn.Linear(64, 62), nn.ReLU(), nn.ConstantPad1d((1, 1), 0.0), nn.Linear(64, 64), nn.Linear(64, 2)
    )
    assert reasons(binarize(features, example=torch.randn(2, 64)))["3"].endswith("BatchNorm in front")


def test_a_pad_behind_a_norm_leaves_it_directly_in_front() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ZeroPad2d(1),
        nn.Conv2d(16, 16, 3),
        nn.Conv2d(16, 4, 1),
    ]
    x = torch.randn(2, 3, 8, 8)
    for example in (x, None):
        binary = binarize(nn.Sequential(*layers).eval(), example=example)
        assert reasons(binary)["3"] == "weights and inputs"
        converts(binary, x)


# ---- tokens ----


@pytest.mark.parametrize("axes", [(), (9,), (1,), (3, 5), (2, 1, 3)])
def test_dense_layers_over_tokens_convert(axes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 8)]
    x = torch.randn(2, *axes, 64)
    binary = binarize(nn.Sequential(*layers).eval(), example=x)
    assert isinstance(binary[2].product, BinaryLinear)
    converts(binary, x)
