"""ScalePixels: every byte against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from onebit.nn import ScalePixels


def test_every_byte_is_exact() -> None:
    y = ScalePixels()(torch.arange(256, dtype=torch.uint8))
    assert y.dtype == torch.float32
    assert [Fraction(v) for v in y.tolist()] == [Fraction(2 * x - 255, 256) for x in range(256)]


def test_sums_are_exact_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (65793,), generator=generator, dtype=torch.uint8)
    x[: len(x) // 2] = 255
    scaled = ScalePixels()(x)
    exact = sum(Fraction(2 * v - 255, 256) for v in x.tolist())
    for order in (torch.arange(len(x)), torch.randperm(len(x), generator=generator)):
        assert Fraction(scaled[order].sum().item()) == exact
        assert Fraction(scaled[order].cumsum(0)[-1].item()) == exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int8, torch.bool])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"torch.uint8.*got {dtype}"):
        ScalePixels()(torch.zeros(2, 3, dtype=dtype))


def test_compiled_equals_eager() -> None:
    torch.compiler.reset()
    x = torch.arange(256, dtype=torch.uint8).reshape(4, 64)
    compiled = torch.compile(ScalePixels(), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), ScalePixels()(x))
