"""load_float_weights: torchvision's AlexNet and ResNet-18, by their names and shapes, into the registry's."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from onebit import models
from onebit.nn import BinaryConv2d, reestimate_batch_norm_
from onebit.train import TrainError
from onebit.train.weights import start_from

WIDTHS, HIDDEN = (17, 33, 31, 32, 65), (33, 63)


def alexnet(classes: int = 3) -> nn.Module:
    """The layers of torchvision's AlexNet under its names, narrow; 67×70 pixels leave 1×1 before the end."""
    model = nn.Module()
    a, b, c, d, e = WIDTHS
    convolutions = {
        0: nn.Conv2d(3, a, 11, 4, 2),
        3: nn.Conv2d(a, b, 5, padding=2),
        6: nn.Conv2d(b, c, 3, padding=1),
        8: nn.Conv2d(c, d, 3, padding=1),
        10: nn.Conv2d(d, e, 3, padding=1),
    }
    model.features = nn.Sequential(*(convolutions.get(i, nn.ReLU()) for i in range(13)))
    dense = {1: nn.Linear(e, HIDDEN[0]), 4: nn.Linear(*HIDDEN), 6: nn.Linear(HIDDEN[1], classes)}
    model.classifier = nn.Sequential(*(dense.get(i, nn.ReLU()) for i in range(7)))
    return model


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {name: torch.randn_like(value) for name, value in alexnet().state_dict().items()}


def test_torchvision_alexnet_into_xnor_alexnet(state: dict[str, Tensor]) -> None:
    model = models.create_small("alexnet_xnor", widths=WIDTHS, hidden=HIDDEN)
    report = models.load_float_weights(model, state)
    assert [pair for pair in report.loaded if pair[0].endswith("weight")] == [
        ("features.0.weight", "conv1.weight"),
        ("features.3.weight", "conv2.weight"),
        ("features.6.weight", "conv3.weight"),
        ("features.8.weight", "conv4.weight"),
        ("features.10.weight", "conv5.weight"),
        ("classifier.1.weight", "linear6.weight"),
        ("classifier.4.weight", "linear7.weight"),
        ("classifier.6.weight", "linear8.weight"),
    ]
    assert torch.equal(model.conv1.weight, state["features.0.weight"])
    assert torch.equal(model.linear8.bias, state["classifier.6.bias"])
    w = state["features.3.weight"]
    centred = w - sum(w[:, i] for i in range(w.shape[1])).unsqueeze(1) / w.shape[1]
    torch.testing.assert_close(model.conv2.weight.detach(), centred.clamp(-1, 1))
    assert {name for name, _ in report.unused} == {
        name for name in state if name.endswith("bias") and name != "classifier.6.bias"
    }
    assert set(report.untouched) == {
        name for name in model.state_dict() if name.startswith("norm") and "tracked" not in name
    } | {"pixels.scale", "pixels.shift"} & set(model.state_dict())
    assert "features.3.weight → conv2.weight" in str(report)
    assert "features.3.bias: not used, a layer without a bias, before a BatchNorm" in str(report)


def test_the_network_works_on_from_there(state: dict[str, Tensor]) -> None:
    model = models.create_small("alexnet_xnor", widths=WIDTHS, hidden=HIDDEN)
    models.load_float_weights(model, state)
    batches = [models.example_input(model, 8) for _ in range(2)]
    reestimate_batch_norm_(model, batches)
    assert model.eval()(batches[0]).std() > 0
    assert model.norm2.running_var.max() != 1


def test_names_and_wrappings_of_checkpoints_are_seen_through(state: dict[str, Tensor]) -> None:
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    one, two = (models.create_small("alexnet_bwn", widths=WIDTHS, hidden=HIDDEN) for _ in range(2))
    models.load_float_weights(one, state)
    models.load_float_weights(two, wrapped)
    assert torch.equal(one.linear7.weight, two.linear7.weight)


def test_real_inputs_keep_the_mean_of_the_weights(state: dict[str, Tensor]) -> None:
    model = models.create_small("alexnet_bwn", widths=WIDTHS, hidden=HIDDEN)
    models.load_float_weights(model, state)
    assert torch.equal(model.conv3.weight, state["features.6.weight"].clamp(-1, 1))


def test_other_sizes_are_refused_and_nothing_changes(state: dict[str, Tensor]) -> None:
    model = models.create_small("alexnet_xnor", hidden=HIDDEN, widths=(18, 33, 31, 32, 65))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"2 of 8 layers differ in shape") as error:
        models.load_float_weights(model, state)
    words = str(error.value)
    assert "features.0.weight is (17, 3, 11, 11), the model's conv1 is (18, 3, 11, 11)" in words
    assert "have 17, 33, 31, 32, 65, 33, 63, 3 outputs" in words
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    state.pop("classifier.6.weight")
    with pytest.raises(ValueError, match="has 7 dense and convolution layers, the model 8"):
        models.load_float_weights(model, state)
    with pytest.raises(ValueError, match="a state dict maps names to tensors; this one holds 'epoch'"):
        models.load_float_weights(model, {"epoch": 3})


def resnet18_state() -> OrderedDict[str, Tensor]:
    """The names of torchvision's ResNet-18, one block a stage, widths 17, 33; every value its own."""
    generator = torch.Generator().manual_seed(5)
    state: OrderedDict[str, Tensor] = OrderedDict()

    def conv(name: str, fan_in: int, fan_out: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(fan_out, fan_in, kernel, kernel, generator=generator)

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{key}"] = torch.rand(channels, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(9)

    conv("conv1", 3, 17, 7)
    norm("bn1", 17)
    for stage, fan_in, fan_out in ((1, 17, 17), (2, 17, 33)):
        conv(f"layer{stage}.0.conv1", fan_in, fan_out, 3)
        norm(f"layer{stage}.0.bn1", fan_out)
        conv(f"layer{stage}.0.conv2", fan_out, fan_out, 3)
        norm(f"layer{stage}.0.bn2", fan_out)
    conv("layer2.0.downsample.0", 17, 33, 1)
    norm("layer2.0.downsample.1", 33)
    state["fc.weight"] = torch.randn(3, 33, generator=generator)
    state["fc.bias"] = torch.randn(3, generator=generator)
    return state


def test_torchvision_resnet18_brings_its_batch_norms_where_the_layers_are_the_same() -> None:
    state = resnet18_state()
    options = {"widths": (17, 33), "blocks": (1, 1), "input_shape": (3, 32, 32)}
    same = models.create_small("resnet18_bwn", **options)
    report = models.load_float_weights(same, state)
    assert report.unused == ()
    assert torch.equal(same.block2_1.norm2.running_var, state["layer2.0.bn2.running_var"])
    assert torch.equal(same.block2_1.shortcut.conv.weight, state["layer2.0.downsample.0.weight"])
    assert isinstance(same.block1_1.conv1, BinaryConv2d)
    other = models.create_small("resnet18_xnor", **options)
    report = models.load_float_weights(other, state)
    assert all(".bn" in name or name.startswith("bn1") or ".1." in name for name, _ in report.unused)
    assert other.block2_1.norm2.running_var.eq(1).all()
    assert torch.equal(other.linear.weight, state["fc.weight"])


def test_a_recipe_starts_from_a_file_of_torchvision(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "alexnet.pth")
    model = models.create_small("alexnet_xnor", widths=WIDTHS, hidden=HIDDEN)
    started = start_from(model, str(tmp_path / "alexnet.pth"))
    assert torch.equal(model.conv1.weight, state["features.0.weight"])
    assert len(started.taken) == 9
    assert "features.3.bias" in started.unused
    assert "norm2.weight" in started.missing
    other = models.create_small("alexnet_xnor", widths=(18, *WIDTHS[1:]), hidden=HIDDEN)
    with pytest.raises(
        TrainError, match=r"no tensor there fits.*differ in shape: features.0.weight is \(17,"
    ):
        start_from(other, str(tmp_path / "alexnet.pth"))
