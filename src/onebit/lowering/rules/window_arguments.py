"""Windows of convolutions and pools: PyTorch's arguments as the attributes of a Program's ops.

A window over one axis, as in conv1d, is one over (1, L).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onebit.lowering.emit.context import Context
from onebit.lowering.values.kinds import Known, Value, Varying


@dataclass(frozen=True)
class Windows:
    """Kernel, stride and dilation of two axes, and the padding (top, bottom, left, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    added: tuple[int, int] = (0, 0)  # how much of the bottom and right padding ceil_mode has added


def image_operand(context: Context, x: Value, axes: int) -> Varying:
    """x as an image over `axes` axes; refuses constants and images over others."""
    if isinstance(x, Known):
        context.refuse("it works on a constant image", "compute it from the input")
    shape = context.shape(x)
    if len(shape) != axes + 1:
        context.refuse(
            f"it takes (batch, channels{', height, width' if axes == 2 else ', length'}), "
            f"and one sample has the shape {shape}",
            "keep the batch and the channels as axes of their own",
        )
    return context.image(x)


def windows(
    context: Context,
    axes: int,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    *,
    size: Sequence[int] = (),
    ceil_mode: bool = False,
) -> Windows:
    """PyTorch's arguments over `axes` axes, each a number or one an axis; an empty stride means the kernel.

    padding: numbers, or "same" or "valid". size: the image, needed for ceil_mode.
    """
    k, d = _each(kernel, axes), _each(dilation, axes)
    s = _each(stride, axes) if stride not in ([], (), None) else k
    if padding == "same":  # PyTorch puts the odd one at the end
        total = [b * (a - 1) for a, b in zip(k, d, strict=True)]
        before, after = [t // 2 for t in total], [t - t // 2 for t in total]
    else:
        before = [0] * axes if padding == "valid" else list(_each(padding, axes))
        after = list(before)
    added = [0] * axes
    if ceil_mode:
        outputs = context.sample()[-axes:]
        for i in range(axes):
            reach = (outputs[i] - 1) * s[i] + d[i] * (k[i] - 1) + 1
            added[i] = max(0, reach - size[i] - before[i] - after[i])
            after[i] += added[i]
    if axes == 1:
        return Windows((1, k[0]), (1, s[0]), (1, d[0]), (0, 0, before[0], after[0]), (0, added[0]))
    pads = (before[0], after[0], before[1], after[1])
    return Windows((k[0], k[1]), (s[0], s[1]), (d[0], d[1]), pads, (added[0], added[1]))


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """One int an axis."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(int(n) for n in (numbers * axes if len(numbers) == 1 else numbers))
