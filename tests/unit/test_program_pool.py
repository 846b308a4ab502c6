"""Pools and channel means against plain loops over Python numbers, and against PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from onebit.program import Node, Program, execute
from program_samples import HURTING, bits, f32, i32, one_op, signs, u8

# size, kernel, stride, padding (top, bottom, left, right), dilation
GEOMETRIES: list[tuple[Any, ...]] = [
    ((4, 4), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((5, 7), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((5, 7), (3, 2), (1, 3), (2, 0, 0, 1), (1, 1)),
    ((6, 5), (2, 3), (1, 1), (0, 1, 1, 0), (2, 2)),
    ((7, 7), (7, 7), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((7, 7), (7, 7), (1, 1), (3, 3, 6, 6), (1, 1)),
    ((1, 9), (1, 3), (1, 2), (0, 0, 1, 1), (1, 3)),
    ((9, 1), (4, 1), (3, 1), (1, 2, 0, 0), (1, 1)),
    ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 1), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((5, 6), (1, 1), (2, 3), (0, 0, 0, 0), (4, 4)),
    ((3, 5), (2, 3), (1, 1), (1, 1, 4, 0), (1, 2)),
]


def outputs(geometry: tuple[Any, ...]) -> tuple[int, int]:
    size, kernel, stride, padding, dilation = geometry
    out = [
        len(
            range(0, size[a] + padding[2 * a] + padding[2 * a + 1] - dilation[a] * (kernel[a] - 1), stride[a])
        )
        for a in (0, 1)
    ]
    return out[0], out[1]


def windows(geometry: tuple[Any, ...]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Each output pixel and the pixels inside the image that it sees, by brute force."""
    (height, width), kernel, stride, padding, dilation = geometry
    for o, q in np.ndindex(*outputs(geometry)):
        seen = [
            (o * stride[0] + i * dilation[0] - padding[0], q * stride[1] + j * dilation[1] - padding[2])
            for i, j in np.ndindex(*kernel)
        ]
        yield o, q, [(r, c) for r, c in seen if 0 <= r < height and 0 <= c < width]


def max_pool(type_: Any, channels: int, geometry: tuple[Any, ...]) -> Program:
    size, kernel, stride, padding, dilation = geometry
    attrs = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    types = {"x": type_(*size, channels)}
    return one_op("max_pool2d", types, {}, type_(*outputs(geometry), channels), **attrs)


def avg_pool(channels: int, geometry: tuple[Any, ...], include: int) -> Program:
    size, kernel, stride, padding, _ = geometry
    attrs = {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": include}
    types = {"x": f32(*size, channels)}
    return one_op("avg_pool2d", types, {}, f32(*outputs(geometry), channels), **attrs)


def draw(rng: np.random.Generator, type_: Any, shape: tuple[int, ...]) -> np.ndarray:
    if type_ is bits:
        return np.where(rng.random(shape) < 0.1, 1, -1).astype(np.int8)  # or nearly every OR would be +1
    if type_ is u8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if type_ is i32:
        return rng.integers(-(2**31), 2**31, shape).astype(np.int32)
    return -np.abs(rng.normal(size=shape)).astype(np.float32)  # below zero, so padding by 0 would show


@pytest.mark.parametrize("type_", [bits, u8, i32, f32])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_max_pool2d(type_: Any, geometry: tuple[Any, ...]) -> None:
    x = draw(np.random.default_rng(1), type_, (2, *geometry[0], 3))
    y = execute(max_pool(type_, 3, geometry), x)["y"]
    assert y.dtype == x.dtype
    for o, q, seen in windows(geometry):
        assert seen, "this geometry should be refused"
        for b, c in np.ndindex(2, 3):
            assert y[b, o, q, c] == max(x[b, row, column, c] for row, column in seen)


@pytest.mark.parametrize("channels", HURTING)
def test_max_pool2d_of_bits_is_or(channels: int) -> None:
    x = signs(np.random.default_rng(channels), 3, 4, 5, channels)
    geometry = ((4, 5), (2, 2), (2, 2), (0, 0, 0, 1), (1, 1))
    y = execute(max_pool(bits, channels, geometry), x)["y"]
    for o, q, seen in windows(geometry):
        either = np.zeros((3, channels), bool)
        for row, column in seen:
            either |= x[:, row, column] > 0
        assert np.array_equal(y[:, o, q] > 0, either)
    assert set(np.unique(y)) <= {-1, 1}


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g[4] == (1, 1)], ids=str)
def test_avg_pool2d_rounds_the_exact_mean_once(geometry: tuple[Any, ...], include: int) -> None:
    rng = np.random.default_rng(2)
    x = (rng.integers(-(2**20), 2**20, (2, *geometry[0], 3)) / 2**7).astype(np.float32)
    y = execute(avg_pool(3, geometry, include), x)["y"]
    assert y.dtype == np.float32
    for o, q, seen in windows(geometry):
        count = geometry[1][0] * geometry[1][1] if include else len(seen)
        for b, c in np.ndindex(2, 3):
            total = sum(Fraction(float(x[b, row, column, c])) for row, column in seen)
            # The exact sum fits float64, so one float64 division and one rounding follow.
            assert y[b, o, q, c] == np.float32(float(total) / count)


@pytest.mark.parametrize("seed", range(20))
def test_pools_agree_with_pytorch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    functional = torch.nn.functional
    kernel = tuple(int(k) for k in rng.integers(1, 6, 2))
    height, width = int(rng.integers(kernel[0], 12)), int(rng.integers(kernel[1], 12))
    half = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    stride = tuple(int(s) for s in rng.integers(1, 4, 2))
    geometry = ((height, width), kernel, stride, (half[0], half[0], half[1], half[1]), (1, 1))
    x = (rng.integers(-999, 999, (2, height, width, 5)) / 8).astype(np.float32)
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    expected = functional.max_pool2d(image, kernel, stride, half).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(execute(max_pool(f32, 5, geometry), x)["y"], expected)
    for include in (0, 1):
        wide = functional.avg_pool2d(image.double(), kernel, stride, half, count_include_pad=bool(include))
        expected = wide.permute(0, 2, 3, 1).float().numpy()
        assert np.array_equal(execute(avg_pool(5, geometry, include), x)["y"], expected)


def test_max_pool2d_keeps_infinities_and_spreads_nan() -> None:
    geometry = ((1, 3), (1, 2), (1, 1), (0, 0, 0, 0), (1, 1))
    x = np.array([[-np.inf, -np.inf, 1.0], [np.inf, -1.0, -2.0]], np.float32).reshape(2, 1, 3, 1)
    assert execute(max_pool(f32, 1, geometry), x)["y"].ravel().tolist() == [-np.inf, 1.0, np.inf, -1.0]
    pool = max_pool(f32, 1, geometry)
    nodes = (Node("sub", ("p", "q"), "x"), *pool.nodes)
    program = Program(("p", "q"), ("y",), nodes, {}, {"p": f32(1, 3, 1), "q": f32(1, 3, 1), **pool.values})
    y = execute(program, x, np.where(np.isinf(x), x, 0))["y"].ravel()
    assert np.isnan(y).tolist() == [True, True, True, False]
    assert y[3] == -1.0


def test_a_window_as_large_as_a_huge_padding_costs_little() -> None:
    far = 2**29
    geometry = ((3, 2), (far, far), (far, far), (far - 1, far - 1, far - 1, far - 1), (1, 1))
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2, 1)
    assert outputs(geometry) == (2, 2)
    with_last = execute(max_pool(f32, 1, geometry), x)["y"][0, :, :, 0]
    assert with_last.tolist() == [[0.0, 1.0], [4.0, 5.0]]
    sums = execute(avg_pool(1, geometry, 1), x)["y"][0, :, :, 0]
    assert sums[1, 1] == np.float32(8.0 / far**2)  # 3 + 5


@pytest.mark.parametrize("c", HURTING)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_channel_mean(c: int, lead: tuple[int, ...]) -> None:
    x = (np.random.default_rng(c).integers(-999, 999, (2, *lead, c)) / 8).astype(np.float32)
    y = execute(one_op("channel_mean", {"x": f32(*lead, c)}, {}, f32(*lead, 1)), x)["y"]
    assert y.shape == (2, *lead, 1)
    assert y.dtype == np.float32
    for row, got in zip(x.reshape(-1, c).tolist(), y.ravel().tolist(), strict=True):
        assert got == np.float32(sum(row) / c)
