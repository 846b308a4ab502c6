"""What cannot be converted is refused in one clear error: the layer, its place, why, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import nn as bnn
from onebit.lowering import ConversionError, convert

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
    "NaN": (Do(lambda x: x * float("nan")), X, ("NaN or infinity",)),
    "clamp by tensors": (Do(lambda x: x.clamp(torch.zeros(4), torch.ones(4))), X, ("bounds are tensors",)),
    "clamp upside down": (Do(lambda x: x.clamp(1.0, 0.0)), X, ("a clamp to [1.0, 0.0]",)),
    "alpha": (Do(lambda x: torch.add(x, x, alpha=0.3)), X, ("alpha=0.3", "step of its own")),
    "arithmetic on bytes": (Do(lambda x: x + 1), X.to(torch.uint8), ("torch.uint8", "ScalePixels")),
    "sign of one number": (
        Do(lambda x: ((x @ torch.ones(4, 1)).squeeze(-1) >= 0).float()),
        X,
        ("keep an axis",),
    ),
    "batch statistics": (nn.BatchNorm1d(4, track_running_stats=False), X, ("statistics of the batch",)),
    "no variance": (_zero_variance(), X, ("not finite", "ε = 0")),
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
