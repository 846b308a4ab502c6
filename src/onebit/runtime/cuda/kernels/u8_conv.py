"""First layers on a device: bytes by one-bit weights, Σ w·(multiplier·x + offset), exact, then an epilogue.

Three kernels: u8_gemm/mma (capability 8.0 and later, rows of a multiple of 16 bytes), u8_conv/mma (8.0 and
later) and u8_conv/dp4a (others). A matrix product is also the convolution of images of one pixel, for those
rows that the first does not take.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from onebit.program import unpack_bits
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.binary_conv import output_of
from onebit.runtime.cuda.kernels.border_classes import BorderClasses, is_small
from onebit.runtime.cuda.kernels.entry import WITHOUT_MMA
from onebit.runtime.cuda.kernels.epilogue import MACROS, Epilogue, Raw, Threshold
from onebit.runtime.cuda.kernels.pack import Bits
from onebit.runtime.cuda.kernels.tiles import Tile, choose, mma_tile
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry

GEMM = (
    mma_tile("u8_gemm", down=2, across=4, fragments=4, stages=4, blocks=1, rate=0.65),
    mma_tile("u8_gemm", down=2, across=2, fragments=2, stages=4, blocks=2, rate=0.45),
)
# A window of a first layer is one or a few steps long: two stages do. A row of the tile has the place of its
# constants beside them.
CONV = (
    mma_tile("u8_conv", down=2, across=2, fragments=2, stages=2, blocks=2, rate=0.5, extra=4),
    mma_tile("u8_conv", down=4, across=1, fragments=2, stages=2, blocks=2, rate=0.4, extra=4),
)
DP4A = Tile("u8_conv/dp4a.cu", "u8_conv_dp4a", (), WITHOUT_MMA, 256, 2 * 64 * 80, 64, 64, 2, 1.0)
ENTRIES = tuple(entry for tile in (*GEMM, *CONV, DP4A) for entry in tile.entries)

_GROUP_COLUMNS = 64  # a tile's columns are of one group, and the smallest tile has so many
_ONE_PIXEL = WindowGeometry(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1)


def covers(geometry: WindowGeometry, columns: int, groups: int) -> bool:
    """Whether U8Conv takes a convolution: the columns of a group fill tiles, and the constants are few."""
    return (groups == 1 or columns // groups % _GROUP_COLUMNS == 0) and is_small(geometry, columns)


class U8Conv:
    """A convolution of uint8 by one-bit weights, ready to run.

    y[o, q, n] = Σ w[n, i, j, c]·(multiplier·x + offset) over the taps inside the image, w being ±1. Exact,
    then the epilogue: int32, float32 or bits.
    """

    def __init__(
        self,
        device: Device,
        weights: NDArray[np.uint32],
        channels: int,
        geometry: WindowGeometry,
        *,
        multiplier: int,
        offset: int,
        groups: int = 1,
        epilogue: Epilogue | None = None,
        tile: Tile | None = None,
    ) -> None:
        """Put the weights, a byte each, and the constants on the device.

        Args:
            device: where it will run.
            weights: uint32 [columns, kernel_h, kernel_w, ⌈channels/groups/32⌉], packed as in a Program.
            channels: of the image.
            geometry: the windows.
            multiplier: of x, not 0; K·(255·|multiplier| + |offset|) < 2^31, as a Program demands.
            offset: added to each.
            groups: a divisor of the channels and of the columns; see `covers`.
            epilogue: what becomes of the sums; int32 if not given.
            tile: always run this one; chosen by the shape if not given.
        """
        self._device = device
        self._tile = tile
        self._geometry = geometry
        self._groups = groups
        self._multiplier = multiplier
        self._epilogue = Raw() if epilogue is None else epilogue
        self._channels, self._columns = channels, weights.shape[0]
        depth = channels // groups
        positive = unpack_bits(weights, depth)
        flat = np.where(positive.reshape(self._columns, -1), np.int8(1), np.int8(-1))
        data = np.zeros((self._columns, -(-flat.shape[1] // 16) * 16), np.int8)
        data[:, : flat.shape[1]] = flat
        self._weights = torch.from_numpy(data).to(device.torch_device)
        borders = BorderClasses.of(geometry, positive.sum(axis=3, dtype=np.int64))
        offsets = offset * (2 * borders.ones_inside - depth * borders.taps_inside[:, None])
        largest = 255 * abs(multiplier) * flat.shape[1]
        epilogues, rest = [self._epilogue] * len(offsets), offsets
        if isinstance(self._epilogue, Threshold):
            epilogues = [_less(self._epilogue, row, largest) for row in offsets]
            rest = np.zeros_like(offsets)
        self._border, self._column, self._more = borders.constants(epilogues, rest, largest, device)

    @property
    def nbytes(self) -> int:
        """Bytes of weights and constants on the device."""
        more = 0 if self._more is None else self._more.nbytes
        return self._weights.nbytes + self._border.nbytes + self._column.nbytes + more

    def tile(self, rows: int) -> Tile:
        """What runs for this many output pixels."""
        if self._tile is not None:
            return self._tile
        if self._device.capability < (8, 0):
            return DP4A
        tiles = GEMM if self._is_gemm else CONV
        return choose(tiles, self._device.multiprocessors, rows, self._columns, self._groups)

    @property
    def _is_gemm(self) -> bool:
        """Whether u8_gemm takes it: rows of whole chunks, each read where it lies."""
        return self._geometry == _ONE_PIXEL and self._groups == 1 and self._channels % 16 == 0

    def __call__(self, x: torch.Tensor, out: torch.Tensor | Bits) -> None:
        """Run on the current stream.

        Args:
            x: uint8, contiguous, at a multiple of 16 bytes: images of height × width × channels.
            out: int32, float32 or Bits, as the epilogue says, [pixels, columns].

        Raises:
            ValueError: x or out of another shape or type than the convolution's.
        """
        g = self._geometry
        image = g.height * g.width * self._channels
        if x.dtype != torch.uint8 or x.numel() % image or not x.is_contiguous():
            raise ValueError(
                f"x is {x.dtype} of shape {tuple(x.shape)}, expected uint8 images of {g.height} × {g.width} "
                f"pixels of {self._channels} channels, contiguous"
            )
        rows = x.numel() // image * g.out_h * g.out_w
        data, sums = output_of(self._epilogue, out, rows, self._columns)
        if rows == 0:
            return
        if sums is not None:
            sums.zero_()  # blocks add to it
        tile = self.tile(rows)
        entry = tile.entry(MACROS[type(self._epilogue)])
        kernel = self._device.kernel(entry.file, entry.name, entry.defines)
        grid = tile.grid(rows, self._columns, self._epilogue)
        border: tuple[torch.Tensor, ...] = (self._border,)
        numbers: tuple[int, ...] = (rows, self._columns, self._groups, self._channels, self._weights.shape[1])
        if tile in GEMM:
            border, numbers = (), (rows, self._columns, self._weights.shape[1])
        else:
            numbers += self._geometry.numbers
        operands = (x, self._weights, *border, self._column, self._more, data, sums)
        self._device.launch(
            kernel, grid, tile.threads, tile.shared_bytes, *operands, self._multiplier, *numbers
        )


class U8Gemm(U8Conv):
    """A matrix product of uint8 by one-bit weights: y[m, n] = Σ w[n, k]·(multiplier·x[m, k] + offset)."""

    def __init__(
        self,
        device: Device,
        weights: NDArray[np.uint32],
        count: int,
        *,
        multiplier: int,
        offset: int,
        epilogue: Epilogue | None = None,
        tile: Tile | None = None,
    ) -> None:
        """As U8Conv, for weights uint32 [columns, ⌈count/32⌉] and x uint8 [rows, count]."""
        super().__init__(
            device,
            weights[:, None, None, :],
            count,
            _ONE_PIXEL,
            multiplier=multiplier,
            offset=offset,
            epilogue=epilogue,
            tile=tile,
        )


def _less(epilogue: Threshold, offset: NDArray[np.int64], largest: int) -> Threshold:
    """The thresholds for v = multiplier·Σ w·x, |v| <= largest: v + offset >= t where v >= t − offset.

    A difference at or below −largest is always reached, one above `largest` never, so it is brought into
    −largest … largest + 1, which fits int32: if `largest` is 2^31 − 1, offset is 0 and t no larger.
    """
    less = np.clip(epilogue.thresholds - offset, -largest, min(largest + 1, 2**31 - 1))
    return Threshold(less.astype(np.int32), epilogue.flip)
