"""Where the windows of convolutions and pools lie: output sizes, and which taps fall inside the image.

Padding is never materialised, so a tiny graph that asks for a huge one costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from onebit.errors import ProgramError
from onebit.program import limits
from onebit.program.ops.definition import AttrKind, require
from onebit.program.ops.facts import Call
from onebit.program.tensors import TensorType

GEOMETRY = {"stride": AttrKind.SIZES, "padding": AttrKind.COUNTS, "dilation": AttrKind.SIZES}


@dataclass(frozen=True)
class Axis:
    """The windows along one image axis: output o reads the positions o·stride + k·dilation − before."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int

    @property
    def extent(self) -> int:
        """Positions from the first to the last tap of a window."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def outputs(self) -> int:
        """Number of windows; 0 or less where not one fits."""
        return (self.size + self.before + self.after - self.extent) // self.stride + 1

    def outputs_that_hit(self, tap: int) -> tuple[slice, slice]:
        """The outputs for which this tap is inside the image, and the positions they read with it."""
        shift = tap * self.dilation - self.before
        first = max(0, -(shift // self.stride))  # the least o with o·stride + shift >= 0
        last = min(self.outputs - 1, (self.size - 1 - shift) // self.stride)
        if first > last:
            return slice(0, 0), slice(0, 0)
        begin, end = first * self.stride + shift, last * self.stride + shift + 1
        return slice(first, last + 1), slice(begin, end, self.stride)

    def taps_inside(self, output: int) -> slice:
        """The positions inside the image that this output reads."""
        shift = output * self.stride - self.before
        first = max(0, -(shift // self.dilation))
        last = min(self.kernel - 1, (self.size - 1 - shift) // self.dilation)
        if first > last:
            return slice(0, 0)
        return slice(first * self.dilation + shift, last * self.dilation + shift + 1, self.dilation)

    def check_fits(self, name: str) -> None:
        """At least one window fits, and positions fit an int32."""
        padded = self.size + self.before + self.after
        if padded > limits.MAX_DIMENSION:
            raise ProgramError(
                f"{name} with its padding: found {self.before} + {self.size} + {self.after}, "
                f"expected at most {limits.MAX_DIMENSION}"
            )
        if self.outputs < 1:
            raise ProgramError(
                f"output {name}: found a window of {self.extent} (kernel {self.kernel}, dilation "
                f"{self.dilation}) on {padded} ({self.before} + {self.size} + {self.after} with padding), "
                "expected it to fit at least once"
            )

    def check_every_window_hits(self, name: str) -> None:
        """Each window has a tap inside the image: else a pool would have nothing to reduce."""
        # Steps of `dilation` <= size cannot jump over the image, so it is enough that the first window
        # reaches it and the last one begins before its end.
        reaches = self.dilation * (self.kernel - 1) >= self.before
        begins = (self.outputs - 1) * self.stride - self.before < self.size
        lands = self.kernel == 1 or self.dilation <= self.size
        if not (reaches and begins and lands):
            raise ProgramError(
                f"windows along the {name}: found kernel {self.kernel}, stride {self.stride}, dilation "
                f"{self.dilation}, padding {self.before} and {self.after} on size {self.size}, "
                "expected each window to have a tap inside the image"
            )


def axes_of(x: TensorType, kernel: tuple[int, int], call: Call) -> tuple[Axis, Axis]:
    """Rows and columns of a convolution or pool over x[H, W, C]; raises ProgramError where none fits."""
    require(len(x.shape) == 3, "rank of x", x, f"{x.dtype.value}[H, W, C]")
    stride, (dilation_h, dilation_w) = pair(call, "stride"), (1, 1)
    if "dilation" in call.attrs:
        dilation_h, dilation_w = pair(call, "dilation")
    padding = call.ints("padding")
    require(len(padding) == 4, "attribute padding", padding, "four ints: top, bottom, left, right")
    top, bottom, left, right = padding
    rows = Axis(x.shape[0], kernel[0], stride[0], top, bottom, dilation_h)
    columns = Axis(x.shape[1], kernel[1], stride[1], left, right, dilation_w)
    rows.check_fits("height")
    columns.check_fits("width")
    return rows, columns


def pair(call: Call, name: str) -> tuple[int, int]:
    """An attribute of two ints: one for the rows, one for the columns."""
    values = call.ints(name)
    require(len(values) == 2, f"attribute {name}", values, "two ints: rows, columns")
    return values[0], values[1]


def describe_geometry(kernel: tuple[int, int], call: Call) -> str:
    """The geometry as summaries show it, e.g. "3×3 stride 2×2 padding 1 groups 4"; defaults are left out."""
    parts = [_times(kernel)]
    for name, plain in (("stride", 1), ("dilation", 1)):
        values = call.ints(name) if name in call.attrs else (plain,)
        if set(values) != {plain}:
            parts.append(f"{name} {_times(values)}")
    padding = call.ints("padding")
    if any(padding):
        parts.append(f"padding {padding[0] if len(set(padding)) == 1 else ','.join(map(str, padding))}")
        if call.attrs.get("padding_value"):
            parts.append(f"of {call.integer('padding_value')}s")
    if call.attrs.get("groups", 1) != 1:
        parts.append(f"groups {call.integer('groups')}")
    return " ".join(parts)


def _times(values: tuple[int, ...]) -> str:
    return "×".join(map(str, values))
