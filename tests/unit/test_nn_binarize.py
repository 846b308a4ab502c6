"""binarize: the arithmetic of replaced layers by hand, what is left real and why, and what a sign sees."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onebit
from onebit import data
from onebit.nn import (
    BatchNormFeatures,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    binarize,
    binarize_report,
    quantizers,
    reestimate_batch_norm_,
)
from onebit.optim import clip_latent_weights_
from support import ROOT


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def reasons(model: nn.Module) -> dict[str, str]:
    return {layer.name: layer.reason for layer in binarize_report(model).layers}


def convnet(channels: int = 8) -> nn.Sequential:
    """conv → BatchNorm → ReLU, three times, the second with a pool; 8×8 images of one channel, 10 classes."""
    c = channels
    return nn.Sequential(
        *(nn.Conv2d(1, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()),
        *(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4 * c, 10)),
    )


def alone(layer: nn.Module, **options: object) -> nn.Module:
    return binarize(layer, keep_ends=False, min_terms=1, norm=None, **options)


CONVOLUTIONS = [
    (
        nn.Conv2d,
        {"in_channels": 6, "out_channels": 5, "kernel_size": (3, 2), "stride": (2, 1), "bias": False},
    ),
    (nn.Conv2d, {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "padding": "same", "dilation": 2}),
    (nn.Conv2d, {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "padding": (0, 2), "groups": 2}),
    (nn.Conv2d, {"in_channels": 6, "out_channels": 4, "kernel_size": 2, "padding": "valid"}),
    (nn.Conv2d, {"in_channels": 6, "out_channels": 4, "kernel_size": (2, 5), "padding": "same"}),
    (nn.Conv1d, {"in_channels": 6, "out_channels": 5, "kernel_size": 5, "stride": 3, "padding": 4}),
    (nn.Conv1d, {"in_channels": 6, "out_channels": 5, "kernel_size": 3, "padding": "same"}),
]


@pytest.mark.parametrize(("kind", "options"), CONVOLUTIONS)
def test_convolutions_by_hand(kind: type[nn.Module], options: dict) -> None:
    torch.manual_seed(0)
    layer = kind(**options).double()
    layer.weight.data += 0.05  # a mean to be taken out
    binary = alone(layer)
    axes = 2 if kind is nn.Conv2d else 1
    assert type(binary) is (BinaryConv2d if axes == 2 else BinaryConv1d)
    x = torch.randn(3, 6, *[11, 9][:axes]).double()
    w = layer.weight.detach()
    centred = w - sum(w[:, i] for i in range(w.shape[1])).unsqueeze(1) / w.shape[1]
    real = copy.deepcopy(layer)
    real.weight.data = signs(centred)
    real.bias = None
    alpha = centred.abs().flatten(1).mean(1).reshape(-1, *[1] * axes)
    expected = real(signs(x)) * alpha
    if layer.bias is not None:
        expected = expected + layer.bias.reshape(-1, *[1] * axes)
    torch.testing.assert_close(binary(x), expected)


def test_dense_layers_by_hand_and_what_is_kept() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(7, 5).double().eval()
    layer.weight.requires_grad_(False)
    before = layer.weight.clone()
    binary = alone(layer)
    assert type(binary) is BinaryLinear
    x = torch.randn(2, 3, 7).double()
    w = before - before.mean(1, keepdim=True)
    expected = signs(x) @ signs(w).T * w.abs().mean(1) + layer.bias
    torch.testing.assert_close(binary(x), expected)
    assert not binary.training
    assert not binary.weight.requires_grad
    assert binary.bias.requires_grad
    assert torch.equal(layer.weight, before)


def test_real_inputs_and_real_weights() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 5, bias=False), torch.randn(4, 7)
    layer.weight.data += 0.3
    w = layer.weight.detach()
    bwn = alone(layer, inputs=None)  # BWN: not centred, the input is real and may have a mean
    torch.testing.assert_close(bwn(x), x @ signs(w).T * w.abs().mean(1))
    assert "weights only" in reasons(bwn)[""]
    step1 = alone(layer, weights=None)
    torch.testing.assert_close(step1(x), signs(x) @ w.T)
    assert "inputs only" in reasons(step1)[""]
    learned = alone(layer, weight_scale="learned")
    torch.testing.assert_close(learned.scale.detach(), (w - w.mean(1, keepdim=True)).abs().mean(1))
    gate = alone(layer, inputs="heaviside")  # {0, 1} has a mean too
    torch.testing.assert_close(gate(x), (x >= 0).float() @ signs(w).T * w.abs().mean(1))
    big = nn.Linear(3, 2)
    big.weight.data = torch.tensor([[5.0, -5.0, 0.0], [0.25, 0.0, -0.25]])
    assert alone(big).weight.tolist() == [[1, -1, 0], [0.25, 0, -0.25]]


@pytest.mark.parametrize("name", quantizers.names())
def test_every_quantizer_can_be_named(name: str) -> None:
    only = getattr(quantizers.create(name), "only_for", None)
    for role in ("weights", "inputs") if only is None else (only,):
        layer = alone(nn.Linear(7, 5), weight_scale=None, **{role: name})
        layer(torch.randn(4, 7)).sum().backward()
        assert layer.weight.grad.count_nonzero() > 0


def test_quantizers_are_copied_for_each_layer() -> None:
    quantizer = onebit.nn.SteSign(window=1.5)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    binary = binarize(model, inputs=quantizer, keep_ends=False, min_terms=1, norm=None)
    windows = [layer.input_quantizer for layer in binary]
    assert [q.window for q in windows] == [1.5, 1.5]
    assert len({id(q) for q in (*windows, quantizer)}) == 3


def test_ends_small_sums_and_depthwise_layers_stay_real() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.Conv2d(64, 64, 3, groups=64),
        nn.Conv2d(64, 16, 1),
        nn.Conv2d(16, 63, 1),
        nn.Conv2d(63, 8, 1),
        nn.Conv2d(8, 4, 3),
        nn.Conv2d(4, 128, 4),
        nn.Flatten(),
        nn.Linear(128, 2),
    )
    found = reasons(binarize(model, min_terms=63))
    assert found["0"] == "sums of 27 terms, fewer than 63"
    assert found["1"] == "depthwise"
    assert found["3"] == "sums of 16 terms, fewer than 63"
    assert found["8"] == "last layer"
    assert all(found[name].startswith("weights and inputs") for name in "2456")
    wide = binarize(model, min_terms=9, depthwise=True)
    assert reasons(wide)["0"] == "first layer"
    assert isinstance(wide[1].product, BinaryConv2d)
    assert wide[1].product.weight.abs().min() > 0  # a mean over one channel was not taken out


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        ("3", {"3"}),
        (["3", "7"], {"3", "7"}),
        ("[37]", {"3", "7"}),
        (nn.Conv2d, {"3", "7"}),
        (lambda name, module: name == "7", {"7"}),
        ((nn.Linear, "3"), {"3"}),
    ],
)
def test_skip(skip: object, left: set[str]) -> None:
    model = convnet()
    model.insert(11, nn.Linear(4 * 8, 64))
    model.insert(12, nn.Linear(64, 64))
    found = reasons(binarize(model, skip=skip))
    assert left <= {name for name, why in found.items() if why == "skipped, as you asked"}
    assert {n for n in ("3", "7") if "skipped" not in found[n]} == {"3", "7"} - left


def test_skipping_a_block_skips_what_is_in_it_and_unknown_names_are_answered() -> None:
    model = nn.Sequential()
    for name in ("stem", "layer1", "layer2", "head"):
        model.add_module(name, nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))
    found = reasons(binarize(model, skip="layer1"))
    assert [n for n, why in found.items() if "skipped" in why] == ["layer1.0", "layer1.1"]
    with pytest.raises(
        ValueError, match=r"skip='layer3' is no module of this Sequential: did you mean 'layer"
    ):
        binarize(model, skip="layer3")
    with pytest.raises(ValueError, match=r"skip='block\*' is no module"):
        binarize(model, skip=["layer1", "block*"])
    with pytest.raises(TypeError, match=r"skip takes names, patterns.*got 3"):
        binarize(model, skip=[3])


class Reader(nn.Module):
    """A parent that multiplies by a layer's weight itself, and only looks at the dtype of another's."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(64, 64)
        self.asked = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.asked(x.to(self.asked.weight.dtype)), self.used.weight, self.used.bias)


class Odd(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).exp()


def hooked() -> nn.Module:
    layer = nn.Linear(64, 64)
    layer.register_forward_hook(lambda module, inputs, output: output)
    return layer


def renamed_forward() -> nn.Module:
    layer = nn.Linear(64, 64)
    layer.forward = lambda x: x
    return layer


OBSTACLES = [
    (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(64, 64)), "parametrized"),
    (lambda: nn.utils.spectral_norm(nn.Linear(64, 64)), "weight is computed by a hook"),
    (hooked, "it has hooks"),
    (renamed_forward, "its forward has been replaced"),
    (lambda: nn.LazyLinear(64), "LazyLinear has no weights yet: run one batch"),
    (lambda: Odd(64, 64), "Odd is a subclass of Linear and may compute something else"),
    (lambda: nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
    (lambda: nn.Conv3d(64, 64, 3), "onebit has no binary form of Conv3d"),
    (lambda: nn.LSTM(64, 64), "onebit has no binary form of LSTM"),
    (lambda: BinaryLinear(64, 64), "binary already"),
]


@pytest.mark.parametrize(("make", "words"), OBSTACLES, ids=[words[:20] for _, words in OBSTACLES])
def test_what_cannot_be_replaced_stays_and_says_why(make, words: str) -> None:
    model = nn.Sequential(nn.Linear(64, 64), make(), nn.Linear(64, 64), nn.Linear(64, 2))
    odd = model[1]
    binary = binarize(model, inplace=True)
    assert binary is model
    assert binary[1] is odd
    assert words in reasons(binary)["1"]
    assert isinstance(binary[2].product, BinaryLinear)


def test_weights_read_directly_or_shared_stay_real() -> None:
    model = nn.Sequential(nn.Linear(64, 64), Reader(), nn.Linear(64, 2))
    found = reasons(binarize(model))
    assert found["1.used"] == "Reader (1) reads used.weight directly"
    assert found["1.asked"].startswith("weights and inputs")
    tied = nn.ModuleDict({"embed": nn.Embedding(9, 64), "mix": nn.Linear(64, 64), "head": nn.Linear(64, 9)})
    tied["head"].weight = tied["embed"].weight
    found = reasons(binarize(tied, keep_ends=False))
    assert found["head"] == "its weight is shared: embed.weight = head.weight"
    assert found["embed"] == "onebit has no binary form of Embedding"


def test_a_layer_used_twice_stays_one_layer() -> None:
    layer = nn.Linear(64, 64)
    binary = binarize(nn.Sequential(nn.Linear(64, 64), layer, nn.ReLU(), layer, nn.Linear(64, 2)))
    assert binary[1] is binary[3]
    assert isinstance(binary[1].product, BinaryLinear)
    assert list(reasons(binary)) == ["0", "1", "4"]
    end = [nn.Linear(64, 64), nn.Linear(64, 64)]
    found = reasons(binarize(nn.Sequential(nn.Linear(64, 64), layer, layer, *end), skip="2"))
    assert found["1"] == "skipped, as you asked"


def test_attention_of_torch_stays_real_and_its_fast_path_does_not_pass_the_layers_by() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    x = torch.randn(2, 5, 64)
    with torch.no_grad():
        float_scores = encoder(x)
    binary = binarize(encoder, example=x)
    found = reasons(binary)
    assert "never calls it" in found["layers.0.self_attn.out_proj"]
    assert "projections itself" in found["layers.0.self_attn"]
    assert found["layers.0.linear1"] == "weights and inputs"  # directly behind a LayerNorm
    assert found["layers.0.linear2"] == "weights and inputs, BatchNorm in front"
    with_gradient = binary(x).detach()
    mask = torch.zeros(2, 5, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(binary(x), with_gradient)
        torch.testing.assert_close(binary(x, src_key_padding_mask=mask), with_gradient)
    assert not torch.allclose(with_gradient, float_scores, atol=0.1)


def test_a_sign_behind_a_relu_sees_both_values() -> None:
    torch.manual_seed(0)
    model = convnet(33)
    batches = [torch.randn(16, 1, 8, 8) for _ in range(3)]
    for batch in batches:
        model(batch)
    seen: dict[str, Tensor] = {}
    for norm in ("batch", None):
        binary = binarize(model, norm=norm)
        for name, module in binary.named_modules():
            if isinstance(module, BinaryConv2d):
                module.input_quantizer.register_forward_hook(
                    lambda m, inputs, output, name=name: seen.__setitem__(name, output)
                )
        reestimate_batch_norm_(binary, batches)
    assert set(seen) == {"3.product", "7.product", "3", "7"}
    for name, values in seen.items():
        plus = (values == 1).float().mean((0, 2, 3))
        assert bool((plus == 1).all()) if "product" not in name else 0.1 < plus.mean() < 0.7


def test_reordering_leaves_out_the_relu_that_only_a_sign_sees() -> None:
    model = convnet()
    binary = binarize(model, reorder=True)
    kinds = [type(m).__name__ for m in binary]
    assert kinds[1:4] == ["BatchNorm2d", "Identity", "BinaryConv2d"]
    assert kinds[4:8] == ["BatchNorm2d", "Identity", "MaxPool2d", "NormedLayer"]  # max-pool moves the mean
    assert kinds[8:10] == ["BatchNorm2d", "ReLU"]  # a real layer follows
    assert "2: ReLU left out, the sign in 3 stands for it" in binarize_report(binary).notes
    assert [type(m) for m in binarize(model, reorder=True, inputs=None)].count(nn.ReLU) == 3
    shared = nn.ReLU()
    twice = nn.Sequential(nn.Linear(64, 64), shared, nn.Linear(64, 64), shared, nn.Linear(64, 2))
    assert isinstance(binarize(twice, reorder=True)[1], nn.ReLU)


def test_the_report_counts_every_parameter_once() -> None:
    model = nn.Sequential(
        nn.Embedding(9, 64),
        nn.LayerNorm(64),
        nn.Linear(64, 100),
        nn.ReLU(),
        nn.Linear(100, 64),
        nn.Linear(64, 9),
    )
    model[5].weight = model[0].weight
    binary = binarize(model, keep_ends=False)
    report = binarize_report(binary)
    assert report.parameters == sum(p.numel() for p in binary.parameters())
    assert report.bits_before == 32 * sum(p.numel() for p in model.parameters())
    # one bit a weight; α, bias and BatchNorm's two numbers a feature in 32
    one_bit = 6400 + 32 * (100 + 100), 6400 + 32 * (64 + 64 + 200)
    assert [layer.bits for layer in report.layers] == [9 * 64 * 32, *one_bit, 9 * 32]
    assert report.bits == 9 * 64 * 32 + sum(one_bit) + 9 * 32 + 128 * 32
    assert [layer.name for layer in report.binary] == ["2", "4"]
    assert [layer.name for layer in report.real] == ["0", "5"]
    text = str(report)
    assert "2 of 4 layers binary" in text
    assert all(layer.reason in text for layer in report.layers)
    assert str(binarize_report(copy.deepcopy(binary))) == text
    learned = binarize(model, keep_ends=False, weight_scale="learned")
    assert binarize_report(learned).bits == report.bits
    with pytest.raises(ValueError, match="this Sequential did not come out of"):
        binarize_report(model)


def test_mistakes_are_named_before_anything_is_changed() -> None:
    model = convnet()
    before = list(model)
    for options, words in (
        ({"weights": None, "inputs": None}, "leave nothing to binarize"),
        ({"weights": "sign"}, "unknown quantizer 'sign'"),
        ({"inputs": "recu"}, r"inputs=.* is a quantizer for weights only; give it as weights"),
        ({"weight_scale": "mean"}, "weight_scale must be one of"),
        ({"inputs": None, "input_scale": "xnor"}, "input_scale='xnor' restores the magnitude"),
        ({"norm": "layer"}, "norm must be one of None, 'batch'; got 'layer'"),
        ({"min_terms": 0}, "min_terms must be a positive integer; got 0"),
        ({"min_terms": 1000}, "(?s)no layer of this Sequential can be made binary:.*3: sums of 72 terms"),
    ):
        with pytest.raises(ValueError, match=words):
            binarize(model, inplace=True, **options)
        assert all(a is b for a, b in zip(model, before, strict=True))
    with pytest.raises(ValueError, match=r"it has no nn\.Linear"):
        binarize(nn.Sequential(nn.ReLU()))
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.Module; got list"):
        binarize([model])
    with pytest.raises(TypeError, match="the model is a OptimizedModule: binarize the plain module first"):
        binarize(torch.compile(model))
    with pytest.raises(ValueError, match="a single layer cannot be replaced in place"):
        binarize(nn.Linear(64, 64), keep_ends=False, inplace=True)


def test_features_are_normalized_over_the_last_axis() -> None:
    norm, x = BatchNormFeatures(5), torch.randn(4, 3, 5) * 3 + 1
    y = norm(x)
    flat = x.reshape(12, 5)
    torch.testing.assert_close(
        y.reshape(12, 5), (flat - flat.mean(0)) / (flat.var(0, correction=0) + 1e-5).sqrt()
    )
    torch.testing.assert_close(norm(flat).reshape(4, 3, 5), y)


def trained_on_digits(model: nn.Module, epochs: int, seed: int) -> float:
    """Mean loss of the last epoch, after an ordinary loop."""
    train = data.load("digits").train
    images, labels = train.images.float() / 127.5 - 1, train.labels
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        losses = []
        for index in torch.randperm(len(labels), generator=generator).split(50):
            loss = F.cross_entropy(model(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            clip_latent_weights_(model)
            losses.append(loss.item())
    return sum(losses) / len(losses)


def test_fine_tuning_converting_and_running() -> None:
    """The whole way of a float network trained on digits; its packed form agrees with PyTorch."""
    torch.manual_seed(1)
    model = convnet()
    float_loss = trained_on_digits(model, 2, 1)
    splits = data.load("digits")
    images = splits.test.images.float() / 127.5 - 1
    binary = binarize(model)
    reestimate_batch_norm_(binary, splits.train.images.float().div(127.5).sub(1).split(100))
    with torch.no_grad():
        start = F.cross_entropy(binary.eval()(images), splits.test.labels).item()
    binary.train()
    end = trained_on_digits(binary, 2, 2)
    assert float_loss < 1
    assert end < 0.5 * start
    assert all(p.grad is not None and p.grad.count_nonzero() > 0 for p in binary.parameters())
    program = onebit.convert(binary.eval(), images[:1])
    ops = [node.op for node in program.nodes]
    assert ops.count("binary_conv2d") == 2
    assert ops.count("threshold") == 1  # BatchNorm → ReLU → pool → BatchNorm → sign
    with torch.no_grad():
        expected = binary(images).argmax(1).numpy()
    (scores,) = [onebit.Engine(program)(images.numpy())]
    assert (scores.argmax(1) == expected).mean() >= 0.99


def test_state_dicts_and_compilation() -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = convnet()
    one, two = binarize(model), binarize(convnet())
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(one.eval()(x), two.eval()(x))
    assert torch.equal(torch.compile(one, backend="aot_eager", fullgraph=True)(x), one(x))


def test_the_example_of_the_page_runs_and_prints_its_table() -> None:
    page = (ROOT / "docs" / "binarize.md").read_text(encoding="utf-8")
    code, table = re.findall(r"^```(?:python|text)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[:2]
    printed: list[str] = []
    exec(compile(code, "binarize.md", "exec"), {"print": lambda report: printed.append(str(report))})
    assert table.splitlines() == printed[0].splitlines()
