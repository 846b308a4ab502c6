"""Small forms of the papers' image networks on the GPU engine, its kernels run by the emulator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cuda_emulation.compile import compiler
from cuda_emulation.device import EmulatedDevice
from onebit import models
from onebit.lowering import convert
from onebit.program import execute
from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
from parity.networks import make_dyadic
from support import require, sweep


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    require(compiler(), "g++, which compiles kernels for the emulator")


@pytest.mark.slow  # emulates some twenty layers
@sweep(
    ("capability", "padding_value"),
    [(capability, value) for capability in ((9, 0), (7, 5)) for value in (0, -1)],
    keep=[((9, 0), 0)],
)
def test_a_convnet_without_floats_is_equal(capability: tuple[int, int], padding_value: int) -> None:
    torch.manual_seed(3)
    model = models.create_small("bnn_convnet_cifar10", padding_value=padding_value).eval()
    x = models.example_input(model, 3)
    program = convert(model, x[:1])
    device = EmulatedDevice(capability=capability)
    with CudaEngine(program, device=device) as engine:
        np.testing.assert_array_equal(engine(x.numpy()), execute(program, x.numpy())[program.outputs[0]])
    assert "direct" not in device.launches


@pytest.mark.slow  # emulates some twenty layers
@pytest.mark.targets
@pytest.mark.parametrize(
    ("name", "capability"), [("birealnet18", (9, 0)), ("birealnet18", (7, 5)), ("quicknet", (8, 0))]
)
def test_a_residual_network_agrees(name: str, capability: tuple[int, int]) -> None:
    # With dyadic numbers the first layer is exact in any order, so no sign differs; the last dense layer need
    # not be. A wrong sign anywhere would change a score by far more than the tolerance.
    torch.manual_seed(3)
    model = make_dyadic(models.create_small(name, normalize=False)).eval()
    x = torch.randint(-4, 5, (3, *model.input_shape)) / 4
    program = convert(model, x[:1])
    device = EmulatedDevice(capability=capability)
    with CudaEngine(program, device=device) as engine:
        found = engine(x.numpy())
    np.testing.assert_allclose(found, execute(program, x.numpy())[program.outputs[0]], rtol=1e-5, atol=1e-5)
    assert "direct" not in device.launches
