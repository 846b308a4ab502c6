"""BinaryConv1d and BinaryConv2d against a convolution written out tap by tap, in integers where both sides
are ±1."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from onebit.nn import BinaryConv1d, BinaryConv2d, SteSign

# in, out, kernel, stride, padding, dilation, groups, height, width
GEOMETRIES = [
    (1, 1, 1, 1, 0, 1, 1, 1, 1),
    (31, 33, 3, 1, 1, 1, 1, 5, 7),
    (33, 32, (3, 1), (1, 2), (1, 0), 1, 1, 6, 7),
    (64, 65, 3, 2, 1, 1, 1, 7, 6),
    (6, 8, 3, 1, (2, 3), 2, 2, 9, 8),
    (63, 63, 5, 1, 2, 1, 63, 5, 5),
    (511, 3, 3, 1, 1, 1, 1, 3, 4),
    (32, 7, 7, 3, 3, 1, 1, 9, 11),
    (4, 6, 2, 1, 1, (3, 1), 2, 7, 9),
    (65, 2, (1, 4), 1, (0, 5), 1, 1, 1, 3),
]


def dyadic(*shape: int, seed: int = 0) -> Tensor:
    """Random multiples of 1/8 in [-2, 2], zero included: sums of their products are exact in any order."""
    return torch.randint(-16, 17, shape, generator=torch.Generator().manual_seed(seed)) / 8


def signs(x: Tensor) -> Tensor:
    """±1 in x's dtype, written with another comparison than the library's."""
    return torch.where(x < 0, -torch.ones_like(x), torch.ones_like(x))


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def direct(x: Tensor, w: Tensor, stride, padding, dilation, groups: int, outside: float) -> Tensor:
    """The convolution's definition, one tap after the other, in float64, with `outside` around the image."""
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    x, w = x.double(), w.double()
    batch, channels, height, width = x.shape
    outputs, _, kh, kw = w.shape
    framed = torch.full((batch, channels, height + 2 * ph, width + 2 * pw), outside, dtype=torch.float64)
    framed[:, :, ph : ph + height, pw : pw + width] = x
    oh = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    y = torch.zeros(batch, outputs, oh, ow, dtype=torch.float64)
    share_in, share_out = channels // groups, outputs // groups
    for g in range(groups):
        inside = framed[:, g * share_in : (g + 1) * share_in]
        for ky in range(kh):
            for kx in range(kw):
                taps = inside[:, :, ky * dh : ky * dh + sh * oh : sh, kx * dw : kx * dw + sw * ow : sw]
                weights = w[g * share_out : (g + 1) * share_out, :, ky, kx]
                part = (taps[:, None, :, :oh, :ow] * weights[None, :, :, None, None]).sum(2)
                y[:, g * share_out : (g + 1) * share_out] += part
    return y


def make(geometry: tuple, **options: object) -> tuple[BinaryConv2d, Tensor]:
    """A layer with dyadic latent weights and a dyadic batch for it."""
    channels, outputs, kernel, stride, padding, dilation, groups, height, width = geometry
    layer = BinaryConv2d(channels, outputs, kernel, stride, padding, dilation, groups, **options)
    with torch.no_grad():
        layer.weight.copy_(dyadic(*layer.weight.shape, seed=1))
    return layer, dyadic(3, channels, height, width)


@pytest.mark.parametrize("padding_value", [0, 1, -1])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_both_sides_binary_gives_the_integer_sum(geometry: tuple, padding_value: int) -> None:
    layer, x = make(geometry, padding_value=padding_value)
    y = layer(x)
    expected = direct(signs(x), signs(layer.weight), *geometry[3:7], padding_value)
    assert y.dtype == torch.float32
    assert y.double().tolist() == expected.tolist()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_real_input_binary_weight(geometry: tuple) -> None:
    layer, x = make(geometry, input_quantizer=None)
    assert layer(x).double().tolist() == direct(x, signs(layer.weight), *geometry[3:7], 0).tolist()


def test_input_of_signs_is_padded_as_it_comes() -> None:
    geometry = GEOMETRIES[1]
    layer, x = make(geometry, input_quantizer=None, padding_value=-1)
    expected = direct(signs(x), signs(layer.weight), *geometry[3:7], -1)
    assert layer(signs(x)).double().tolist() == expected.tolist()


@pytest.mark.parametrize("padding_value", [0, 1, -1])
def test_one_dimension_is_two_with_height_one(padding_value: int) -> None:
    for channels, outputs, kernel, stride, padding, dilation, groups, length in (
        (1, 1, 1, 1, 0, 1, 1, 1),
        (33, 31, 3, 1, 1, 1, 1, 7),
        (64, 6, 5, 2, 4, 3, 2, 65),
        (32, 32, 2, 3, 1, 1, 32, 33),
    ):
        layer = BinaryConv1d(
            channels, outputs, kernel, stride, padding, dilation, groups, padding_value=padding_value
        )
        x = dyadic(2, channels, length)
        sizes = ((1, stride), (0, padding), (1, dilation))
        expected = direct(
            signs(x)[:, :, None], signs(layer.weight)[:, :, None], *sizes, groups, padding_value
        )
        assert layer(x).double().tolist() == expected[:, :, 0].tolist()


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g[6] == 1])
@pytest.mark.parametrize("padding_value", [0, 1])
def test_k_is_the_box_filtered_channel_mean(geometry: tuple, padding_value: int) -> None:
    """XNOR-Net eq. 9-11; also with dilation and with a padding too wide for a pooling operator."""
    channels, _, kernel, stride, padding, _, _, *_ = geometry
    for dilation in (1, 2) if geometry[7] > 4 and kernel != 7 else (1,):
        geometry = (*geometry[:5], dilation, *geometry[6:])
        layer, x = make(geometry, input_scale="xnor", padding_value=padding_value)
        layer = layer.double()
        x = x.double()
        total = direct(signs(x), signs(layer.weight), stride, padding, dilation, 1, padding_value)
        kh, kw = pair(kernel)
        box = torch.ones(1, 1, kh, kw) / (kh * kw)
        a = x.abs().sum(1, keepdim=True) / channels
        k = direct(a, box, stride, padding, dilation, 1, 0)
        torch.testing.assert_close(layer(x), total * k, rtol=1e-6, atol=0)  # the box is stored in float32


def test_k_of_one_dimension() -> None:
    layer = BinaryConv1d(5, 3, 4, stride=2, padding=2, input_scale="xnor").double()
    x = dyadic(2, 5, 33).double()
    total = direct(signs(x)[:, :, None], signs(layer.weight)[:, :, None], (1, 2), (0, 2), 1, 1, 0)
    k = direct(x.abs().mean(1, keepdim=True)[:, :, None], torch.ones(1, 1, 1, 4) / 4, (1, 2), (0, 2), 1, 1, 0)
    torch.testing.assert_close(layer(x), (total * k)[:, :, 0])


def test_scales_and_bias_come_after_the_integer_sum() -> None:
    """With factors that round, only ((sum · α) · K) + bias in separate roundings gives these floats."""
    layer = BinaryConv2d(65, 33, 3, padding=1, weight_scale="learned", input_scale="xnor", bias=True).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        layer.scale.copy_(torch.rand(33, generator=generator))
        layer.bias.copy_(torch.randn(33, generator=generator))
    x = torch.randn(3, 65, 6, 7, generator=generator)
    total = direct(signs(x), signs(layer.weight), 1, 1, 1, 1, 0).numpy().astype("float32")
    k = nn.functional.avg_pool2d(x.abs().mean(1, keepdim=True), 3, 1, 1).numpy()
    alpha = layer.scale.detach().numpy()[:, None, None]
    expected = total * alpha * k + layer.bias.detach().numpy()[:, None, None]  # NumPy: float32, no fma
    assert layer(x).tolist() == expected.tolist()


def test_sum_beyond_sixteen_bits_stays_exact() -> None:
    layer = BinaryConv2d(4099, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    y = layer(torch.ones(1, 4099, 3, 3))
    assert y[0, 0].tolist() == [[4099.0 * taps for taps in row] for row in ((4, 6, 4), (6, 9, 6), (4, 6, 4))]
    assert y.max() > 2**15


def test_without_weight_quantizer_it_is_a_real_layer() -> None:
    geometry = GEOMETRIES[3]
    layer, x = make(geometry, input_quantizer=None, weight_quantizer=None)
    assert torch.equal(layer(x).double(), direct(x, layer.weight, *geometry[3:7], 0))
    assert layer.latent_parameters() == []


@pytest.mark.parametrize(
    "options",
    [
        {"padding_value": 1},
        {"padding_value": -1, "weight_scale": "channel_mean", "input_scale": "xnor"},
        {"weight_scale": "channel_mean_loose", "input_scale": "xnor", "dilation": 2},
        {"weight_scale": "channel_mean_detached", "groups": 3},
        {"weight_scale": "learned", "bias": True, "stride": 2, "input_quantizer": "approx_sign"},
        {"input_quantizer": "stochastic_sign", "weight_quantizer": "stochastic_sign"},
    ],
)
def test_compiled_equals_eager(options: dict) -> None:
    torch.compiler.reset()
    layer = BinaryConv2d(33, 6, 3, padding=1, **options)
    results = []
    for function in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(3)
        layer.zero_grad()
        x = dyadic(2, 33, 7, 6).requires_grad_()
        y = function(x)
        (y * dyadic(*y.shape, seed=5)).sum().backward()
        results.append([y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())])
    for eager, fast in zip(*results, strict=True):
        assert torch.equal(eager, fast)
        assert eager.count_nonzero() > 0


def test_uniform_and_glorot_start() -> None:
    torch.manual_seed(0)
    wide = BinaryConv2d(64, 32, 5).weight
    assert 0.99 < wide.abs().max() <= 1
    narrow = BinaryConv2d(64, 32, (5, 3), groups=2, init="glorot").weight
    bound = (6 / ((32 + 32) * 15)) ** 0.5  # fans over the weight's own shape: 32 inputs a group, 32 outputs
    assert 0.99 * bound < narrow.abs().max() <= bound


def test_state_dict_holds_parameters_only() -> None:
    layer = BinaryConv2d(5, 4, 3, dilation=2, weight_scale="learned", input_scale="xnor", bias=True)
    assert sorted(layer.state_dict()) == ["bias", "scale", "weight"]
    twin = copy.deepcopy(layer)
    x = dyadic(2, 5, 6, 7)
    assert torch.equal(twin(x), layer(x))
    assert twin.latent_parameters()[0] is twin.weight


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be a positive integer; got 0"),
        ({"out_channels": True}, ValueError, "out_channels must be a positive integer; got True"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be a positive integer or 2 of them; got 0"),
        ({"kernel_size": (3, 3, 3)}, ValueError, r"kernel_size must be .*; got \(3, 3, 3\)"),
        ({"stride": (1, 0)}, ValueError, r"stride must be a positive integer .*; got \(1, 0\)"),
        ({"padding": -1}, ValueError, "padding must be an integer of at least 0 or 2 of them; got -1"),
        ({"padding": "full"}, ValueError, "padding must be a number, 'same' or 'valid'; got 'full'"),
        ({"padding": "same", "stride": (1, 2)}, ValueError, r"not supported for strided.*stride=\(1, 2\)"),
        ({"dilation": 1.5}, ValueError, "dilation must be .*; got 1.5"),
        ({"groups": 3}, ValueError, "groups must divide .*groups=3, in_channels=4, out_channels=6"),
        ({"padding_value": 2}, ValueError, "padding_value must be 0, 1 or -1; got 2"),
        ({"input_scale": "xnor", "groups": 2}, ValueError, "input_scale='xnor' is defined for groups=1"),
        (
            {"input_scale": "xnor", "input_quantizer": None},
            ValueError,
            "input_scale='xnor'.*with input_quantizer=None there is none",
        ),
        ({"weight_scale": "mean"}, ValueError, "weight_scale must be one of None.*; got 'mean'"),
        ({"input_quantizer": "sign"}, ValueError, "unknown quantizer 'sign'"),
        ({"weight_quantizer": 1}, TypeError, "weight_quantizer must be a name .*; got 1"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        BinaryConv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options})


@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (4, 8, 8), (2, 4, 8), (2, 4, 8, 8, 8)])
def test_wrong_input_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"BinaryConv2d\(4, 6, ...\) takes inputs of .*\(batch, 4, height"):
        BinaryConv2d(4, 6, 3)(torch.zeros(shape))


def test_one_dimension_names_itself() -> None:
    with pytest.raises(ValueError, match=r"BinaryConv1d\(4, 6, ...\) takes inputs of .*\(batch, 4, length\)"):
        BinaryConv1d(4, 6, 3)(torch.zeros(2, 4, 8, 8))
    with pytest.raises(ValueError, match="kernel_size must be a positive integer; got"):
        BinaryConv1d(4, 6, (3, 3))


def test_repr_shows_what_differs_from_the_default() -> None:
    text = repr(
        nn.Sequential(
            BinaryConv2d(4, 6, 3, 2, (1, 0), groups=2, padding_value=-1, input_quantizer=SteSign()),
            BinaryConv1d(4, 6, 3, dilation=2, input_scale="xnor", weight_quantizer=None),
        )
    )
    assert "4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 0), groups=2, padding_value=-1\n" in text
    assert "4, 6, kernel_size=3, dilation=2, input_scale='xnor', weight_quantizer=None\n" in text
