"""Every registered model that converts runs in ONNX Runtime, and its file stays small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onebit.export.onnx import save_onnx
from onebit.program import execute, save
from onnx_runtime import assert_equal, require_onnx, run
from program_samples import feed

torch = pytest.importorskip("torch")
from onebit import models  # noqa: E402
from registered_programs import dyadic  # noqa: E402

# Every path to a sign is integer in these (line E1): `==` applies.
EXACT = {"bnn_mlp", "bnn_convnet_cifar10", "bnn_convnet_svhn"}
# Elsewhere orders of summation differ. K, a rounded mean, before a sign flips a few of these random ones.
FLIPS = {"xnor_convnet_cifar10"}
BATCH = 8


def small_and_different() -> list[str]:
    """The names that convert, less those whose small form is that of a name before."""
    seen: dict[str, str] = {}
    for name in models.convertible_names():
        entry = models.entry(name)
        seen.setdefault(repr((entry.factory, sorted({**entry.preset, **entry.small}.items()))), name)
    return list(seen.values())


@pytest.mark.parametrize("name", small_and_different())
def test_registered_models_run_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    require_onnx()
    program = dyadic(name)
    inputs = feed(program, BATCH)
    save(program, tmp_path / "a.onebit")
    nbytes = save_onnx(program, tmp_path / "a.onnx")
    packed = (tmp_path / "a.onebit").stat().st_size
    assert nbytes <= max(1.2 * packed, packed + 2048)  # the table of bits shows in the smallest files only
    model = (tmp_path / "a.onnx").read_bytes()
    if name in EXACT:
        assert_equal(model, program, inputs, name)
        return
    (expected,) = execute(program, *inputs).values()
    for how, got in run(model, program, inputs):
        (scores,) = got.values()
        assert scores.shape == expected.shape
        close = np.isclose(scores, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))
        rows = close.reshape(BATCH, -1).all(axis=1)
        flips = int(BATCH - rows.sum())
        assert flips <= (BATCH // 2 if name in FLIPS else 0), f"{name} {how}: {flips} samples differ"
        same = scores.reshape(BATCH, -1).argmax(1) == expected.reshape(BATCH, -1).argmax(1)
        assert same[rows].all(), f"{name} {how}"
