"""permute, concat and abs; and arithmetic of a single channel with many."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from onebit.program import execute
from program_samples import bits, constant, f32, i32, one_op, signs, u8

FORMS = [(bits, np.int8), (u8, np.uint8), (i32, np.int32), (f32, np.float32)]


def numbered(shape: tuple[int, ...], type_: Any, form: type) -> np.ndarray:
    """Different elements where the type has room for them."""
    count = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return (np.where(count % 7 % 3 == 0, 1, -1) if type_ is bits else count).astype(form)


@pytest.mark.parametrize(("type_", "form"), FORMS)
@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_permute(type_: Any, form: type, axes: tuple[int, ...]) -> None:
    shape = (3, 2, 33)
    x = numbered((2, *shape), type_, form)
    out = tuple(shape[axis] for axis in axes)
    y = execute(one_op("permute", {"x": type_(*shape)}, {}, type_(*out), axes=axes), x)["y"]
    assert y.dtype == form
    assert y.shape == (2, *out)
    assert y.flags.c_contiguous
    for b, *index in np.ndindex(2, *shape):
        assert y[(b, *(index[axis] for axis in axes))] == x[(b, *index)]


def test_permute_of_a_scalar_and_of_one_axis() -> None:
    assert execute(one_op("permute", {"x": f32()}, {}, f32(), axes=()), np.ones(3, np.float32))[
        "y"
    ].shape == (3,)
    x = signs(np.random.default_rng(0), 2, 33)
    assert np.array_equal(execute(one_op("permute", {"x": bits(33)}, {}, bits(33), axes=(0,)), x)["y"], x)


@pytest.mark.parametrize(("type_", "form"), FORMS)
@pytest.mark.parametrize("widths", [(1, 1), (31, 2), (32, 32), (33, 31, 65), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_concat(type_: Any, form: type, widths: tuple[int, ...], lead: tuple[int, ...]) -> None:
    types = {f"x{i}": type_(*lead, width) for i, width in enumerate(widths)}
    total = sum(widths)
    whole = numbered((2, *lead, total), type_, form)
    ends = np.cumsum(widths)
    parts = [whole[..., end - width : end] for end, width in zip(ends, widths, strict=True)]
    y = execute(one_op("concat", types, {}, type_(*lead, total)), *parts)["y"]
    assert y.dtype == form
    assert np.array_equal(y, whole)


def test_concat_takes_one_value_many_times() -> None:
    x = numbered((2, 3), i32, np.int32)
    program = one_op("concat", {"x": i32(3)}, {}, i32(9), ("x",) * 3)
    assert np.array_equal(execute(program, x)["y"], np.concatenate([x, x, x], 1))


def test_abs_clears_the_sign_bit() -> None:
    x = np.array([[-0.0, 0.0, -1.5, 2.0, -np.inf, np.inf, -1e-45]], np.float32)
    y = execute(one_op("abs", {"x": f32(7)}, {}, f32(7)), x)["y"]
    assert y.dtype == np.float32
    assert y.tolist() == [[0.0, 0.0, 1.5, 2.0, np.inf, np.inf, float(np.float32(1e-45))]]
    assert not np.signbit(y).any()


ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("channels", [1, 2, 33])
@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
@pytest.mark.parametrize("one_first", [False, True])
def test_a_single_channel_meets_every_channel(
    op: str, channels: int, lead: tuple[int, ...], one_first: bool
) -> None:
    rng = np.random.default_rng(channels)
    wide = rng.normal(size=(2, *lead, channels)).astype(np.float32)
    one = rng.normal(size=(2, *lead, 1)).astype(np.float32)
    a, b = (one, wide) if one_first else (wide, one)
    types = {"a": f32(*a.shape[1:]), "b": f32(*b.shape[1:])}
    y = execute(one_op(op, types, {}, f32(*lead, channels)), a, b)["y"]
    assert y.shape == wide.shape
    for index in np.ndindex(*wide.shape):
        first, second = (one[index[:-1]][0], wide[index]) if one_first else (wide[index], one[index[:-1]][0])
        # float64 has more than twice the bits, so rounding its result to float32 rounds once.
        assert y[index] == np.float32(ARITHMETIC[op](np.float64(first), np.float64(second)))


def test_a_constant_still_broadcasts_only_to_the_value() -> None:
    c = constant(np.array([2.0, 3.0], np.float32))
    x = np.array([[1.0, 4.0]], np.float32)
    assert execute(one_op("mul", {"x": f32(2)}, {"c": c}, f32(2)), x)["y"].tolist() == [[2.0, 12.0]]
