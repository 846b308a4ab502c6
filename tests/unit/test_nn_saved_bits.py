"""Saving bits and small integers for the backward pass changes no value and no gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from onebit import convert, models  # noqa: E402
from onebit import nn as bnn  # noqa: E402
from onebit.nn import save_bits_  # noqa: E402
from onebit.nn.saved_functions import SIGNS, SavedGrid, decode, encode, pack_mask, unpack_mask  # noqa: E402


def _step(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Output, gradients and buffers of one training step."""
    torch.manual_seed(3)  # dropout and stochastic signs
    model.train().zero_grad(set_to_none=True)
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return y.detach(), gradients, {name: b.clone() for name, b in model.named_buffers()}


def _saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, parameters and inputs left out."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), x]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model.train()(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _assert_same(a: nn.Module, b: nn.Module, x: Tensor) -> None:
    for mine, theirs in zip(_step(a, x)[1:], _step(b, x)[1:], strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.equal(mine[name], theirs[name]), name
    assert torch.equal(_step(a, x)[0], _step(b, x)[0])


_SHAPES = [(0,), (1,), (7,), (8,), (9, 5), (2, 3, 5, 7), (1, 33, 2, 4)]


@pytest.mark.parametrize(
    ("shape", "channels_last"), [*((s, False) for s in _SHAPES), *((s, True) for s in _SHAPES if len(s) == 4)]
)
def test_mask_and_integers_come_back(shape: tuple[int, ...], channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-300, 301, shape, generator=generator) / 256
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    layout = x.shape, channels_last and not x.is_contiguous()
    mask = x.abs() <= 0.5
    code = pack_mask(mask)
    assert code.dtype == torch.uint8
    assert code.numel() == -(-x.numel() // 8)
    assert torch.equal(unpack_mask(code, *layout), mask)
    for grid, value in ((SavedGrid(2.0**-8, 300), x), (SIGNS, torch.where(mask, 1.0, -1.0))):
        back = decode(encode(value, grid), grid, *layout, torch.float32)
        assert torch.equal(back, value)
        assert back.stride() == value.stride() or x.numel() < 2


@pytest.mark.parametrize(
    ("bound", "dtype"), [(127, torch.int8), (128, torch.int16), (32767, torch.int16), (32768, None)]
)
def test_a_grid_takes_the_smallest_type_that_holds_its_ends(bound: int, dtype: torch.dtype | None) -> None:
    grid = SavedGrid(1.0, bound)
    assert grid.dtype == dtype
    ends = torch.tensor([-bound, bound], dtype=torch.float32)
    code = encode(ends, grid)
    assert code.dtype == (dtype or torch.float32)
    assert torch.equal(decode(code, grid, ends.shape, False, torch.float32), ends)


@pytest.mark.parametrize("name", models.names())
def test_every_registered_model_keeps_its_gradients(name: str) -> None:
    torch.manual_seed(0)
    entry = models.entry(name)
    model = models.create(name, **entry.small)
    shape = entry.small.get("input_shape", (3, 32, 32))
    x = _example(model, shape)
    lean = copy.deepcopy(model)
    changed = save_bits_(lean, x[:2])
    assert list(lean.state_dict()) == list(model.state_dict())
    _assert_same(model, lean, x)
    if changed:
        assert _saved_bytes(lean, x) < _saved_bytes(model, x)


def _example(model: nn.Module, shape: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if getattr(model, "takes_bytes", True):
        return torch.randint(0, 256, (6, *shape), generator=generator, dtype=torch.uint8)
    return torch.randn(6, *shape, generator=generator)


def test_a_convnet_saves_a_fourth_at_most() -> None:
    torch.manual_seed(0)
    model = models.create("bnn_convnet_cifar10", widths=(32, 64, 128), hidden=(128,))
    x = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    before = _saved_bytes(model, x)
    changed = save_bits_(model, x[:2])
    assert before >= 4 * _saved_bytes(model, x)
    assert changed["conv2"] == "input 1 bit, weight 1 bit"
    assert changed["norm1"] == "input int16"
    assert changed["pool2"] == "places uint8"
    assert changed["activation1"] == "mask 1 bit"


@pytest.mark.parametrize("padding_value", [0, 1, -1])
@pytest.mark.parametrize("channels_last", [False, True])
def test_convolutions_of_every_kind(padding_value: int, channels_last: bool) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        bnn.SteSign(window=0.7),
        bnn.BinaryConv2d(
            6, 8, (3, 2), (2, 1), (1, 2), (1, 2), 2, padding_value=padding_value, input_quantizer=None
        ),  # type: ignore[arg-type]
        nn.MaxPool2d((3, 2), (2, 3), (1, 0), (1, 2), ceil_mode=True),
        nn.BatchNorm2d(8, affine=False),
        bnn.BinaryConv2d(8, 5, 3, padding=1, weight_scale="channel_mean", input_scale="xnor", bias=True),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(5),
        bnn.ApproxSign(),
        bnn.BinaryConv2d(5, 4, 1, input_quantizer=None, weight_quantizer="stochastic_sign"),
        nn.Flatten(),
        bnn.BinaryLinear(4 * 2 * 1, 3, weight_scale="learned"),
    )
    x = torch.randn(5, 6, 13, 11, requires_grad=True)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.no_grad():
        model.eval()
        size = nn.Sequential(*list(model)[:-1])(x).shape[1]
    model[-1] = bnn.BinaryLinear(size, 3, weight_scale="learned")
    lean = copy.deepcopy(model)
    changed = save_bits_(lean, x.detach())
    assert {"1", "2", "3", "4", "5", "8"} <= set(changed)
    assert "6" not in changed  # its input has been through α and K: real
    _assert_same(model, lean, x)
    of_input = []
    for module in (model, lean):
        torch.manual_seed(9)  # stochastic signs
        of_input += torch.autograd.grad(module(x).sum(), x)
    assert torch.equal(*of_input)
    assert of_input[0].abs().sum() > 0


def _quantizers(side: str) -> list[str]:
    only_for = {
        name: getattr(bnn.quantizers.create(name), "only_for", side) for name in bnn.quantizers.names()
    }
    return [name for name, only in only_for.items() if only == side]


@pytest.mark.parametrize("activation", _quantizers("inputs"))
@pytest.mark.parametrize("weights", [None, *_quantizers("weights")])
def test_every_pair_of_quantizers(activation: str, weights: str | None) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        bnn.quantizers.create(activation),
        bnn.BinaryLinear(9, 8, input_quantizer=None, weight_quantizer=weights),
        nn.BatchNorm1d(8),
        bnn.BinaryLinear(8, 3, input_quantizer=activation, weight_quantizer=weights),
    )
    lean = copy.deepcopy(model)
    changed = save_bits_(lean, torch.randn(5, 9))
    assert {"1", "3"} <= set(changed)
    assert ("weight as it is" in changed["1"]) == (weights is None)
    assert ("input as it is" in changed["1"]) == (activation == "heaviside")
    _assert_same(model, lean, torch.randn(5, 9))


def test_one_dimension_and_tokens() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        bnn.BinaryConv1d(5, 33, 3, padding=1),
        nn.BatchNorm1d(33),
        bnn.SteSign(),
        bnn.BinaryConv1d(33, 9, 4, 2, dilation=2, input_quantizer=None),
        bnn.BinaryLinear(7, 4),
    )
    x = torch.randn(4, 5, 20)
    lean = copy.deepcopy(model)
    changed = save_bits_(lean, x)
    assert changed["1"] == "input int8"  # K is 15
    assert changed["3"] == "input 1 bit, weight 1 bit"
    _assert_same(model, lean, x)


class _Residual(nn.Module):
    """What comes from a sum may be any number, for all that is known; so may what changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.sign, self.dropout = bnn.SteSign(), nn.Dropout(0.5)
        self.first = bnn.BinaryLinear(6, 6, input_quantizer=None)
        self.second = bnn.BinaryLinear(6, 6, input_quantizer=None)
        self.third = bnn.BinaryLinear(6, 6, input_quantizer=None)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        signs = self.sign(x)
        y = self.first(signs)
        z = self.second(self.dropout(self.sign(y)))  # in eval mode dropout hands on the very tensor
        z.mul_(0.3)
        return self.norm(z) + self.third(signs + y)


def test_what_is_not_known_is_kept() -> None:
    torch.manual_seed(3)
    model = _Residual()
    x = torch.randn(9, 6)
    lean = copy.deepcopy(model)
    changed = save_bits_(lean, x)
    assert changed["first"] == "input 1 bit, weight 1 bit"
    assert changed["second"] == changed["third"] == "input as it is, weight 1 bit"
    assert "norm" not in changed
    _assert_same(model, lean, x)


def test_a_layer_called_twice_on_different_inputs_is_taken_for_real() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sign, self.layer = bnn.SteSign(), bnn.BinaryLinear(6, 6, input_quantizer=None)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(self.sign(x)))

    torch.manual_seed(4)
    model = Twice()
    lean = copy.deepcopy(model)
    x = torch.randn(3, 6)
    assert save_bits_(lean, x)["layer"] == "input as it is, weight 1 bit"
    _assert_same(model, lean, x)


class _FunctionalDropout(nn.Module):
    """In eval mode F.dropout hands on its very input."""

    def __init__(self) -> None:
        super().__init__()
        self.sign, self.layer = bnn.SteSign(), bnn.BinaryLinear(8, 4, input_quantizer=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.dropout(self.sign(x), 0.5, self.training))


def test_what_holds_in_eval_mode_alone_is_not_taken_for_known() -> None:
    torch.manual_seed(4)
    model = _FunctionalDropout()
    lean = copy.deepcopy(model)
    x = torch.randn(6, 8)
    assert save_bits_(lean, x)["layer"] == "input as it is, weight 1 bit"
    _assert_same(model, lean, x)


@pytest.mark.parametrize("train", [True, False])
def test_weights_that_are_real_in_eval_mode_keep_their_gradients_there(train: bool) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        bnn.SteSign(),
        bnn.BinaryLinear(8, 4, input_quantizer=None, weight_quantizer=bnn.StochasticSign(real_in_eval=True)),
        nn.BatchNorm1d(4),
    )
    lean = copy.deepcopy(model)
    assert "2" not in save_bits_(lean, torch.randn(6, 8))
    found = []
    for each in (model, lean):
        torch.manual_seed(3)
        x = torch.linspace(-0.9, 0.9, 48).reshape(6, 8).requires_grad_()
        (each.train(train)(x) * torch.linspace(-1, 1, 24).reshape(6, 4)).sum().backward()
        found += [x.grad]
    assert torch.equal(*found)
    assert found[0].abs().sum() > 0


def test_modes_buffers_and_state_stay() -> None:
    torch.manual_seed(5)
    model = models.create("bnn_mlp", input_shape=(1, 4, 4), hidden=(33,), dropout_hidden=0.1)
    model.train()
    dict(model.named_modules())["norm1"].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    x = torch.randint(0, 256, (4, 1, 4, 4), dtype=torch.uint8)
    generator = torch.get_rng_state()
    save_bits_(model, x)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    again = copy.deepcopy(model)
    assert save_bits_(again, x) == {}  # nothing is left to change
    _assert_same(model, again, x)


def test_under_gradient_checkpointing_it_is_the_same() -> None:
    torch.manual_seed(6)
    model = models.create("bnn_convnet_cifar10", input_shape=(3, 8, 8), widths=(8, 8, 16), hidden=(16,))
    x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    save_bits_(model, x)
    twin = copy.deepcopy(model)
    model.train()(x).square().sum().backward()
    checkpoint(twin.train(), x, use_reentrant=False).square().sum().backward()
    for ours, again in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, again.grad)
        assert ours.grad.abs().sum() > 0


def test_a_changed_model_converts_as_before() -> None:
    torch.manual_seed(6)
    model = models.create("bnn_convnet_cifar10", **models.entry("bnn_convnet_cifar10").small)
    x = torch.randint(0, 256, (3, 3, 9, 10), dtype=torch.uint8)
    model.train()(x)
    plain = convert(copy.deepcopy(model).eval(), x[:1])
    save_bits_(model, x)
    packed = convert(model.eval(), x[:1])
    assert plain.nodes == packed.nodes
    assert all(
        (plain.constants[name].array == packed.constants[name].array).all() for name in plain.constants
    )


def _compiled(model: nn.Module, backend: str) -> Any:
    torch._dynamo.reset()
    return torch.compile(model, backend=backend, fullgraph=True)


def test_compiled_without_graph_breaks_it_is_the_same() -> None:
    torch.manual_seed(7)
    model = models.create("bnn_convnet_cifar10", input_shape=(3, 8, 8), widths=(8, 8, 16), hidden=(16,))
    x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    save_bits_(model, x)
    eager = copy.deepcopy(model)
    compiled = _step(_compiled(model, "aot_eager"), x)
    for mine, theirs in zip(_step(eager, x)[1:], compiled[1:], strict=True):
        assert len(mine) == len(theirs) > 0
        for name in mine:
            assert torch.equal(mine[name], theirs[f"_orig_mod.{name}"]), name
    assert all(gradient.abs().sum() > 0 for gradient in compiled[1].values())


@pytest.mark.slow  # a compiler runs
def test_inductor_compiles_a_layer() -> None:
    """One layer only: behind a BatchNorm that rounds otherwise, the next sign may differ."""
    torch.manual_seed(7)
    model = nn.Sequential(
        bnn.SteSign(), bnn.BinaryConv2d(9, 8, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Flatten()
    )
    x = torch.randn(6, 9, 8, 8)
    save_bits_(model, x)
    eager = copy.deepcopy(model)
    y, gradients, _ = _step(_compiled(model, "inductor"), x)
    reference, expected, _ = _step(eager, x)
    torch.testing.assert_close(y, reference, rtol=1e-4, atol=1e-4)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[f"_orig_mod.{name}"], gradient, rtol=1e-3, atol=1e-3)
        assert gradient.abs().sum() > 0


def test_autocast_works_as_before() -> None:
    torch.manual_seed(8)
    model = models.create("bnn_mlp", input_shape=(1, 4, 4), hidden=(33, 33))
    x = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    lean = copy.deepcopy(model)
    save_bits_(lean, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), lean(x))
