"""The binary convolution on a device: bits, NHWC, by bits [columns, kernel_h, kernel_w, channels of a group].

Exact, with a fused epilogue, as an implicit matrix product (csrc/cuda/binary_conv): mma on capability 8.0 and
later, popc on others. Both read packed pixels where they lie.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from onebit.errors import EngineError
from onebit.program import unpack_bits
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.binary_gemm import MAX_BITS
from onebit.runtime.cuda.kernels.border_classes import BorderClasses, is_small
from onebit.runtime.cuda.kernels.entry import WITHOUT_MMA
from onebit.runtime.cuda.kernels.epilogue import (
    MACROS,
    RESIDUAL,
    Epilogue,
    Raw,
    Residual,
    ScaleBias,
    Threshold,
)
from onebit.runtime.cuda.kernels.pack import Bits, empty_bits, pad_words, row_bytes
from onebit.runtime.cuda.kernels.tiles import Tile, choose, mma_tile
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry

# Beside the stages a row of the tile has its popc(a) and the place of its constants, an int32 each.
MMA = (
    mma_tile("binary_conv", down=2, across=4, fragments=4, stages=4, blocks=1, rate=0.65, extra=8),
    mma_tile("binary_conv", down=2, across=2, fragments=4, stages=4, blocks=2, rate=0.6, extra=8),
    mma_tile("binary_conv", down=2, across=2, fragments=2, stages=4, blocks=2, rate=0.45, extra=8),
    mma_tile("binary_conv", down=4, across=1, fragments=2, stages=4, blocks=2, rate=0.4, extra=8),
)
POPC = Tile("binary_conv/popc.cu", "binary_conv_popc", (), WITHOUT_MMA, 256, 2 * 64 * 144, 64, 64, 2, 1.0)
# A residual is waited for rather than computed with: the tiles that leave registers for many loads at once.
SUMMING = MMA[2:]
ENTRIES = (
    *(entry for tile in (*MMA, POPC) for entry in tile.entries),
    *(tile.entry(RESIDUAL) for tile in (*SUMMING, POPC)),
)

_GROUP_COLUMNS = 64  # a tile's columns are of one group, and the smallest tile has so many


def covers(geometry: WindowGeometry, channels: int, columns: int, groups: int) -> bool:
    """Whether BinaryConv takes a convolution.

    The channels of a group must begin at a chunk of 16 bytes, its columns must fill tiles, the sums must be
    exact, and the constants for pixels near the border few.
    """
    depth = channels // groups
    if groups > 1 and (depth % 128 or columns // groups % _GROUP_COLUMNS):
        return False
    taps = geometry.kernel_h * geometry.kernel_w
    return taps * row_bytes(depth) * 8 <= MAX_BITS and is_small(geometry, columns)


class BinaryConv:
    """A binary convolution with fixed weights, ready to run.

    y[o, q, n] = Σ w[n, i, j, c]·x over ±1 values; a tap outside the image adds padding_value·w. Exact, then
    the epilogue: int32, float32 or bits.
    """

    def __init__(
        self,
        device: Device,
        weights: NDArray[np.uint32],
        channels: int,
        geometry: WindowGeometry,
        *,
        groups: int = 1,
        padding_value: int = 0,
        epilogue: Epilogue | None = None,
        tile: Tile | None = None,
    ) -> None:
        """Put the weights and constants on the device.

        Args:
            device: where it will run.
            weights: uint32 [columns, kernel_h, kernel_w, ⌈channels/groups/32⌉], packed as in a Program.
            channels: of the image.
            geometry: the windows.
            groups: a divisor of the channels and of the columns.
            padding_value: 0, 1 or −1.
            epilogue: what becomes of the sums; int32 if not given.
            tile: always run this one; chosen by the shape if not given.

        Raises:
            EngineError: a convolution that `covers` does not take.
        """
        columns, kernel_h, kernel_w, words = weights.shape
        if not covers(geometry, channels, columns, groups):
            raise EngineError(
                f"the GPU's kernels do not take a binary convolution of {channels} channels to {columns} in "
                f"{groups} groups by windows of {kernel_h} × {kernel_w}"
            )
        self._device = device
        self._tile = tile
        self._geometry = geometry
        self._groups = groups
        self._epilogue = Raw() if epilogue is None else epilogue
        self.channels, self.columns = channels, columns
        depth = channels // groups
        data = pad_words(weights.reshape(-1, words), depth).reshape(columns, -1)
        self._weights = torch.from_numpy(data).to(device.torch_device)
        tap_ones = unpack_bits(weights, depth).sum(axis=3, dtype=np.int64)
        borders = BorderClasses.of(geometry, tap_ones)
        inside = depth * borders.taps_inside[:, None] - 2 * borders.ones_inside
        everywhere = depth * kernel_h * kernel_w - 2 * tap_ones.sum(axis=(1, 2))
        offsets = inside + padding_value * (inside - everywhere)
        self._border, self._column, self._more = borders.constants(
            [self._epilogue] * len(offsets), offsets, depth * kernel_h * kernel_w, device
        )

    @property
    def nbytes(self) -> int:
        """Bytes of weights and constants on the device."""
        more = 0 if self._more is None else self._more.nbytes
        return self._weights.nbytes + self._border.nbytes + self._column.nbytes + more

    def output_rows(self, x: Bits) -> int:
        """Output pixels of a batch. ValueError if x is no batch of such images."""
        g = self._geometry
        if x.count != self.channels or x.rows % (g.height * g.width):
            raise ValueError(
                f"x has {x.rows} pixels of {x.count} channels, expected images of {g.height} × {g.width} "
                f"pixels of {self.channels}"
            )
        return x.rows // (g.height * g.width) * g.out_h * g.out_w

    def tile(self, rows: int) -> Tile:
        """What runs for this many output pixels."""
        if self._tile is not None:
            return self._tile
        if self._device.capability < (8, 0):
            return POPC
        tiles = SUMMING if isinstance(self._epilogue, Residual) else MMA
        return choose(tiles, self._device.multiprocessors, rows, self.columns, self._groups)

    def empty_output(self, x: Bits, *, sums: bool = False) -> torch.Tensor | Bits:
        """Room for the output: int32 or float32 [pixels, columns], or Bits, with sums if asked."""
        rows = self.output_rows(x)
        if isinstance(self._epilogue, Threshold):
            return empty_bits(self._device, rows, self.columns, sums=sums)
        dtype = torch.int32 if isinstance(self._epilogue, Raw) else torch.float32
        return torch.empty((rows, self.columns), dtype=dtype, device=self._device.torch_device)

    def __call__(self, x: Bits, out: torch.Tensor | Bits | None = None) -> torch.Tensor | Bits:
        """Run on the current stream.

        Args:
            x: a row for each pixel of the batch; its sums are not read.
            out: of the size of `empty_output`, which makes it if not given. If it has sums, they are made.

        Raises:
            ValueError: x or out of another shape or type than the convolution's.
        """
        if isinstance(self._epilogue, Residual):
            raise ValueError("a convolution with a residual is run by `add_to`")
        if out is None:
            out = self.empty_output(x)
        rows = self.output_rows(x)
        data, sums = output_of(self._epilogue, out, rows, self.columns)
        self._launch(MACROS[type(self._epilogue)], x, rows, data, sums, None, None)
        return out

    def add_to(
        self, residual: torch.Tensor, x: Bits, floats: torch.Tensor | None, signs: Bits | None
    ) -> None:
        """Run on the current stream, with the epilogue Residual.

        Args:
            residual: float32 [pixels, columns], contiguous; what is added.
            x: a row for each pixel of the batch.
            floats: float32 as residual, and not the same memory: the sums; not written if None.
            signs: their signs; not written if None.

        Raises:
            ValueError: shapes that are not the convolution's, or another epilogue.
        """
        if not isinstance(self._epilogue, Residual):
            raise ValueError(f"{type(self._epilogue).__name__} adds no residual")
        rows = self.output_rows(x)
        plain = ScaleBias(self._epilogue.scale, self._epilogue.bias)
        output_of(plain, residual, rows, self.columns)
        if floats is not None:
            output_of(plain, floats, rows, self.columns)
        data, sums = None if signs is None else signs.data, None if signs is None else signs.sums
        if signs is not None and signs.data.shape != (rows, row_bytes(self.columns)):
            raise ValueError(f"signs have shape {tuple(signs.data.shape)}, expected {rows} rows")
        self._launch(RESIDUAL, x, rows, floats, sums, residual, data)

    def _launch(
        self,
        macro: int,
        x: Bits,
        rows: int,
        data: torch.Tensor | None,
        sums: torch.Tensor | None,
        residual: torch.Tensor | None,
        signs: torch.Tensor | None,
    ) -> None:
        if rows == 0:
            return
        if sums is not None:
            sums.zero_()  # blocks add to it
        tile = self.tile(rows)
        entry = tile.entry(macro)
        kernel = self._device.kernel(entry.file, entry.name, entry.defines)
        grid = tile.grid(rows, self.columns, self._epilogue)
        operands = (
            x.data,
            self._weights,
            self._border,
            self._column,
            self._more,
            data,
            sums,
            residual,
            signs,
        )
        numbers = (rows, self.columns, self._groups, x.data.shape[1] // 16, *self._geometry.numbers)
        self._device.launch(kernel, grid, tile.threads, tile.shared_bytes, *operands, *numbers)


def output_of(
    epilogue: Epilogue, out: torch.Tensor | Bits, rows: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Where a kernel writes: the output, and its sums. ValueError if it does not fit epilogue or size."""
    if isinstance(out, Bits) != isinstance(epilogue, Threshold):
        raise ValueError(f"{type(epilogue).__name__} does not write to {type(out).__name__}")
    data, sums = (out.data, out.sums) if isinstance(out, Bits) else (out, None)
    size = rows * (row_bytes(columns) if isinstance(out, Bits) else columns)
    if data.numel() != size or not data.is_contiguous():
        raise ValueError(f"out has shape {tuple(data.shape)}, expected {size} elements, contiguous")
    return data, sums
