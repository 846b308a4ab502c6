"""Convolutions of the reference against PyTorch's in float64 on integers and dyadic numbers, with ==."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from onebit.program import Constant, Program, execute
from program_samples import bits, bits_constant, constant, f32, i32, one_op, signs, u8

PIXELS = {"multiplier": 2, "offset": -255}


@dataclass(frozen=True)
class Case:
    """One convolution; `padding` is (top, bottom, left, right), `channels` those of one group."""

    size: tuple[int, int] = (5, 5)
    channels: int = 3
    n: int = 4
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def attrs(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def image(self) -> tuple[int, int, int]:
        return (*self.size, self.channels * self.groups)

    @property
    def weights(self) -> tuple[int, ...]:
        return (self.n, *self.kernel, self.channels)


CASES = [
    *(Case(channels=c, n=3) for c in (1, 31, 32, 33, 63, 64, 65)),
    *(Case(channels=1, n=n, kernel=(1, 2)) for n in (1, 31, 33)),
    *(Case(size=(9, 8), kernel=(k, 8 - k), padding=(k // 2, k // 2, 1, 1)) for k in range(1, 8)),
    *(Case(size=(7, 7), stride=s) for s in ((2, 2), (3, 1), (1, 3), (7, 9))),
    *(Case(size=(9, 7), dilation=d, padding=(2, 2, 3, 3)) for d in ((2, 2), (3, 1), (1, 4))),
    *(Case(channels=c, groups=g, n=2 * g) for c, g in ((33, 2), (31, 3), (32, 2), (5, 13), (1, 7), (1, 65))),
    Case(channels=1, groups=33, n=33, stride=(2, 2)),
    Case(padding=(0, 0, 0, 0)),
    Case(padding=(0, 1, 2, 3), stride=(2, 2)),
    Case(padding=(4, 0, 0, 5), kernel=(2, 2)),  # whole windows outside the image
    Case(size=(1, 9), kernel=(1, 3), padding=(0, 0, 1, 1)),  # a 1-d convolution
    Case(size=(9, 1), kernel=(3, 3)),
    Case(size=(1, 1), kernel=(3, 3)),
    Case(size=(1, 1), channels=65, kernel=(1, 1), padding=(0, 0, 0, 0)),
    Case(size=(2, 3), kernel=(2, 3), padding=(0, 0, 0, 0)),  # one window, all of the image
    Case(size=(3, 3), kernel=(2, 2), dilation=(6, 6), padding=(5, 5, 5, 5)),  # most taps outside
]


def torch_conv(x: np.ndarray, w: np.ndarray, case: Case, outside: float = 0.0) -> np.ndarray:
    top, bottom, left, right = case.padding
    image = torch.from_numpy(np.asarray(x, np.float64)).permute(0, 3, 1, 2)
    image = torch.nn.functional.pad(image, (left, right, top, bottom), value=outside)
    weight = torch.from_numpy(np.asarray(w, np.float64)).permute(0, 3, 1, 2)
    y = torch.nn.functional.conv2d(
        image, weight, stride=case.stride, dilation=case.dilation, groups=case.groups
    )
    return y.permute(0, 2, 3, 1).numpy()


def program(
    op: str, case: Case, x: Any, w: Constant, expected: np.ndarray, out: Any, **attrs: Any
) -> Program:
    types = {"x": x(*case.image)}
    return one_op(op, types, {"w": w}, out(*expected.shape[1:]), **case.attrs, **attrs)


@pytest.mark.parametrize("padding_value", [0, 1, -1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_binary_conv2d(case: Case, padding_value: int) -> None:
    rng = np.random.default_rng(1)
    x, w = signs(rng, 2, *case.image), signs(rng, *case.weights)
    expected = torch_conv(x, w, case, padding_value)
    conv = program("binary_conv2d", case, bits, bits_constant(w), expected, i32, padding_value=padding_value)
    y = execute(conv, x)["y"]
    assert y.dtype == np.int32
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("attrs", [PIXELS, {"multiplier": -3, "offset": 7}, {"multiplier": 1, "offset": 0}])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_u8_conv2d(case: Case, attrs: dict[str, int]) -> None:
    rng = np.random.default_rng(2)
    x, w = rng.integers(0, 256, (2, *case.image), dtype=np.uint8), signs(rng, *case.weights)
    expected = torch_conv(attrs["multiplier"] * x.astype(np.float64) + attrs["offset"], w, case)
    y = execute(program("u8_conv2d", case, u8, bits_constant(w), expected, i32, **attrs), x)["y"]
    assert y.dtype == np.int32
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float_convolutions_of_dyadic_numbers(case: Case) -> None:
    rng = np.random.default_rng(3)
    x = (rng.integers(-64, 65, (2, *case.image)) / 16).astype(np.float32)
    floats = (rng.integers(-64, 65, case.weights) / 32).astype(np.float32)
    one_bit = signs(rng, *case.weights)
    for op, w, const in (
        ("f32_conv2d", floats, constant(floats)),
        ("f32_binary_conv2d", one_bit, bits_constant(one_bit)),
    ):
        expected = torch_conv(x, w, case)
        y = execute(program(op, case, f32, const, expected, f32), x)["y"]
        assert y.dtype == np.float32
        assert np.array_equal(y, expected)


def test_a_convolution_by_hand() -> None:
    """Plain loops over the definition, for the case that PyTorch might share a mistake with the reference."""
    rng = np.random.default_rng(4)
    height, width, channels, groups, n = 4, 5, 6, 2, 4
    x, w = signs(rng, 1, height, width, channels), signs(rng, n, 2, 3, channels // groups)
    case = Case((height, width), 3, n, (2, 3), (2, 1), (1, 2, 0, 1), (2, 1), groups)
    expected = np.zeros((1, 3, 4, n))
    for o, q, k, i, j, c in np.ndindex(3, 4, n, 2, 3, channels // groups):
        row, column = 2 * o + 2 * i - 1, q + j
        inside = 0 <= row < height and 0 <= column < width
        channel = (0 if k < n // groups else channels // groups) + c
        expected[0, o, q, k] += w[k, i, j, c] * (x[0, row, column, channel] if inside else -1)
    conv = program("binary_conv2d", case, bits, bits_constant(w), expected, i32, padding_value=-1)
    assert np.array_equal(execute(conv, x)["y"], expected)


def test_sums_go_beyond_16_bits_and_beyond_float32() -> None:
    c = 2**24 // 9 + 2  # 9·c is odd and above 2^24, where float32 no longer holds every integer
    x, w = np.ones((1, 3, 3, c), np.int8), np.ones((1, 3, 3, c), np.int8)
    case = Case((3, 3), c, 1, padding=(0, 0, 0, 0))
    k = 9 * c
    assert k > 2**24
    assert k % 2 == 1
    conv = program(
        "binary_conv2d", case, bits, bits_constant(w), np.zeros((1, 1, 1, 1)), i32, padding_value=0
    )
    assert execute(conv, x)["y"].tolist() == [[[[k]]]]


def test_u8_conv2d_reaches_the_end_of_int32_exactly() -> None:
    k = 12
    multiplier = (2**31 - 1) // (k * 255)
    offset = -((2**31 - 1) // k - 255 * multiplier)
    case = Case((2, 3), 2, 1, (2, 3), padding=(0, 0, 0, 0))
    x = np.zeros((1, *case.image), np.uint8)
    x[0, 0, 0, 0] = 255
    w = bits_constant(np.ones(case.weights))
    attrs = {"multiplier": multiplier, "offset": offset}
    conv = program("u8_conv2d", case, u8, w, np.zeros((1, 1, 1, 1)), i32, **attrs)
    assert execute(conv, x)["y"].tolist() == [[[[multiplier * 255 + k * offset]]]]


@pytest.mark.parametrize("op", ["f32_conv2d", "f32_binary_conv2d"])
def test_float_convolutions_sum_in_float64_and_round_once(op: str) -> None:
    x = np.array([2.0**30, 1.0, -(2.0**30)], np.float32).reshape(1, 1, 3, 1)
    ones = np.ones((1, 1, 3, 1), np.float32)
    w = constant(ones) if op == "f32_conv2d" else bits_constant(ones)
    case = Case((1, 3), 1, 1, (1, 3), padding=(0, 0, 0, 0))
    assert execute(program(op, case, f32, w, np.zeros((1, 1, 1, 1)), f32), x)["y"].tolist() == [[[[1.0]]]]


def test_infinities_stay_in_the_windows_that_see_them() -> None:
    x = np.zeros((1, 1, 5, 1), np.float32)
    x[0, 0, 0] = np.inf
    x[0, 0, 4] = -np.inf
    w = constant(np.array([1, -1, 0.5], np.float32).reshape(1, 1, 3, 1))
    case = Case((1, 5), 1, 1, (1, 3), padding=(0, 0, 1, 1))
    y = execute(program("f32_conv2d", case, f32, w, np.zeros((1, 1, 5, 1)), f32), x)["y"]
    assert y.ravel().tolist() == [-np.inf, np.inf, 0.0, -np.inf, np.inf]


def test_padding_and_stride_cost_no_memory() -> None:
    """A padded image would have 10^16 pixels here."""
    far = 10**8
    case = Case((1, 1), 33, 2, (1, 1), (far, far), (far,) * 4)
    rng = np.random.default_rng(5)
    x, w = signs(rng, 1, 1, 1, 33), signs(rng, 2, 1, 1, 33)
    expected = np.zeros((3, 3, 2), np.int64) + w.sum(axis=(1, 2, 3), dtype=np.int64)
    expected[1, 1] = (x * w).sum(axis=(1, 2, 3), dtype=np.int64)
    conv = program("binary_conv2d", case, bits, bits_constant(w), expected[None], i32, padding_value=1)
    assert np.array_equal(execute(conv, x)["y"][0], expected)


def test_an_empty_batch() -> None:
    case = Case(groups=2)
    w = bits_constant(np.ones(case.weights))
    conv = program("binary_conv2d", case, bits, w, np.zeros((0, 5, 5, 4)), i32, padding_value=1)
    assert execute(conv, np.zeros((0, *case.image), np.int8))["y"].shape == (0, 5, 5, 4)


@pytest.mark.parametrize("seed", range(40))
def test_random_geometries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = random_case(rng)
    x, w = signs(rng, 2, *case.image), signs(rng, *case.weights)
    outside = int(rng.choice([0, 1, -1]))
    expected = torch_conv(x, w, case, outside)
    conv = program("binary_conv2d", case, bits, bits_constant(w), expected, i32, padding_value=outside)
    assert np.array_equal(execute(conv, x)["y"], expected), case


def random_case(rng: np.random.Generator) -> Case:
    while True:
        groups = int(rng.choice([1, 1, 2, 3, 33]))
        channels = int(rng.choice([1, 3, 31, 33])) if groups < 33 else 1

        def two(low: int, high: int) -> tuple[int, int]:
            a, b = rng.integers(low, high, 2)
            return int(a), int(b)

        size, kernel, stride, dilation = two(1, 12), two(1, 8), two(1, 4), two(1, 4)
        padding = (*two(0, 5), *two(0, 5))
        case = Case(
            size, channels, groups * int(rng.integers(1, 4)), kernel, stride, padding, dilation, groups
        )
        padded = (size[0] + sum(padding[:2]), size[1] + sum(padding[2:]))
        if all(d * (k - 1) < p for d, k, p in zip(dilation, kernel, padded, strict=True)):
            return case
