"""Parameter counts of the image models, each derived by hand from its paper's sizes, and the policy of their
first and last layers. Models are built on the meta device: nothing is allocated.

c → n k×k stands for c·n·k² weights; a BatchNorm has 2 parameters a channel.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onebit import models
from onebit.nn import BinaryConv1d, BinaryConv2d, BinaryLinear, NormalizePixels, RSign
from onebit.optim import latent_parameters

# fmt: off
COUNTS = {
    # 3→128 3,456; 128→128 147,456; 128→256 294,912; 256→256 589,824; 256→512 1,179,648; 512→512 2,359,296;
    # 8192→1024 8,388,608; 1024→1024 1,048,576; 1024→10 10,240: 14,022,016 one-bit weights.
    # BatchNorm 2·(2·128 + 2·256 + 2·512 + 2·1024 + 10) = 7,700.
    "bnn_convnet_cifar10": 14_022_016 + 7_700,
    # 1,728 + 36,864 + 73,728 + 147,456 + 294,912 + 589,824 + 4096→1024 4,194,304 + 1,048,576 + 10,240
    # = 6,397,632. BatchNorm 2·(2·64 + 2·128 + 2·256 + 2·1024 + 10) = 5,908.
    "bnn_convnet_svhn": 6_397_632 + 5_908,
    # The same 14,022,016 one-bit weights and BatchNorms as bnn_convnet_cifar10; half the widths as for SVHN.
    "binaryconnect_convnet_cifar10": 14_022_016 + 7_700,
    "binaryconnect_convnet_svhn": 6_397_632 + 5_908,
    # A bias of 10 instead of the last BatchNorm, 20.
    "bwn_convnet_cifar10": 14_022_016 + 7_700 - 20 + 10,
    # BatchNorm behind the first layer and before all others: 2·(3·128 + 2·256 + 2·512 + 2·1024); 10 biases.
    "xnor_convnet_cifar10": 14_022_016 + 2 * 3_968 + 10,
    # RSign before the hidden layers 2·128 + 2·256 + 2·512 + 1024 = 2,816; BatchNorm and RPReLU behind all but
    # the last 5·(2·128 + 2·256 + 2·512 + 2·1024) = 19,200; 10 biases.
    "modern_convnet_cifar10": 14_022_016 + 2_816 + 19_200 + 10,
    # Embedding 8→64 512 + 64, positions 8·64. Twice: q, k, v 64→192 12,288; output 4,096; 64→128 8,192; back
    # 8,192; LayerNorm before each 2·(64 + 64 + 64 + 128). LayerNorm 128; 64→10 650.
    "bit_encoder": 576 + 512 + 2 * (32_768 + 640) + 128 + 650,
    # 1→20 5×5 500 + bias 20; BatchNorm 40; 20→50 5×5 25,000 + 50; BatchNorm of 800 1,600; 800→500 400,000 +
    # 500; 500→10 5,000 + 10. (The first BatchNorm has no parameters.)
    "lenet5_xnor": 520 + 40 + 25_050 + 1_600 + 400_500 + 5_010,
    # 3→192 5×5 14,400 + 192. Then BatchNorm + weights + bias: 192→160 384 + 30,720 + 160; 160→96 320 + 15,360
    # + 96; 96→192 5×5 192 + 460,800 + 192; 192→192 1×1 384 + 36,864 + 192, three times; 192→192 3×3 384 +
    # 331,776 + 192; 192→10 1,920 + 10.
    "nin_xnor": 14_592 + 31_264 + 15_776 + 461_184 + 3 * 37_440 + 332_352 + 1_930,
    # 3→96 11×11 34,848; 96→256 5×5 614,400; 256→384 884,736; 384→384 1,327,104; 384→256 884,736;
    # 9216→4096 37,748,736; 4096→4096 16,777,216; 4096→1000 4,096,000 + 1,000: 62,368,776.
    # BatchNorm behind each layer but the last: 2·(96 + 256 + 384 + 384 + 256 + 4096 + 4096) = 19,136.
    "alexnet_bnn": 62_368_776 + 19_136,
    "alexnet_bwn": 62_368_776 + 19_136,
    # BatchNorm before each layer but the first, and behind that one too: 2·(96 + 9,568) = 19,328.
    "alexnet_xnor": 62_368_776 + 19_328,
    # ResNet-18, the count that every library gives: 11,689,512 = 3→64 7×7 9,408; four 64→64 147,456; 64→128
    # 73,728 and three 128→128 442,368; 128→256 294,912 and 1,769,472; 256→512 1,179,648 and 7,077,888; 1×1
    # shortcuts 8,192 + 32,768 + 131,072; BatchNorm 2·(64 + 4·960 + 896) = 9,600; 512→1000 513,000.
    "resnet18_bwn": 11_689_512,
    "birealnet18": 11_689_512,
    # BatchNorm before the convolutions: the first of stages 2, 3, 4 has half the channels, -2·(64 + 128 +
    # 256); one more before the average, + 2·512.
    "resnet18_xnor": 11_689_512 - 896 + 1_024,
    # GoogLeNet without auxiliary classifiers has 6,998,552 parameters with a bias for each of the 7,280
    # channels of its convolutions; here each of them has a BatchNorm instead. 7,280 = 64 + 64 + 192 in the
    # stem and, for the nine blocks, 368 + 640 + 624 + 648 + 664 + 704 + 1,024 + 1,024 + 1,264.
    "googlenet_bnn": 6_998_552 - 7_280 + 2 * 7_280,
    # A block c → c: RSign c, 3×3 9c², BatchNorm 2c, RPReLU 3c, RSign c, 1×1 c², BatchNorm 2c, RPReLU 3c: 10c²
    # + 12c. c → 2c: 1×1 and BatchNorm twice, the last RPReLU 6c: 11c² + 17c. 32→64 11,808; 64→128 46,144; 128
    # 165,376; 128→256 182,400; 256 658,432; 256→512 725,248; five of 512 13,137,920; 512→1024 2,892,288; 1024
    # 10,498,048. Stem 864 + 64; 1024→1000 1,025,000.
    "reactnet_a": 11_808 + 46_144 + 165_376 + 182_400 + 658_432 + 725_248 + 13_137_920 + 2_892_288
    + 10_498_048 + 928 + 1_025_000,
    # Larq Zoo publishes 13,234,088, 12,655,688 and 23,342,248. Those count the fixed 3×3 blur of each channel
    # that enters a transition, 9·(64 + 128 + 256) or, in the small one, 9·(32 + 64 + 256), and 2 numbers for
    # each of the 16 or 8 channels of the stem's BatchNorm without scale and shift.
    "quicknet": 13_234_088 - 4_032 - 32,
    "quicknet_small": 12_655_688 - 3_168 - 16,
    "quicknet_large": 23_342_248 - 4_032 - 32,
    # 40 filters of 64 taps 2,560, half a loudness each 40; BatchNorm of 3·40 240; 120→96 k5 57,600; 96→128
    # 61,440; 128→128 81,920; BatchNorm 2·(96 + 128 + 128) = 704; 128→10 1,280 + 10.
    "bnn_keyword_spotter": 2_600 + 240 + 57_600 + 61_440 + 81_920 + 704 + 1_290,
}
_ONE_BIT = (BinaryConv1d, BinaryConv2d, BinaryLinear)
# fmt: on
IMAGENET = [n for n in COUNTS if n.startswith(("alexnet", "resnet", "bireal", "google", "react", "quick"))]


def meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return models.create(name)


def products(model: nn.Module) -> list[nn.Module]:
    """Convolutions and dense layers, in order."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear, *_ONE_BIT)
    return [module for module in model.modules() if isinstance(module, kinds)]


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count(name: str) -> None:
    assert sum(p.numel() for p in meta(name).parameters()) == COUNTS[name]


def test_every_image_model_is_pinned() -> None:
    assert set(COUNTS) == {name for name in models.names() if not name.endswith("_mlp")}


@pytest.mark.parametrize("name", COUNTS)
def test_first_and_last_layer_policy(name: str) -> None:
    """The ConvNets of BNN and BinaryConnect are one-bit throughout; elsewhere first and last are real."""
    layers = products(meta(name))
    real = [not isinstance(layer, _ONE_BIT) for layer in (layers[0], layers[-1])]
    throughout = name.startswith(("bnn_convnet", "binaryconnect_convnet"))
    assert real == ([False, False] if throughout else [True, True])


@pytest.mark.parametrize("name", COUNTS)
def test_latent_weights_are_those_of_the_one_bit_layers(name: str) -> None:
    model = meta(name)
    latent = [p for _, p in latent_parameters(model)]
    expected = [m.weight for m in products(model) if isinstance(m, _ONE_BIT)]
    assert {id(p) for p in latent} == {id(p) for p in expected}
    assert len(expected) >= 2


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_models_take_bytes_of_the_published_size(name: str) -> None:
    model = meta(name)
    assert model.input_shape == (3, 224, 224)
    assert isinstance(model.pixels, NormalizePixels)
    x = torch.empty(2, 3, 224, 224, dtype=torch.uint8, device="meta")
    assert model(x).shape == (2, 1000)


def test_real_layers_of_the_residual_networks() -> None:
    """Stem, 1×1 downsamplings, classifier; QuickNet has three real convolutions in its stem."""
    for name, count in (
        ("resnet18_bwn", 1 + 3 + 1),
        ("resnet18_xnor", 1 + 3 + 1),
        ("birealnet18", 1 + 3 + 1),
        ("reactnet_a", 2),
        ("quicknet", 3 + 3 + 1),
    ):
        real = [m for m in products(meta(name)) if isinstance(m, (nn.Conv2d, nn.Linear))]
        assert len(real) == count, name


@pytest.mark.parametrize(
    ("name", "scale"), [("alexnet_xnor", "xnor"), ("resnet18_xnor", "xnor"), ("nin_xnor", None)]
)
def test_xnor_networks_binarize_inside_and_scale_behind(name: str, scale: str | None) -> None:
    layers = [m for m in products(models.create_small(name)) if isinstance(m, (BinaryConv2d, BinaryLinear))]
    assert layers
    for layer in layers:
        assert layer.weight_scale == "channel_mean"
        assert layer.input_scale == scale
        assert layer.input_quantizer is not None


def test_reactnet_doubles_channels_by_two_convolutions_of_the_same_signs() -> None:
    model = models.create_small("reactnet_a").eval()
    block = model.block1
    assert [conv.out_channels for conv in block.conv1] == [17, 17]
    with torch.no_grad():
        block.conv1[1].weight.copy_(block.conv1[0].weight)
    x = torch.randn(2, 17, 5, 6, generator=torch.Generator().manual_seed(0))
    y = block(x)
    assert y.shape == (2, 34, 5, 6)
    assert torch.equal(y[:, :17], y[:, 17:])
    assert sum(isinstance(m, RSign) for m in block.modules()) == 2


def test_blur_pool_is_the_binomial_filter() -> None:
    model = models.create_small("quicknet")
    blur = model.transition2.blur
    x = torch.arange(20 * 4 * 5, dtype=torch.float32).reshape(1, 20, 4, 5)
    framed = torch.zeros(1, 20, 6, 7)
    framed[:, :, 1:5, 1:6] = x
    weights = ((1, 2, 1), (2, 4, 2), (1, 2, 1))
    for i in range(2):
        for j in range(3):
            taps = sum(weights[a][b] * framed[:, :, 2 * i + a, 2 * j + b] for a in range(3) for b in range(3))
            assert torch.equal(blur(x)[:, :, i, j], taps / 16)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "bnn_convnet_cifar10",
            {"input_shape": (3, 7, 32)},
            r"height and width at least 8; got \(3, 7, 32\)",
        ),
        ("bnn_convnet_cifar10", {"input_shape": (3, 32)}, r"\(channels, height, width\)"),
        ("bnn_convnet_cifar10", {"padding_value": 2}, "padding_value must be 0, 1 or -1; got 2"),
        ("bnn_convnet_cifar10", {"widths": (3, 0)}, "widths must be a sequence of positive integers"),
        ("lenet5_xnor", {"widths": (3,)}, r"widths must be the channels of the two convolutions; got \(3,\)"),
        ("nin_xnor", {"widths": (3,)}, "widths must be the channels of eight convolutions"),
        ("nin_xnor", {"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
        ("nin_xnor", {"dropout": 0.5, "input_scale": "xnor"}, "input_scale='xnor' needs dropout=0"),
        ("alexnet_xnor", {"variant": "dorefa"}, "variant must be one of 'bnn', 'bwn', 'xnor'; got 'dorefa'"),
        ("alexnet_xnor", {"widths": (3, 4)}, "widths must be the channels of five convolutions"),
        ("alexnet_xnor", {"input_shape": (3, 62, 99)}, "height and width at least 63"),
        ("alexnet_xnor", {"input_scale": "K"}, "input_scale must be one of None, 'xnor'; got 'K'"),
        ("birealnet18", {"blocks": (1, 1)}, "widths and blocks must be equally many"),
        ("birealnet18", {"variant": "bnn"}, "variant must be one of 'bwn', 'xnor', 'birealnet'; got 'bnn'"),
        ("googlenet_bnn", {"stem": (3, 4)}, "stem must be the widths of three convolutions"),
        ("googlenet_bnn", {"inceptions": ((1, 2),)}, r"an inception block has six widths; got \(1, 2\)"),
        ("reactnet_a", {"widths": (16, 33)}, r"the one before it or its double; got \(16, 33\)"),
        ("quicknet", {"widths": (18, 33, 65)}, "the first width a multiple of 4"),
        ("quicknet", {"input_shape": (3, 12, 40)}, "height and width at least 13"),
        ("quicknet", {"classes": 0}, "classes must be"),
    ],
)
def test_bad_options_are_named(name: str, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        models.create_small(name, **options)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("bnn_convnet_cifar10", (3, 8, 8)),
        ("lenet5_xnor", (1, 16, 16)),
        ("nin_xnor", (3, 1, 1)),
        ("alexnet_xnor", (3, 63, 63)),
        ("birealnet18", (3, 2, 5)),
        ("googlenet_bnn", (3, 2, 5)),
        ("reactnet_a", (3, 2, 5)),
        ("quicknet", (3, 13, 13)),
    ],
)
def test_the_smallest_image_that_is_not_refused_works(name: str, shape: tuple[int, ...]) -> None:
    model = models.create_small(name, input_shape=shape).eval()
    assert model(models.example_input(model)).isfinite().all()
