"""Random convolutional networks and Programs: PyTorch == the reference == every engine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from onebit.lowering import convert
from parity.agreement import assert_equal
from parity.image_networks import image_networks
from parity.networks import Case

# derandomize: the same networks everywhere; a failing one is made again by the recipe that is printed.
_SETTINGS = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # shrinking would export for many minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def _check(case: Case) -> None:
    note(case.recipe)
    program = convert(case.model, case.x)
    assert_equal(case.model, program, case.x)


@pytest.mark.slow
@_SETTINGS
@given(case=image_networks())
def test_convolutional_networks_equal_pytorch(case: Case) -> None:
    _check(case)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(_SETTINGS, max_examples=2000)
@given(case=image_networks(max_layers=9))
def test_two_thousand_convolutional_networks_equal_pytorch(case: Case) -> None:
    _check(case)
