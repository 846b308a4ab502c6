"""Which taps of a convolution's windows lie inside the image, and the constants that follow from it.

A kernel fills taps outside with zeros, but the constants Σ w or popc(w) of a column count only those inside.
Which these are depends on the output's row for the vertical ones, on its column for the horizontal ones.
Outputs with the same taps form a class; a 3 × 3 window with a padding of 1 has 3 · 3 classes.
Kernels find a class's row of constants by base/windows.cuh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.epilogue import PADDING, Epilogue, constants
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry

_MAX_TABLE = 2**24  # constants a layer
_MAX_TAPS = 2**26  # taps along an axis, over all outputs along it


@dataclass(frozen=True)
class BorderClasses:
    """The classes of output pixels.

    Attributes:
        taps_inside: int64 [classes], the number of taps.
        ones_inside: int64 [classes, columns], the ones of the weights at these taps.
        places: int64 [out_h + out_w]: the class of an output is places[row] + places[out_h + column].
    """

    taps_inside: NDArray[np.int64]
    ones_inside: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, geometry: WindowGeometry, tap_ones: NDArray[np.int64]) -> BorderClasses:
        """Those of a convolution; tap_ones [columns, kernel_h, kernel_w]: the ones of each tap's weights."""
        g = geometry
        rows, row_class = _axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.top, g.height)
        columns, column_class = _axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.left, g.width)
        taps = (rows.sum(axis=1)[:, None] * columns.sum(axis=1)).reshape(-1)
        ones = np.einsum("ri,nij,cj->rcn", rows, tap_ones, columns, optimize=True)
        places = np.concatenate((row_class * len(columns), column_class))
        return cls(taps, ones.reshape(taps.size, -1), places)

    def constants(
        self, epilogues: list[Epilogue], offsets: NDArray[np.int64], bound: int, device: Device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The kernels' arguments `border`, `column` and `more`.

        Args:
            epilogues: that of each class; they may differ in their thresholds.
            offsets: int64 [classes, columns]; see `epilogue.constants` for these and `bound`.
            bound: the largest |sum|.
            device: where they are put.
        """
        cpu = torch.device("cpu")
        made = [
            constants(epilogue, offset, bound, cpu)
            for epilogue, offset in zip(epilogues, offsets, strict=True)
        ]
        column = torch.stack([row for row, _ in made])
        border = torch.from_numpy((self.places * column.shape[1]).astype(np.int32))
        more = made[0][1]
        target = device.torch_device
        return border.to(target), column.to(target), None if more is None else more.to(target)


def is_small(geometry: WindowGeometry, columns: int) -> bool:
    """Whether the tables that `BorderClasses` makes are of a reasonable size: true for all but odd shapes."""
    g = geometry
    if max(g.out_h * g.kernel_h, g.out_w * g.kernel_w) > _MAX_TAPS:
        return False
    # Along an axis the first and the last tap inside only fall from output to output: each has no more values
    # than there are taps, so the two change no more than 2·kernel times.
    along = (min(g.out_h, 2 * g.kernel_h + 1), min(g.out_w, 2 * g.kernel_w + 1))
    return along[0] * along[1] * -(-columns // PADDING) * PADDING <= _MAX_TABLE


def _axis(
    outputs: int, kernel: int, stride: int, dilation: int, before: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Along one axis: which taps of each class are inside [classes, kernel], and the class of each output."""
    first = np.arange(outputs, dtype=np.int64)[:, None] * stride - before
    position = first + np.arange(kernel, dtype=np.int64) * dilation
    inside = (position >= 0) & (position < size)
    classes, of_output = np.unique(inside, axis=0, return_inverse=True)
    return classes.astype(np.int64), of_output.reshape(-1).astype(np.int64)
