"""`onebit.pack`: packed models give PyTorch's own numbers, and nothing is lost in silence."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onebit
from onebit import models
from onebit.nn import ApproxSign, BinaryConv1d, BinaryConv2d, BinaryLinear, RSign
from onebit.ops import PackedConv1d, PackedConv2d, PackedLinear, PackLayerReport, report
from program_samples import HURTING


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(5)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def scrambled(model: nn.Module) -> nn.Module:
    """The model in eval mode with numbers everywhere, some latent weights exactly 0 or -0.0."""
    for name, parameter in model.named_parameters():
        if not name.endswith("weight"):
            parameter.normal_()
    for module in model.modules():
        if isinstance(module, (BinaryLinear, BinaryConv1d, BinaryConv2d)):
            module.weight.view(-1)[::7] = 0.0
            module.weight.view(-1)[::5] = -0.0
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(std=3)
            module.running_var.uniform_(0.5, 9)
    return model.eval()


def numbers(*shape: int) -> Tensor:
    x = torch.randn(shape)
    x.view(-1)[::3] = 0.0
    x.view(-1)[1::7] = -0.0
    return x


@torch.no_grad()
def assert_same(model: nn.Module, x: Tensor, packed: nn.Module | None = None) -> nn.Module:
    """The packed model's result is the model's, bit for bit, and lies in memory alike. Returns the packed."""
    packed = onebit.pack(model) if packed is None else packed
    expected, found = model(x), packed(x)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    return packed


# ---- layers ----

FACTORS: list[dict[str, Any]] = [
    {},
    {"bias": True},
    {"weight_scale": "channel_mean"},
    {"weight_scale": "learned", "bias": True},
    {"input_scale": "xnor"},
    {"input_scale": "xnor", "bias": True, "weight_scale": "channel_mean_detached"},
]


@pytest.mark.parametrize("k", HURTING)
@pytest.mark.parametrize("options", FACTORS)
def test_linear(k: int, options: dict[str, Any]) -> None:
    layer = scrambled(BinaryLinear(k, 33, **options))
    packed = assert_same(layer, numbers(7, k))
    assert isinstance(packed, PackedLinear)
    assert packed.bits.dtype == torch.int32
    for shape in ((k,), (2, 3, k), (0, k)):
        assert_same(layer, numbers(*shape), packed)
    assert_same(layer, numbers(k, 5).t(), packed)


WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "stride": 2, "dilation": 2, "padding_value": 1},
    {"kernel_size": (2, 5), "padding": (1, 2), "stride": (1, 3), "padding_value": -1},
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("options", FACTORS)
@pytest.mark.parametrize("channels", [1, 33, 64])
def test_conv2d(window: dict[str, Any], options: dict[str, Any], channels: int) -> None:
    layer = scrambled(BinaryConv2d(channels, 31, **window, **options))
    packed = assert_same(layer, numbers(3, channels, 9, 10))
    assert isinstance(packed, PackedConv2d)
    assert_same(layer, numbers(2, channels, 7, 8), packed)
    assert_same(layer, numbers(2, channels, 7, 8).contiguous(memory_format=torch.channels_last), packed)
    assert_same(layer, numbers(2, 8, 7, channels).permute(0, 3, 2, 1), packed)


@pytest.mark.parametrize("groups", [2, 3, 66])
@pytest.mark.parametrize("padding_value", [0, -1])
def test_grouped_conv2d(groups: int, padding_value: int) -> None:
    options: dict[str, Any] = {"groups": groups, "padding": 1, "padding_value": padding_value, "bias": True}
    assert_same(scrambled(BinaryConv2d(66, 132, 3, **options)), numbers(2, 66, 8, 5))


def test_channels_last_models_stay_channels_last() -> None:
    layer = scrambled(BinaryConv2d(8, 16, 3)).to(memory_format=torch.channels_last)
    x = numbers(2, 8, 6, 6)
    packed = assert_same(layer, x)
    assert_same(layer, x.contiguous(memory_format=torch.channels_last), packed)
    moved = onebit.pack(scrambled(BinaryConv2d(40, 16, 3))).to(memory_format=torch.channels_last)
    assert moved(x.repeat(1, 5, 1, 1)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize("options", FACTORS)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 4, "padding": 3, "dilation": 2, "padding_value": -1},
    ],
)
def test_conv1d(window: dict[str, Any], options: dict[str, Any]) -> None:
    layer = scrambled(BinaryConv1d(65, 34, **window, **options))
    packed = assert_same(layer, numbers(3, 65, 17))
    assert isinstance(packed, PackedConv1d)
    assert_same(layer, numbers(3, 17, 65).transpose(1, 2), packed)


def rsign(channels: int) -> nn.Module:
    module = RSign(channels)
    nn.init.normal_(module.shift)
    return module


class Shifted(nn.Module):
    """A quantizer of somebody else: it ends in a sign."""

    def forward(self, x: Tensor) -> Tensor:
        return onebit.nn.ste_sign(x * 2 - 1)


@pytest.mark.parametrize(
    "quantizer",
    ["approx_sign", "stochastic_sign", rsign(20), Shifted(), nn.Sequential(nn.Tanh(), ApproxSign())],
)
def test_other_quantizers(quantizer: Any) -> None:
    layer = scrambled(BinaryConv2d(20, 6, 3, input_quantizer=quantizer, weight_quantizer="stochastic_sign"))
    assert_same(layer, numbers(2, 20, 5, 5))
    sub = scrambled(BinaryConv2d(20, 6, 3, input_quantizer=quantizer, input_scale="xnor"))
    assert_same(sub, numbers(2, 20, 5, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_inputs_of_other_precision_keep_it(dtype: torch.dtype) -> None:
    layer = scrambled(BinaryLinear(40, 8, weight_scale="channel_mean"))
    x = numbers(3, 40).to(dtype)
    with torch.no_grad():
        found, expected = onebit.pack(layer)(x), layer(x.float())
    assert torch.equal(found, expected.to(dtype))


# ---- models ----


@pytest.mark.parametrize("name", models.names())
def test_every_model_of_the_registry(name: str) -> None:
    torch.manual_seed(3)
    model = scrambled(models.create_small(name))
    x = models.example_input(model, 5)
    binary = [m for m in model.modules() if isinstance(m, (BinaryLinear, BinaryConv1d, BinaryConv2d))]
    expected = [m for m in binary if m.input_quantizer is not None]
    if not expected:
        with pytest.raises(ValueError, match="input_quantizer=None"):
            onebit.pack(model)
        return
    packed = assert_same(model, x)
    told = report(packed)
    assert sum(layer.packed for layer in told.layers) == len(expected)
    assert len(told.layers) == len(binary)


class Reader(nn.Module):
    """What no converter covers: a loop whose length depends on the data, an LSTM, a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 64)
        self.step = nn.Sequential(BinaryLinear(64, 64, bias=True), nn.BatchNorm1d(64))
        self.memory = nn.LSTM(64, 33, batch_first=True)
        self.heads = nn.ModuleDict(
            {"a": BinaryLinear(33, 5), "b": BinaryLinear(33, 7, weight_scale="learned")}
        )

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.embed(tokens).flatten(0, 1)
        for _ in range(int(tokens[0, 0]) % 3 + 1):
            x = x + self.step(x)
        hidden, _ = self.memory(x.unflatten(0, tokens.shape))
        return {name: head(hidden[:, -1]) for name, head in self.heads.items()}


def test_a_model_that_no_converter_covers() -> None:
    model = scrambled(Reader())
    packed = onebit.pack(model)
    for _ in range(3):
        tokens = torch.randint(0, 50, (4, 6))
        with torch.no_grad():
            expected, found = model(tokens), packed(tokens)
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [layer.name for layer in report(packed).layers] == ["step.0", "heads.a", "heads.b"]


def small() -> nn.Module:
    return scrambled(
        nn.Sequential(
            BinaryConv2d(3, 32, 3, padding=1, input_quantizer=None),
            nn.BatchNorm2d(32),
            BinaryConv2d(32, 40, 3, stride=2, weight_scale="channel_mean", input_scale="xnor", bias=True),
            nn.BatchNorm2d(40),
            nn.ReLU(),
            nn.Flatten(),
            BinaryLinear(40 * 9, 10, input_quantizer=rsign_of_rows(), bias=True),
        )
    )


def rsign_of_rows() -> nn.Module:
    return RSign(40 * 9)


def test_copies_leave_the_model_alone_and_inplace_does_not() -> None:
    model = small()
    x = numbers(2, 3, 8, 8)
    with torch.no_grad():
        expected = model(x)
    packed = onebit.pack(model)
    assert isinstance(model[2], BinaryConv2d)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in packed.parameters())
    assert packed[1] is not model[1]
    norm = model[1]
    again = onebit.pack(model, inplace=True)
    assert again is model
    assert isinstance(model[2], PackedConv2d)
    assert model[1] is norm
    assert torch.equal(again(x), expected)
    assert torch.equal(packed(x), expected)


def test_copies_pickles_and_state_dicts() -> None:
    model = small()
    x = numbers(2, 3, 8, 8)
    packed = assert_same(model, x)
    buffer = io.BytesIO()
    torch.save(packed.state_dict(), buffer)
    other = onebit.pack(
        small().apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    )
    assert not torch.equal(other(x), packed(x))  # and so prepares its weights
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for made in (other, copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert_same(model, x, made)
        assert made[2].bits.data_ptr() != packed[2].bits.data_ptr()


def test_float_weights_do_not_load_into_a_packed_model() -> None:
    for layer in (BinaryLinear(1, 3), BinaryLinear(40, 3)):  # the first has as many words as weights
        packed = onebit.pack(nn.Sequential(layer).eval())
        before = packed[0].bits.clone()
        with pytest.raises(RuntimeError, match=r"0.weight is torch.float32.*before packing"):
            packed.load_state_dict(nn.Sequential(layer).state_dict())
        assert torch.equal(packed[0].bits, before)


def test_shared_layers_stay_shared() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = BinaryLinear(40, 40)
            self.b = self.a
            self.inner = nn.Sequential(self.a, nn.Tanh(), self.a)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.inner(x)) + self.a(x)

    packed = assert_same(scrambled(Twice()), numbers(3, 40))
    assert isinstance(packed.a, PackedLinear)
    assert packed.a is packed.b is packed.inner[0] is packed.inner[2]
    assert len(report(packed).layers) == 1


# ---- real inputs ----


def test_real_inputs_are_left_unless_asked_for() -> None:
    model = small()
    x = numbers(2, 3, 8, 8)
    left = assert_same(model, x)
    assert isinstance(left[0], BinaryConv2d)
    packed = onebit.pack(model, real_inputs="pack")
    assert isinstance(packed[0], PackedConv2d)
    dyadic = torch.randint(-63, 64, (2, 3, 8, 8)) / 16  # every order of summation is exact
    assert_same(model, dyadic, packed)


@pytest.mark.parametrize("options", [{"padding_value": -1}, {"stride": 2, "bias": True}, {"groups": 5}])
def test_packed_layers_of_real_inputs(options: dict[str, Any]) -> None:
    makers = (
        lambda: BinaryConv2d(20, 10, 3, padding=1, input_quantizer=None, **options),
        lambda: BinaryConv1d(20, 10, 3, padding=1, input_quantizer=None, **options),
    )
    for make, shape in zip(makers, ((2, 20, 7, 6), (2, 20, 7)), strict=True):
        x = torch.randint(-63, 64, shape) / 16
        layer = scrambled(make())
        assert_same(layer, x, onebit.pack(layer, real_inputs="pack"))
    layer = scrambled(BinaryLinear(100, 7, input_quantizer=None, weight_scale="learned", bias=True))
    assert_same(layer, torch.randint(-63, 64, (3, 100)) / 16, onebit.pack(layer, real_inputs="pack"))
    x = torch.randn(3, 100)
    found, expected = onebit.pack(layer, real_inputs="pack")(x), layer(x)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


# ---- the report ----


def test_the_report() -> None:
    model = small()
    told = report(onebit.pack(model))
    floats = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert told.bytes_before == floats
    assert told.bytes_after == floats - sum(x.bytes_before - x.bytes_after for x in told.layers)
    conv, first = told.layers[1], told.layers[0]
    assert conv == PackLayerReport(
        "2",
        f"BinaryConv2d({model[2].extra_repr()})",
        True,
        "",
        4 * (40 * 32 * 9 + 40),
        4 * (40 * 9 + 40 + 40),
    )
    assert (first.packed, first.bytes_before) == (False, first.bytes_after)
    assert "real_inputs='pack'" in first.why_not
    text = str(told)
    assert "2 of 3 binary layers packed" in text
    assert first.why_not in text
    assert f"{told.bytes_before} → {told.bytes_after}" in text


def test_the_report_of_a_model_that_was_not_packed() -> None:
    told = report(small())
    assert not any(layer.packed for layer in told.layers)
    assert "onebit.pack was not called" in told.layers[1].why_not
    assert told.bytes_before == told.bytes_after


def test_a_gradient_is_refused() -> None:
    packed = onebit.pack(BinaryLinear(40, 8).eval())
    with pytest.raises(RuntimeError, match="for inference"):
        packed(torch.zeros(3, 40, requires_grad=True))
    with torch.inference_mode():
        assert packed(torch.zeros(3, 40)).shape == (3, 8)


def test_a_model_packed_in_inference_mode_runs_outside() -> None:
    model = small()
    with torch.inference_mode():
        packed = onebit.pack(model)
    assert not packed[2].bits.is_inference()
    assert_same(model, numbers(2, 3, 8, 8), packed)
