"""ScalePixels: every byte against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from onebit.nn import NormalizePixels, ScalePixels


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


def test_normalized_pixels_are_near_the_exact_fractions() -> None:
    """Rounding: a and b to float32, the product, the sum; 4 units in the last place of the largest term."""
    mean, std = (0.485, 0.5), (0.229, 0.25)
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 2, 16, 16)
    y = NormalizePixels(mean, std)(x)
    assert y.dtype == torch.float32
    for c in range(2):
        for byte, value in zip(x[0, c].flatten().tolist(), y[0, c].flatten().tolist(), strict=True):
            exact = (Fraction(byte, 255) - Fraction(mean[c])) / Fraction(std[c])
            assert abs(Fraction(value) - exact) <= 4 * Fraction(2) ** -22


def test_normalize_pixels_is_plain_arithmetic_without_state() -> None:
    layer = NormalizePixels().eval()
    assert not layer.state_dict()
    x = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(layer, (x,), strict=False).run_decompositions({})
    targets = [str(node.target) for node in exported.graph.nodes]
    arithmetic = [t for t in targets if t.startswith(("aten.mul", "aten.add", "aten.sub", "aten.div"))]
    assert arithmetic == ["aten.mul.Tensor", "aten.add.Tensor"]
    assert torch.equal(exported.module()(x), layer(x))


def test_normalize_pixels_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(TypeError, match=r"NormalizePixels takes torch.uint8 .* got torch.float32"):
        NormalizePixels()(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\); got \(2, 1, 4, 4\)"):
        NormalizePixels()(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    for mean, std in (((0.5,), (0.5, 0.5)), ((0.5,), (0.0,))):
        with pytest.raises(ValueError, match="mean and std must be equally many, every std positive"):
            NormalizePixels(mean, std)
