"""Random Programs and random networks as ONNX, in ONNX Runtime, against the reference executor."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings

from onebit.export.onnx import to_onnx
from onebit.lowering import convert
from onebit.program import OPS, execute
from onnx_runtime import assert_equal, require_onnx, run
from parity.image_networks import image_networks
from parity.networks import Case, exact_networks
from parity.random_images import ImageMaker
from parity.random_programs import ProgramMaker

SEEDS = range(60)
MAKERS = (ProgramMaker, ImageMaker)
_SETTINGS = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,  # Case.recipe rebuilds a failing one
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("maker", MAKERS)
def test_random_programs_equal_the_reference(maker: type[ProgramMaker]) -> None:
    """Their floats are dyadic, so nothing is left open once the model rounds as the Program says."""
    require_onnx()
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        made = maker(seed)
        program = made.make(ops=10)
        inputs = made.feed(3)
        seen.update(node.op for node in program.nodes)
        assert_equal(to_onnx(program, fold=False), program, inputs, f"seed {seed}")
    assert sum(seen.values()) > 300
    if maker is ImageMaker:
        assert not [op for op in OPS if "2d" in op and not seen[op]], "the seeds draw not every op of images"


def test_folding_leaves_every_program_runnable_and_close() -> None:
    """Behind products of real numbers a runtime may round otherwise; few numbers are then far off."""
    require_onnx()
    far = total = 0
    for seed in SEEDS:
        made = ImageMaker(seed)
        program = made.make(ops=10)
        inputs = made.feed(3)
        expected = execute(program, *inputs)
        for _, got in run(to_onnx(program), program, inputs):
            for name, array in expected.items():
                assert got[name].dtype == array.dtype
                assert got[name].shape == array.shape
                scale = float(np.abs(array[np.isfinite(array)]).max(initial=1.0))
                far += int(
                    (~np.isclose(got[name], array, rtol=1e-5, atol=1e-6 * scale, equal_nan=True)).sum()
                )
                total += array.size
    assert total > 10_000
    assert far <= total / 1000, f"{far} of {total} numbers differ"


@_SETTINGS
@given(case=exact_networks())
def test_networks_of_integers_equal_the_reference(case: Case) -> None:
    """Line E1: every path to a sign is integer, and the model is exact as it is written by default."""
    require_onnx()
    note(case.recipe)
    program = convert(case.model, case.x)
    assert_equal(to_onnx(program), program, [case.x.numpy()])


@_SETTINGS
@given(case=image_networks())
def test_networks_over_images_equal_the_reference(case: Case) -> None:
    require_onnx()
    note(case.recipe)
    program = convert(case.model, case.x)
    assert_equal(to_onnx(program, fold=False), program, [case.x.numpy()])
