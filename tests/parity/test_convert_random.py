"""Random networks through the whole path: PyTorch eager == every executor of the converted Program."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings

from onebit import models
from onebit.lowering import convert
from onebit.program import DType
from parity.agreement import assert_equal, assert_hidden_bits_equal
from parity.networks import Case, dyadic_networks, exact_networks

_SETTINGS = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,  # the same 200 networks everywhere; Case.recipe rebuilds a failing one
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.slow
@_SETTINGS
@given(case=exact_networks())
def test_integer_networks_equal_pytorch(case: Case) -> None:
    note(case.recipe)
    program = convert(case.model, case.x)
    assert_equal(case.model, program, case.x)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=50)
@given(case=dyadic_networks())
def test_dyadic_float_networks_equal_pytorch(case: Case) -> None:
    note(case.recipe)
    program = convert(case.model, case.x)
    assert_equal(case.model, program, case.x)
    assert assert_hidden_bits_equal(case.model, program, case.x) > 0


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_one_conversion_serves_every_batch_size(batch: int) -> None:
    torch.manual_seed(7)
    model = models.create_small("bnn_mlp").eval()
    program = convert(model, models.example_input(model, 1))
    assert program.values[program.inputs[0]].dtype is DType.U8
    x = models.example_input(model, batch)
    assert_equal(model, program, x)
    assert assert_hidden_bits_equal(model, program, x) > 0
