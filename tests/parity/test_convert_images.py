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
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # shrinking would export for many minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


_EXPECTED = {
    *("binary_conv2d", "u8_conv2d", "f32_binary_conv2d", "f32_conv2d", "max_pool2d", "avg_pool2d"),
    *("channel_mean", "abs", "concat", "permute", "reshape", "sign", "threshold", "prelu", "affine"),
    *("binary_gemm", "f32_gemm", "to_float", "scale_pixels", "add", "sub", "mul", "relu"),
}


def _check_networks(count: int, max_layers: int) -> None:
    seen: set[str] = set()

    @settings(_SETTINGS, max_examples=count)
    @given(case=image_networks(max_layers))
    def check(case: Case) -> None:
        note(case.recipe)
        program = convert(case.model, case.x)
        seen.update(node.op for node in program.nodes)
        assert_equal(case.model, program, case.x)

    check()
    assert seen >= _EXPECTED, _EXPECTED - seen


@pytest.mark.slow
def test_convolutional_networks_equal_pytorch() -> None:
    _check_networks(200, max_layers=6)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_thousand_convolutional_networks_equal_pytorch() -> None:
    _check_networks(2000, max_layers=9)
