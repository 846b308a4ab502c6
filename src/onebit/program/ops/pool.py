"""Ops that reduce: over the pixels of a window, x[H, W, C] → [OH, OW, C], or over channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from onebit.program.ops.definition import (
    AttrKind,
    Op,
    Operand,
    require,
    require_channels,
    require_dtype,
)
from onebit.program.ops.facts import (
    EXACT,
    NO_ARITHMETIC,
    Arithmetic,
    Call,
    FloatForm,
    FloatKind,
    Kind,
    Operations,
    Tolerance,
    never_scale_shift,
    rises,
)
from onebit.program.ops.windows import GEOMETRY, Axis, axes_of, describe_geometry, pair
from onebit.program.tensors import Array, DType, TensorType


def _axes(call: Call) -> tuple[Axis, Axis]:
    return axes_of(call.types[0], pair(call, "kernel"), call)


def _infer_pool(call: Call) -> TensorType:
    x = call.types[0]
    rows, columns = _axes(call)
    rows.check_every_window_hits("height")
    columns.check_every_window_hits("width")
    return TensorType(x.dtype, (rows.outputs, columns.outputs, x.shape[2]))


def _infer_max(call: Call) -> TensorType:
    require_dtype("x", call.types[0], DType.BITS, DType.U8, DType.I32, DType.F32)
    return _infer_pool(call)


def _infer_avg(call: Call) -> TensorType:
    require_dtype("x", call.types[0], DType.F32)
    include = call.integer("count_include_pad")
    require(include in (0, 1), "attribute count_include_pad", include, "0 or 1")
    return _infer_pool(call)


def _reduce(x: Array, rows: Axis, columns: Axis, reduce: Callable[..., Array]) -> Array:
    """Reduce each window of x[B, H, W, C], first along its rows, then along its columns."""
    batch, _, width, channels = x.shape
    tall = np.empty((batch, rows.outputs, width, channels), x.dtype)
    for o in range(rows.outputs):
        reduce(x[:, rows.taps_inside(o)], axis=1, out=tall[:, o])
    out = np.empty((batch, rows.outputs, columns.outputs, channels), x.dtype)
    for o in range(columns.outputs):
        reduce(tall[:, :, columns.taps_inside(o)], axis=2, out=out[:, :, o])
    return out


def _max_pool(inputs: Sequence[Array], call: Call) -> Array:
    return _reduce(inputs[0], *_axes(call), np.max)


def _counts(axis: Axis) -> Array:
    inside = [axis.taps_inside(o) for o in range(axis.outputs)]
    return np.array([len(range(s.start, s.stop, s.step or 1)) for s in inside], np.float64)


def _avg_pool(inputs: Sequence[Array], call: Call) -> Array:
    rows, columns = _axes(call)
    count = np.outer(_counts(rows), _counts(columns))[..., None]
    if call.integer("count_include_pad"):
        count = np.array(rows.kernel * columns.kernel, np.float64)
    with np.errstate(all="ignore"):
        mean: Array = _reduce(inputs[0].astype(np.float64), rows, columns, np.sum) / count
        return mean.astype(np.float32)


def _infer_channel_mean(call: Call) -> TensorType:
    (x,) = call.types
    require_dtype("x", x, DType.F32)
    require_channels("x", x)
    return TensorType(DType.F32, (*x.shape[:-1], 1))


def _channel_mean(inputs: Sequence[Array], call: Call) -> Array:
    with np.errstate(all="ignore"):
        mean: Array = inputs[0].mean(axis=-1, keepdims=True, dtype=np.float64)
        return mean.astype(np.float32)


def _geometry(call: Call) -> str:
    return describe_geometry(pair(call, "kernel"), call)


def _why_max_is_not_one_bit(call: Call) -> str:
    dtype = call.types[0].dtype
    return "" if dtype is DType.BITS else f"its input is {dtype.value}, not bits"


_X = (Operand("x"),)
_MEAN = Arithmetic(Operations(float_multiplies=1), per_input=Operations(float_adds=1))
_FLOAT = "it works on float32 values"

POOL_OPS = (
    Op(
        name="max_pool2d",
        definition=(
            "x bits, u8, i32 or f32[H, W, C], attributes of a pool with dilation → the same dtype[OH, OW, "
            "C]. y[o, q, c] is the largest x[·, ·, c] among the taps inside the image; on bits that is "
            "their OR. A NaN among them gives NaN. Where +0.0 and −0.0 are the largest, either may come "
            "out."
        ),
        operands=_X,
        infer=_infer_max,
        compute=_max_pool,
        kind=Kind.POOL,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=True,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.MAX_POOL),
        attrs={"kernel": AttrKind.SIZES, **GEOMETRY},
        why_not_one_bit=_why_max_is_not_one_bit,
        geometry=_geometry,
    ),
    Op(
        name="avg_pool2d",
        definition=(
            "x f32[H, W, C], attributes of a pool without dilation and count_include_pad (0 or 1) → f32[OH, "
            "OW, C]. y[o, q, c] is the sum of x[·, ·, c] over the taps inside the image, divided by their "
            "number, or by KH·KW with count_include_pad 1. The reference sums and divides in float64 and "
            "rounds once; an engine may sum float32 in any order, within (KH·KW + 2)·2^-24·Σ |x| / divisor "
            "of it."
        ),
        operands=_X,
        infer=_infer_avg,
        compute=_avg_pool,
        kind=Kind.POOL,
        product=None,
        arithmetic=_MEAN,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=Tolerance(lambda call: prod(pair(call, "kernel")) + 2),
        float_form=FloatForm(FloatKind.AVG_POOL),
        attrs={
            "kernel": AttrKind.SIZES,
            "stride": AttrKind.SIZES,
            "padding": AttrKind.COUNTS,
            "count_include_pad": AttrKind.INT,
        },
        why_not_one_bit=_FLOAT,
        geometry=_geometry,
    ),
    Op(
        name="channel_mean",
        definition=(
            "x f32[..., C] → f32[..., 1]. y = Σ_c x[c] / C: with abs before it and avg_pool2d after it, K "
            "of XNOR-Net. The reference sums and divides in float64 and rounds once; an engine may sum "
            "float32 in any order, within (C + 2)·2^-24·Σ_c |x[c]| / C of it."
        ),
        operands=_X,
        infer=_infer_channel_mean,
        compute=_channel_mean,
        kind=Kind.CHANNEL_REDUCTION,
        product=None,
        arithmetic=_MEAN,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=Tolerance(lambda call: call.types[0].channels + 2),
        float_form=FloatForm(FloatKind.MEAN),
        why_not_one_bit=_FLOAT,
    ),
)
