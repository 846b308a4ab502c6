"""What cannot be converted is refused in one clear error: the layer, its place, why, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import nn as bnn
from onebit.lowering import ConversionError, convert
from onebit.program import load

X = torch.zeros(2, 4)


class Do(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.sum(0)
        return x + self.seen


class OtherLayerForOne(nn.Module):
    """Two layers whose calls differ in nothing but the tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.more = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.one if x.shape[0] == 1 else self.more
        y: Tensor = layer(x)
        return y


def _refuse_one(x: Tensor) -> Tensor:
    if x.shape[0] == 1:
        raise ValueError("a batch, please")
    return x + 1


def _latent_nan() -> nn.Module:
    layer = bnn.BinaryLinear(4, 3)
    with torch.no_grad():
        layer.weight[2, 1] = float("nan")
    return layer


def _infinite_bias() -> nn.Module:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.bias[2] = float("inf")
    return layer


def _statistics_nan() -> nn.Module:
    norm = nn.BatchNorm1d(4)
    norm.running_mean[3] = float("nan")
    return norm


def _after_linear(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer))


def _zero_variance() -> nn.Module:
    norm = nn.BatchNorm1d(4, eps=0.0)
    norm.running_var.zero_()
    return norm


# name: (model, inputs, parts of the message)
REFUSED: dict[str, tuple[nn.Module, Any, tuple[str, ...]]] = {
    "branch": (_after_linear(Branch()), X, ("layer '1.0' (Branch)", "if x.sum() > 0:", "Python decision")),
    "item": (
        _after_linear(Do(lambda x: x * x.max().item())),
        X,
        ("'1.0' (Do)", "reads a number out of a tensor"),
    ),
    "one batch size": (
        Do(lambda x: x + torch.arange(2.0)[:, None]),
        X,
        ("the model (Do)", "one batch size only"),
    ),
    "loop over samples": (Do(lambda x: sum(row for row in x) + x), X, ("one batch size only", "x.shape[0]")),
    "decides above a batch size": (
        Do(lambda x: x if x.shape[0] > 100 else x * 2),
        X,
        ("the model (Do)", "decides by the batch size", "in shapes only"),
    ),
    "decides for even batches": (Do(lambda x: x if x.shape[0] % 2 == 0 else x * 2), X, ("decides by",)),
    "decides for some batches of two": (
        Do(lambda x, y: x + y if y.shape[0] > 9 else x),
        (X, X),
        ("decides by",),
    ),
    "decides for one sample": (
        Do(lambda x: x if x.shape[0] > 1 else x * 2),
        X,
        ("another path for a batch of one sample", "at mul", "in shapes only"),
    ),
    "other number for one sample": (
        Do(lambda x: x.mul(2.5 if x.shape[0] == 1 else 3.5)),
        X[:1],
        ("another path for a batch of one sample", "at mul"),
    ),
    "other layer for one sample": (OtherLayerForOne(), X, ("another path for a batch of one sample",)),
    "squeeze": (Do(lambda x: (x + 1).squeeze()), X, ("another rank or shape for a batch of one",)),
    "fails on one sample": (Do(_refuse_one), X, ("fails on a batch of one sample (ValueError)",)),
    "batch size as a number": (Do(lambda x: x / x.shape[0]), X, ("the number of samples",)),
    "state": (_after_linear(Counter()), X, ("writes to '1.0.seen'", "keeps no state")),
    "dict": (Do(lambda x: {"a": x}), X, ("other than a tensor or a flat tuple",)),
    "nested tuple": (Do(lambda x: (x, (x,))), X, ("other than a tensor or a flat tuple",)),
    "constant output": (Do(lambda x: (x, torch.ones(3))), X, ("its outputs", "depends on no input")),
    "random": (Do(lambda x: x + torch.rand(4)), X, ("random numbers", "self.training")),
    "forced dropout": (Do(lambda x: F.dropout(x, training=True)), X, ("dropout is active", "model.eval()")),
    "softmax": (_after_linear(nn.Softmax(-1)), X, ("layer '1.0' (Softmax)", "engine's output")),
    "argmax": (Do(lambda x: x.argmax(1)), X, ("np.argmax",)),
    "gelu": (_after_linear(nn.GELU()), X, ("layer '1.0' (GELU)", "aten.gelu", "use Linear, Conv1d")),
    "torch.sign": (Do(torch.sign), X, ("gives 0 at 0", "ste_sign")),
    "where of values": (Do(lambda x: torch.where(x > 0, x, x * 2)), X, ("chooses between values", "PReLU")),
    "bools out": (Do(lambda x: x >= 0), X, ("its outputs", "torch.bool", ".float()")),
    "double": (Do(lambda x: x.double().float()), X, ("torch.float64", "float32")),
    "float64 vector": (Do(lambda x: x * torch.ones(4, dtype=torch.float64)), X, ("torch.float64",)),
    "integers": (Do(lambda x: x.int() * 2), X, ("a cast to torch.int32",)),
    "transpose": (Do(lambda x: x.t()), X, ("aten.t",)),
    "flat batch": (Do(lambda x: x.reshape(-1)), X, ("does not keep the batch", "x.flatten(1)")),
    "batch in two": (Do(lambda x: x.view(-1, 2)), X, ("does not keep the batch",)),
    "stretched value": (
        _after_linear(Do(lambda x: x.view(-1, 4, 1) + torch.ones(5))),
        X,
        ("stretches a value",),
    ),
    "two matrices": (Do(lambda x, y: x @ y.transpose(0, 1)), (X, X), ("aten.transpose",)),
    "weights from the input": (Do(lambda x, y: F.linear(x, y)), (X, X), ("depends on the input",)),
    "NaN in a latent weight": (
        _after_linear(_latent_nan()),
        X,
        ("layer '1.0' (BinaryLinear)", "'weight' holds a NaN, at index (2, 1)"),
    ),
    "NaN in a buffer": (_after_linear(_statistics_nan()), X, ("'1.0'", "'running_mean' holds a NaN")),
    "infinite bias": (_infinite_bias(), X, ("NaN or infinity",)),
    "NaN": (Do(lambda x: x * float("nan")), X, ("NaN or infinity",)),
    "clamp by tensors": (Do(lambda x: x.clamp(torch.zeros(4), torch.ones(4))), X, ("bounds are tensors",)),
    "clamp upside down": (Do(lambda x: x.clamp(1.0, 0.0)), X, ("a clamp to [1.0, 0.0]",)),
    "alpha": (Do(lambda x: torch.add(x, x, alpha=0.3)), X, ("alpha=0.3", "step of its own")),
    "alpha of a number": (Do(lambda x: torch.add(x, 1 / 3, alpha=3)), X, ("alpha=3", "step of its own")),
    "alpha of a subnormal": (Do(lambda x: torch.add(x, 3e-45, alpha=0.25)), X, ("alpha=0.25", "of its own")),
    "arithmetic on bytes": (Do(lambda x: x + 1), X.to(torch.uint8), ("torch.uint8", "ScalePixels")),
    "sign of one number": (
        Do(lambda x: ((x @ torch.ones(4, 1)).squeeze(-1) >= 0).float()),
        X,
        ("keep an axis",),
    ),
    "batch statistics": (nn.BatchNorm1d(4, track_running_stats=False), X, ("statistics of the batch",)),
    "no variance": (_zero_variance(), X, ("not finite", "ε = 0")),
    "slice": (Do(lambda x: x[:, :2]), X, ("aten.slice", "a part of a value")),
    "chunk": (Do(lambda x: x.chunk(2, 1)[0]), X, ("aten.split", "a part of a value")),
    "transposed convolution": (
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.ConvTranspose2d(3, 2, 3)),
        torch.zeros(2, 3, 4, 4),
        ("layer '1' (ConvTranspose2d)", "transposed convolution"),
    ),
    "three axes": (nn.Conv3d(1, 1, 3), torch.zeros(2, 1, 4, 4, 4), ("one or two axes only",)),
    "filters from the input": (
        Do(lambda x: F.conv2d(x, x)),
        torch.zeros(2, 2, 4, 4),
        ("weights that depend on the input",),
    ),
    "padding of one": (
        nn.Sequential(nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 2, 3)),
        torch.zeros(2, 3, 4, 4),
        ("layer '1' (Conv2d)", "padded with 1", "binarize both"),
    ),
    "padding twice": (
        nn.Sequential(bnn.quantizers.SteSign(), nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 2, 3, padding=1)),
        torch.zeros(2, 3, 4, 4),
        ("pads with 0 what is padded with 1",),
    ),
    "padding and then something else": (
        nn.Sequential(nn.ZeroPad2d(1), nn.ReLU()),
        torch.zeros(2, 3, 4, 4),
        ("layer '1' (ReLU)", "only convolutions take padding in"),
    ),
    "padding as an output": (nn.ZeroPad2d(1), torch.zeros(2, 3, 4, 4), ("its outputs", "padded with 0")),
    "reflection": (nn.ReflectionPad2d(1), torch.zeros(2, 3, 4, 4), ("the mode 'reflect'",)),
    "cropping": (Do(lambda x: F.pad(x, (-1, 0))), torch.zeros(2, 3, 4, 4), ("padding by (-1, 0)",)),
    "uneven tiles": (nn.AdaptiveAvgPool2d(3), torch.zeros(2, 3, 4, 4), ("differ in size", "divides")),
    "uneven divisor": (
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        torch.zeros(2, 3, 4, 4),
        ("the divisor differs", "count_include_pad=False"),
    ),
    "where the largest was": (
        nn.MaxPool2d(2, return_indices=True),
        torch.zeros(2, 3, 4, 4),
        ("getitem", "the first result only"),
    ),
    "concat of rows": (
        Do(lambda x: torch.cat([x, x], 2)),
        torch.zeros(2, 3, 4, 4),
        ("concatenates along axis 2", "axis 1"),
    ),
    "squeeze and excite": (
        Do(lambda x: x * x.mean((2, 3), keepdim=True)),
        torch.zeros(2, 3, 4, 4),
        ("stretches a value of shape (3, 1, 1) to (3, 4, 4)",),
    ),
    "batch moved": (Do(lambda x: x.permute(1, 0, 2) * 2), torch.zeros(2, 2, 4), ("aten.permute", "batch")),
    "wrong shape": (
        _after_linear(nn.Linear(5, 4)),
        X,
        ("layer '1.0' (Linear)", "fails on these example inputs"),
    ),
    "bytes into floats": (nn.Linear(4, 4), X.to(torch.uint8), ("fails on these example inputs", "Byte")),
    "floats into ScalePixels": (nn.Sequential(bnn.ScalePixels()), X, ("layer '0' (ScalePixels)", "uint8")),
    "float64 example": (nn.Linear(4, 4), X.double(), ("example input 0", "torch.float64")),
    "integer example": (nn.Linear(4, 4), X.long(), ("example input 0", "torch.int64")),
    "list": (nn.Linear(4, 4), [[0.0]], ("example input 0", "builtins.list", "torch.from_numpy")),
    "array": (nn.Linear(4, 4), np.zeros((2, 4), np.float32), ("numpy.ndarray", "torch.from_numpy")),
    "no batch axis": (nn.Linear(4, 4), X[0], ("(4,)", "x[None]")),
    "no samples": (nn.Linear(4, 4), X[:0], ("without elements",)),
    "no inputs": (nn.Linear(4, 4), (), ("example inputs", "there are none")),
    "two batch sizes": (Do(torch.add), (X, X[:1]), ("batch sizes differ: 2, 1",)),
    "double model": (
        _after_linear(nn.Linear(4, 4).double()),
        X,
        ("'1.0' (Linear)", "'weight'", "model.float()"),
    ),
    "half model": (
        nn.BatchNorm1d(4).half(),
        X,
        ("the model (BatchNorm1d)", "torch.float16", "model.float()"),
    ),
    "meta model": (nn.Linear(4, 4, device="meta"), X, ("device meta", "model.cpu()")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_layer_reason_and_remedy(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    model, inputs, parts = REFUSED[case]
    with pytest.raises(ConversionError) as caught:
        convert(model.eval(), inputs)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "What to do: " in message
    assert len(caught.value.problems) == 1
    assert all(p.why and p.fix and p.kind for p in caught.value.problems)
    assert capfd.readouterr() == ("", "")  # one error, and no noise from export beside it


def test_not_a_module() -> None:
    with pytest.raises(ConversionError, match=r"function.*not a torch\.nn\.Module"):
        convert(lambda x: x, X)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [3, b"x", "\ud800"])
def test_a_name_that_is_no_text(name: Any) -> None:
    with pytest.raises(ConversionError, match=r"its name is .*pass name= as a str"):
        convert(nn.Linear(4, 4).eval(), X, name=name)


@pytest.mark.parametrize("name", ["__metadata__", "a\u00a0b", "n" * 300])
def test_any_name_of_a_module_is_taken(name: str, tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module(name, nn.Sequential(bnn.BinaryLinear(4, 3), nn.ReLU()))
    program = convert(model.eval(), X, name=name)
    program.save(tmp_path / "named.onebit")
    loaded = load(tmp_path / "named.onebit")
    assert loaded.metadata["name"] == name
    assert all(node.layer for node in loaded.nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(x.shape[0], -1) + 1,
        lambda x: x.view(x.shape[0], 2, x.shape[1] // 2).flatten(1) + 1,
        lambda x: x.reshape(x.shape[0], 2, 2).flatten(1) * 2.0,
        lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)),
    ],
)
def test_batch_sizes_in_shapes_are_no_decisions(function: Callable[[Tensor], Tensor]) -> None:
    """Neither one sample nor an example batch larger than others changes the Program."""
    programs = [convert(Do(function).eval(), torch.randn(batch, 4)) for batch in (1, 3)]
    assert programs[0].nodes == programs[1].nodes


def test_training_mode_of_the_model_and_of_one_layer() -> None:
    with pytest.raises(ConversionError, match=r"training mode.*model\.eval\(\)"):
        convert(nn.Linear(4, 4), X)
    model = _after_linear(nn.Dropout()).eval()
    model[1][0].train()
    with pytest.raises(ConversionError, match=r"layer '1\.0' \(Dropout\).*in training mode while"):
        convert(model, X)


def test_all_problems_come_in_one_error() -> None:
    model = nn.Sequential(nn.GELU(), nn.Linear(4, 4), nn.Softmax(-1), nn.BatchNorm1d(4), nn.Tanh()).eval()
    with pytest.raises(ConversionError, match="for 3 reasons") as caught:
        convert(model, X)
    assert [(p.layer, p.kind) for p in caught.value.problems] == [
        ("0", "GELU"),
        ("2", "Softmax"),
        ("4", "Tanh"),
    ]
    mixed = nn.Linear(4, 4).double()
    with pytest.raises(ConversionError, match="for 3 reasons"):
        convert(mixed, X.double())


def test_a_long_list_of_problems_is_cut_in_the_message_only() -> None:
    with pytest.raises(ConversionError, match="and 5 more") as caught:
        convert(nn.Sequential(*(nn.GELU() for _ in range(25))).eval(), X)
    assert len(caught.value.problems) == 25


def test_what_no_output_needs_is_not_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        torch.softmax(x, 1)
        return x + 1

    assert [node.op for node in convert(Do(forward).eval(), X).nodes] == ["add"]
