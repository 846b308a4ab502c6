"""Rules of the ops of convolutional networks, broken one at a time; and the nearest programs that pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onebit.program import OPS, Constant, DType, Program, ProgramError, TensorType, limits, verify
from onebit.program.ops import Call
from program_samples import bits, bits_constant, constant, conv_zoo, f32, i32, one_op, u8

PLAIN = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
LARGE = limits.MAX_DIMENSION
IMAGE, FLOATS = bits(5, 5, 4), f32(5, 5, 4)
CONVOLVED, POOLED = i32(3, 3, 2), f32(4, 4, 4)


def ones(*shape: int) -> Constant:
    return bits_constant(np.ones(shape))


def floats(*shape: int) -> Constant:
    return constant(np.ones(shape, np.float32))


def conv(
    x: TensorType = IMAGE,
    w: Constant | None = None,
    out: TensorType = CONVOLVED,
    op: str = "binary_conv2d",
    **attrs: Any,
) -> Program:
    """A 3×3 convolution of 4 channels to 2 that is right; arguments make it wrong."""
    extra = {"binary_conv2d": {"padding_value": 0}, "u8_conv2d": {"multiplier": 2, "offset": -255}}.get(
        op, {}
    )
    weights = ones(2, 3, 3, 4) if w is None else w
    return one_op(op, {"x": x}, {"w": weights}, out, **{**PLAIN, "groups": 1, **extra, **attrs})


def pool(x: TensorType = FLOATS, out: TensorType = POOLED, op: str = "max_pool2d", **attrs: Any) -> Program:
    """A 2×2 pool that is right."""
    if op == "avg_pool2d":
        geometry: dict[str, Any] = {**PLAIN, "count_include_pad": 0}
        del geometry["dilation"]
    else:
        geometry = PLAIN
    return one_op(op, {"x": x}, {}, out, **{"kernel": (2, 2), **geometry, **attrs})


def wide_row(**attrs: Any) -> Program:
    """A pool over one row of 5."""
    return pool(f32(1, 5, 1), kernel=(1, 3), **attrs)


def permute(axes: Any) -> Program:
    return one_op("permute", {"x": f32(2, 3)}, {}, f32(3, 2), axes=axes)


def concat(*types: TensorType) -> Program:
    return one_op("concat", {f"x{i}": type_ for i, type_ in enumerate(types)}, {}, f32(9))


def arithmetic(a: TensorType, b: TensorType) -> Program:
    return one_op("mul", {"a": a, "b": b}, {}, a)


FITS = "expected it to fit at least once"
HITS = "expected each window to have a tap inside the image"

CASES: dict[str, tuple[Callable[[], Program], str]] = {
    # convolutions: types
    "conv of bytes": (lambda: conv(u8(5, 5, 4)), r"dtype of x: found u8\[5, 5, 4\], expected bits"),
    "conv with float weights": (lambda: conv(w=floats(2, 3, 3, 4)), "dtype of w: found f32"),
    "u8_conv2d of bits": (lambda: conv(op="u8_conv2d"), r"dtype of x: found bits\[5, 5, 4\], expected u8"),
    "f32_conv2d with bits": (
        lambda: conv(f32(5, 5, 4), op="f32_conv2d"),
        r"dtype of w: found bits\[2, 3, 3, 4\], expected f32",
    ),
    "f32_binary_conv2d with floats": (
        lambda: conv(f32(5, 5, 4), floats(2, 3, 3, 4), op="f32_binary_conv2d"),
        "dtype of w: found f32.*, expected bits",
    ),
    "conv of a row": (lambda: conv(bits(5, 4)), r"rank of x: found bits\[5, 4\], expected bits\[H, W, C\]"),
    "weights of rank 3": (lambda: conv(w=ones(3, 3, 4)), "rank of w: found .*, expected bits.N, KH, KW"),
    "weights of 5 channels": (
        lambda: conv(w=ones(2, 3, 3, 5)),
        r"channels of w: found bits\[2, 3, 3, 5\], expected C/groups = 4/1 for x bits\[5, 5, 4\]",
    ),
    "weights not divided by groups": (lambda: conv(groups=2), "channels of w: .* expected C/groups = 4/2"),
    "groups do not divide C": (
        lambda: conv(w=ones(3, 3, 3, 1), groups=3),
        "attribute groups: found 3, expected a divisor of C = 4 and of N = 3",
    ),
    "groups do not divide N": (lambda: conv(w=ones(2, 3, 3, 1), groups=4), "of C = 4 and of N = 2"),
    "groups 0": (lambda: conv(groups=0), "attribute groups: found 0"),
    "groups -1": (lambda: conv(groups=-1), "attribute groups: found -1"),
    "groups a tuple": (lambda: conv(groups=(1, 1)), r"attribute groups: found \(1, 1\) \(tuple\)"),
    # convolutions: geometry
    "stride of one int": (lambda: conv(stride=(1,)), r"attribute stride: found \(1,\), expected two ints"),
    "stride an int": (
        lambda: conv(stride=2),
        r"attribute stride: found 2 \(int\), expected a tuple of ints >= 1",
    ),
    "stride 0": (lambda: conv(stride=(0, 1)), r"attribute stride: found \(0, 1\)"),
    "stride huge": (lambda: conv(stride=(LARGE + 1, 1)), "attribute stride: found"),
    "stride bool": (lambda: conv(stride=(True, 1)), "attribute stride: found"),
    "padding of two ints": (
        lambda: conv(padding=(1, 1)),
        r"attribute padding: found \(1, 1\), expected four ints: top, bottom, left, right",
    ),
    "padding negative": (lambda: conv(padding=(0, -1, 0, 0)), "padding: found .* a tuple of ints >= 0"),
    "padding float": (lambda: conv(padding=(0, 1.0, 0, 0)), "attribute padding: found"),
    "dilation 0": (lambda: conv(dilation=(1, 0)), "attribute dilation: found"),
    "dilation of three ints": (lambda: conv(dilation=(1, 1, 1)), "attribute dilation: found .*two ints"),
    "kernel higher than the image": (
        lambda: conv(bits(2, 5, 4)),
        r"output height: found a window of 3 \(kernel 3, dilation 1\) on 2 \(0 \+ 2 \+ 0 with padding\), "
        + FITS,
    ),
    "kernel wider than the image": (lambda: conv(bits(5, 2, 4)), f"output width: found.*{FITS}"),
    "dilated kernel too large": (lambda: conv(dilation=(1, 3)), "a window of 7 .* on 5"),
    "dilation beyond int64": (lambda: conv(dilation=(LARGE, LARGE)), "a window of 4294967295 "),
    "padding beyond an index": (
        lambda: conv(padding=(0, 0, LARGE, LARGE)),
        f"width with its padding: found {LARGE} . 5 . {LARGE}, expected at most {LARGE}",
    ),
    "output too large": (
        lambda: conv(padding=(2**17,) * 4, out=i32(2**18 + 3, 2**18 + 3, 2)),
        "size of a value: found",
    ),
    "declared output": (
        lambda: conv(out=i32(3, 4, 2)),
        r"declared type: found i32\[3, 4, 2\], expected i32\[3, 3, 2\]",
    ),
    "stride leaves fewer outputs": (lambda: conv(stride=(2, 2)), r"expected i32\[2, 2, 2\]"),
    # convolutions: numbers
    "padding_value 2": (
        lambda: conv(padding_value=2),
        "attribute padding_value: found 2, expected 0, 1 or -1",
    ),
    "padding_value 1.0": (lambda: conv(padding_value=1.0), r"padding_value: found 1.0 \(float\)"),
    "padding_value of a float conv": (
        lambda: conv(f32(5, 5, 4), floats(2, 3, 3, 4), f32(3, 3, 2), "f32_conv2d", padding_value=0),
        "attributes: found",
    ),
    "no padding_value": (
        lambda: one_op("binary_conv2d", {"x": bits(3, 3, 1)}, {"w": ones(1, 3, 3, 1)}, i32(1, 1, 1), **PLAIN),
        "attributes: found",
    ),
    "u8_conv2d overflows int32": (
        lambda: conv(u8(5, 5, 4), op="u8_conv2d", multiplier=2**18),
        rf"C/groups·\(255·\|multiplier\| \+ \|offset\|\) = {36 * (255 * 2**18 + 255)}, expected at most",
    ),
    "u8_conv2d multiplier 0": (
        lambda: conv(u8(5, 5, 4), op="u8_conv2d", multiplier=0),
        "attribute multiplier: found 0",
    ),
    # pools
    "max_pool2d of i8": (
        lambda: pool(TensorType(DType.I8, (5, 5, 4))),
        "dtype of x: found .*, expected bits or u8 or i32 or f32",
    ),
    "avg_pool2d of bits": (lambda: pool(bits(5, 5, 4), op="avg_pool2d"), "dtype of x: found bits.* f32"),
    "pool of a row": (lambda: pool(f32(5, 4)), "rank of x"),
    "kernel of one int": (lambda: pool(kernel=(2,)), r"attribute kernel: found \(2,\), expected two ints"),
    "kernel 0": (lambda: pool(kernel=(0, 2)), "attribute kernel: found"),
    "pool larger than the image": (lambda: pool(kernel=(6, 2)), f"output height: .*{FITS}"),
    "avg_pool2d with dilation": (lambda: pool(op="avg_pool2d", dilation=(1, 1)), "attributes: found"),
    "count_include_pad 2": (
        lambda: pool(op="avg_pool2d", count_include_pad=2),
        "attribute count_include_pad: found 2, expected 0 or 1",
    ),
    "count_include_pad True": (lambda: pool(op="avg_pool2d", count_include_pad=True), r"True \(bool\)"),
    "first window outside": (lambda: wide_row(padding=(0, 0, 3, 0)), f"windows along the width: .*{HITS}"),
    "last window outside": (lambda: wide_row(padding=(0, 0, 0, 3)), f"padding 0 and 3 on size 5, {HITS}"),
    "last strided window outside": (lambda: wide_row(padding=(0, 0, 1, 5), stride=(1, 4)), HITS),
    "rows outside": (lambda: pool(padding=(2, 0, 0, 0)), "windows along the height"),
    "taps jump over the image": (
        lambda: pool(f32(1, 5, 4), padding=(1, 1, 0, 0), dilation=(2, 1)),
        f"dilation 2, padding 1 and 1 on size 1, {HITS}",
    ),
    "channel_mean of integers": (
        lambda: one_op("channel_mean", {"x": i32(3)}, {}, f32(1)),
        r"dtype of x: found i32\[3\], expected f32",
    ),
    "channel_mean of a scalar": (lambda: one_op("channel_mean", {"x": f32()}, {}, f32(1)), "rank of x"),
    # moves and arithmetic
    "abs of integers": (lambda: one_op("abs", {"x": i32(3)}, {}, i32(3)), "dtype of x"),
    "axis twice": (
        lambda: permute((0, 0)),
        r"attribute axes: found \(0, 0\) for f32\[2, 3\], expected each of 0 to 1 once",
    ),
    "axis missing": (lambda: permute((0,)), "attribute axes"),
    "axis too large": (lambda: permute((0, 2)), "attribute axes"),
    "axis negative": (lambda: permute((0, -1)), "attribute axes: found .* a tuple of ints >= 0"),
    "axes a list": (lambda: permute([1, 0]), r"attribute axes: found \[1, 0\] \(list\)"),
    "axes of a scalar": (
        lambda: one_op("permute", {"x": f32()}, {}, f32(), axes=(0,)),
        r"attribute axes: found \(0,\) for f32\[\], expected \(\)",
    ),
    "axes of rank 9": (lambda: permute((0,) * 9), "rank of attribute axes: found 9"),
    "permuted type": (lambda: permute((0, 1)), r"declared type: found f32\[3, 2\], expected f32\[2, 3\]"),
    "concat of one": (
        lambda: concat(f32(9)),
        r"number of inputs: found 1, expected 2 or more \(a, b\)",
    ),
    "concat of none": (
        lambda: replace(concat(f32(9)), nodes=(replace(concat(f32(9)).nodes[0], inputs=()),)),
        "number of inputs: found 0, expected 2 or more",
    ),
    "concat of two dtypes": (
        lambda: concat(f32(4), f32(3), i32(2)),
        r"dtype and leading axes of input 2: found i32\[2\], expected those of f32\[4\]",
    ),
    "concat of two sizes": (lambda: concat(f32(2, 4), f32(3, 5)), "leading axes of input 1"),
    "concat of two ranks": (lambda: concat(f32(4), f32(1, 5)), "leading axes of input 1"),
    "concat of scalars": (lambda: concat(f32(), f32()), "rank of input 0"),
    "concat with a scalar": (lambda: concat(f32(9), f32()), "leading axes of input 1"),
    "concat of a constant": (
        lambda: one_op("concat", {"x": f32(4)}, {"c": floats(5)}, f32(9), ("x", "x", "c")),
        "input b = 'c': its role: found a constant, expected a value",
    ),
    "concat of an unknown third": (
        lambda: one_op("concat", {"x": f32(3)}, {}, f32(9), ("x", "x", "ghost")),
        "input b = 'ghost': every input is defined",
    ),
    "concat gives another type": (lambda: concat(f32(4), f32(4)), r"found f32\[9\], expected f32\[8\]"),
    "one channel of other rows": (
        lambda: arithmetic(f32(4, 3), f32(5, 1)),
        r"two values: found f32\[4, 3\] and f32\[5, 1\], expected the same shape, or the same leading axes",
    ),
    "one channel of another rank": (lambda: arithmetic(f32(4, 3), f32(1)), "two values"),
    "a scalar value": (lambda: arithmetic(f32(3), f32()), "two values"),
    "one row meets many": (lambda: arithmetic(f32(4, 3), f32(1, 3)), "two values"),
    "the wider value gives the type": (
        lambda: arithmetic(f32(4, 1), f32(4, 3)),
        r"declared type: found f32\[4, 1\], expected f32\[4, 3\]",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_rule_gets_its_error(name: str) -> None:
    build, message = CASES[name]
    with pytest.raises(ProgramError, match=message) as caught:
        verify(build())
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("node 0")


GOOD: dict[str, Callable[[], Program]] = {
    "zoo": conv_zoo,
    "larger zoo": lambda: conv_zoo(9, 1),
    "conv": conv,
    "u8 conv": lambda: conv(u8(5, 5, 4), op="u8_conv2d"),
    "kernel as large as the image": lambda: conv(bits(3, 3, 4), out=i32(1, 1, 2)),
    "conv windows outside": lambda: conv(padding=(9, 0, 0, 9), out=i32(12, 12, 2)),
    "widest u8 conv": lambda: conv(u8(5, 5, 4), op="u8_conv2d", multiplier=1, offset=(2**31 - 1) // 36 - 255),
    "max_pool2d": pool,
    "avg_pool2d": lambda: pool(op="avg_pool2d"),
    "first window touches": lambda: wide_row(padding=(0, 0, 2, 0), out=f32(1, 5, 1)),
    "last window touches": lambda: wide_row(padding=(0, 0, 0, 2), out=f32(1, 5, 1)),
    "last strided window touches": lambda: wide_row(padding=(0, 0, 0, 5), stride=(1, 4), out=f32(1, 2, 1)),
    "dilation without effect": lambda: pool(kernel=(1, 1), dilation=(9, 9), out=f32(5, 5, 4)),
    "largest dilation": lambda: pool(f32(2, 5, 4), padding=(1, 1, 0, 0), dilation=(2, 1), out=f32(2, 4, 4)),
    "largest padding": lambda: conv(padding=(LARGE - 5, 0, 0, 0), stride=(LARGE, 1), out=i32(1, 3, 2)),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_nearest_good_program_passes(name: str) -> None:
    verify(GOOD[name]())


def test_a_sum_beyond_int32_is_refused() -> None:
    """By the op's rule alone: such weights take half a gigabyte."""

    def infer(size: int) -> TensorType:
        types = (bits(size, size, 32), bits(1, size, size, 32))
        attrs = {**PLAIN, "groups": 1, "padding_value": 0}
        return OPS["binary_conv2d"].infer(Call(types, (False, True), attrs))

    assert infer(8191) == i32(1, 1, 1)
    with pytest.raises(ProgramError, match="KH·KW·C/groups = 2147483648, expected at most 2147483647"):
        infer(8192)


def test_each_window_is_checked_exactly() -> None:
    """The closed form of the rule refuses a pool if and only if brute force finds an empty window."""
    seen = {True: 0, False: 0}
    for size, kernel, stride, before, after, dilation in np.ndindex(4, 4, 3, 4, 4, 3):
        size, kernel, stride, dilation = size + 1, kernel + 1, stride + 1, dilation + 1
        if kernel > 1 and dilation > size:
            continue  # refused even where each window happens to hit
        count = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
        if count < 1:
            continue
        full = all(
            any(0 <= o * stride + k * dilation - before < size for k in range(kernel)) for o in range(count)
        )
        seen[full] += 1
        program = pool(
            f32(size, 1, 1),
            f32(count, 1, 1),
            kernel=(kernel, 1),
            stride=(stride, 1),
            padding=(before, after, 0, 0),
            dilation=(dilation, 1),
        )
        if full:
            verify(program)
        else:
            with pytest.raises(ProgramError, match="windows along the height"):
                verify(program)
    assert min(seen.values()) > 100
