"""What onebit computes does not depend on how the calling thread rounds, and leaves that as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import onebit
import onebit.ops  # registers the operators
from float_modes import MODES, mode
from onebit import nn as bnn
from onebit.program import Program, fma
from onebit.program import float_environment as environment
from onebit.program.float_environment import default_float_environment, in_fresh_thread, is_default


def _model() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(
        bnn.ScalePixels(),
        bnn.BinaryLinear(64, 33, input_quantizer=None),
        nn.BatchNorm1d(33),
        bnn.BinaryLinear(33, 20, weight_scale="channel_mean"),
        nn.BatchNorm1d(20),
    )
    images = torch.randint(0, 256, (64, 64), dtype=torch.uint8)
    model(images)
    with torch.no_grad():
        model[2].weight.mul_(1e-39)
        model[2].bias.mul_(1e-40)
    return model.eval(), images


def _same(a: Program, b: Program) -> bool:
    return a.nodes == b.nodes and all(
        np.array_equal(c.array.view(np.uint8), b.constants[name].array.view(np.uint8))
        for name, c in a.constants.items()
    )


@pytest.mark.parametrize("name", MODES)
def test_the_default_is_entered_and_the_callers_mode_comes_back(name: str) -> None:
    assert is_default()
    with mode(name):
        assert not is_default()
        with default_float_environment():
            assert is_default()
            with default_float_environment():
                assert is_default()
            assert is_default()
        assert not is_default()
        with pytest.raises(KeyError), default_float_environment():
            raise KeyError
        assert not is_default()
        assert in_fresh_thread(is_default)
        assert not is_default()
    assert is_default()


@pytest.mark.parametrize("name", MODES)
def test_convert_run_save_and_load_compute_the_same_in_every_mode(name: str, tmp_path: Path) -> None:
    model, images = _model()
    program = onebit.convert(model, images)
    program.save(tmp_path / "a.onebit")
    expected = program.run(images.numpy())["output"]
    assert np.array_equal(expected, model(images).detach().numpy())
    with mode(name):
        again = onebit.convert(model, images)
        results = [again.run(images.numpy())["output"], onebit.Engine(again)(images.numpy())]
        again.save(tmp_path / "b.onebit")
        loaded = onebit.load(tmp_path / "a.onebit")
        assert not is_default()
    assert _same(again, program)
    assert _same(loaded, program)
    assert (tmp_path / "a.onebit").read_bytes() == (tmp_path / "b.onebit").read_bytes()
    for result in results:
        assert np.array_equal(result.view(np.int32), expected.view(np.int32))


def test_pack_reads_the_signs_of_subnormal_weights_in_every_mode() -> None:
    torch.manual_seed(0)
    layer = bnn.BinaryLinear(40, 8, weight_scale="channel_mean").eval()
    with torch.no_grad():
        layer.weight.mul_(1e-40)
    x = torch.randn(5, 40)
    expected = onebit.pack(layer)
    for name in MODES:
        with mode(name):
            packed = onebit.pack(layer)
        for key, value in expected.state_dict().items():
            assert torch.equal(packed.state_dict()[key], value), (name, key)
    assert torch.equal(expected(x), layer(x))


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_pack_bits_reads_the_signs_of_subnormals_in_every_mode(dtype: torch.dtype, name: str) -> None:
    tiny = torch.finfo(dtype).smallest_normal / 4
    x = torch.tensor([-tiny, tiny, -0.0, 0.0, -1.0, 1.0], dtype=dtype)
    with mode(name):
        bits = torch.ops.onebit.pack_bits(x)
    assert torch.ops.onebit.unpack_bits(bits, 6).tolist() == [-1, 1, 1, 1, -1, 1]


_POOL = """
import numpy as np, torch, onebit
from onebit import nn as bnn
torch.set_num_threads(2)
torch.set_flush_denormal(True)
(torch.ones(10**6) * 2).sum()  # PyTorch's threads are made here, and flush for ever
torch.set_flush_denormal(False)
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1000, 400), -1e-30))
        self.factor = torch.nn.Parameter(torch.tensor(1e-10))
    def forward(self, x):
        return torch.nn.functional.linear(x, bnn.ste_sign(self.weight * self.factor))
flushed = (torch.full((10**6,), 1e-30) * 1e-10 == 0).sum().item()
x = torch.ones(2, 400)
print(flushed > 0, np.unique(onebit.convert(Model().eval(), x).run(x.numpy())["output"]))
"""


def test_constants_do_not_come_from_threads_that_flush() -> None:
    done = subprocess.run([sys.executable, "-c", _POOL], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "[-400.]"]


def test_without_a_library_another_mode_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_FUNCTIONS", None)
    one = np.float32([1])
    with default_float_environment():
        assert fma(one, one, one) == 2
    for name in MODES:
        error = pytest.raises(RuntimeError, match="set_flush_denormal")
        with mode(name), error, default_float_environment():
            pass


def test_a_fresh_thread_gives_back_what_its_function_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        in_fresh_thread(lambda: 1 // 0)
    assert in_fresh_thread(divmod, 7, 2) == (3, 1)
