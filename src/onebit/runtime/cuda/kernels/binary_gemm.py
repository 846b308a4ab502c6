"""The binary matrix product on a device: bits [rows, K] · bits [columns, K]ᵀ, exact, with a fused epilogue.

Four kernels (csrc/cuda/binary_gemm), of which `choose` takes one by what the GPU can do and by the shape:
wgmma (capability 9.0), mma (8.0 and later), popc (any), and few_rows (any, for a small batch). All of them
compute v = 4·popc(a and b) − 2·popc(a), to which K − 2·popc(b) is added (csrc/cuda/base/bits.cuh).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onebit.errors import EngineError
from onebit.runtime.cuda.device.interface import Argument, Device
from onebit.runtime.cuda.kernels.entry import TARGETS, WITH_MMA, WITH_WGMMA, WITHOUT_MMA, Entry
from onebit.runtime.cuda.kernels.epilogue import MACROS, Epilogue, Raw, Threshold, constants
from onebit.runtime.cuda.kernels.pack import Bits, count_ones, empty_bits, pad_words, row_bytes

MAX_BITS = 2**29 - 1  # 4·popc fits int32
_ONES = np.array([value.bit_count() for value in range(256)], np.uint8)  # of each byte
_FEW_ROWS = (1, 4, 16)  # the variants of few_rows
_FEW_ROWS_BESIDE_MMA = 8  # tensor cores are the faster from here on


@dataclass(frozen=True)
class GemmVariant:
    """A kernel with its tile.

    Attributes:
        kernel: which of the four: the stem of its file.
        macros: all but EPILOGUE.
        targets: what it is compiled for.
        threads: a block.
        shared_bytes: a block.
        tile_rows: of the output, a block.
        tile_columns: of the output, a block.
        blocks: that run on a multiprocessor at once.
        rate: a guess at the share of the peak that it reaches on a large product; `choose` compares by it.
        cluster: blocks of a cluster, below each other.
    """

    kernel: str
    macros: tuple[tuple[str, int], ...]
    targets: tuple[str, ...]
    threads: int
    shared_bytes: int
    tile_rows: int
    tile_columns: int
    blocks: int = 1
    rate: float = 1.0
    cluster: int = 1

    def entry(self, epilogue: int) -> Entry:
        """The kernel with this EPILOGUE, for `Device.kernel`."""
        defines = {**dict(self.macros), "EPILOGUE": epilogue}
        return Entry(f"binary_gemm/{self.kernel}.cu", f"binary_gemm_{self.kernel}", defines, self.targets)


def wgmma(consumers: int, columns: int, stages: int, cluster: int, lead: int, rate: float) -> GemmVariant:
    """A variant of wgmma.cu; its macros are explained there."""
    macros = {
        "CONSUMERS": consumers,
        "TILE_COLUMNS": columns,
        "STAGES": stages,
        "CLUSTER": cluster,
        "LEAD": lead,
    }
    rows = 64 * consumers
    return GemmVariant(
        "wgmma",
        tuple(macros.items()),
        WITH_WGMMA,
        threads=128 * (consumers + 1),
        shared_bytes=stages * 128 * (rows + columns) + 16 * stages,
        tile_rows=rows,
        tile_columns=columns,
        rate=rate,
        cluster=cluster,
    )


def mma(down: int, across: int, fragments: int, stages: int, blocks: int, rate: float) -> GemmVariant:
    """A variant of mma.cu; its macros are explained there."""
    macros = {"WARPS_DOWN": down, "WARPS_ACROSS": across, "FRAGMENTS": fragments, "STAGES": stages}
    rows, columns = 16 * fragments * down, 64 * across
    return GemmVariant(
        "mma",
        tuple(macros.items()),
        WITH_MMA,
        threads=32 * down * across,
        shared_bytes=stages * 64 * (rows + columns),
        tile_rows=rows,
        tile_columns=columns,
        blocks=blocks,
        rate=rate,
    )


WGMMA = (
    wgmma(consumers=2, columns=256, stages=4, cluster=2, lead=1, rate=0.85),
    wgmma(consumers=2, columns=128, stages=6, cluster=1, lead=2, rate=0.65),
    wgmma(consumers=1, columns=64, stages=8, cluster=1, lead=0, rate=0.35),
)
MMA = (
    mma(down=2, across=4, fragments=4, stages=4, blocks=1, rate=0.7),
    mma(down=2, across=2, fragments=2, stages=4, blocks=2, rate=0.45),
)
POPC = GemmVariant("popc", (), WITHOUT_MMA, 256, 2 * 64 * 144, 64, 64, blocks=3)
FEW_ROWS = tuple(
    GemmVariant("few_rows", (("MAX_ROWS", rows),), TARGETS, 256, 128 * rows, rows, 32) for rows in _FEW_ROWS
)
ENTRIES = tuple(
    variant.entry(epilogue) for variant in (*WGMMA, *MMA, POPC, *FEW_ROWS) for epilogue in MACROS.values()
)


def _time(variant: GemmVariant, multiprocessors: int, rows: int, columns: int) -> float:
    """How long a product takes, in output elements at the peak rate: rounds of tiles by the size of one."""
    tiles = -(-rows // (variant.tile_rows * variant.cluster)) * -(-columns // variant.tile_columns)
    at_once = max(1, multiprocessors // variant.cluster * variant.blocks)
    return -(-tiles // at_once) * variant.blocks * variant.tile_rows * variant.tile_columns / variant.rate


def choose(capability: tuple[int, int], multiprocessors: int, rows: int, columns: int) -> GemmVariant:
    """The variant for a product of this shape on such a GPU."""
    if rows <= (_FEW_ROWS_BESIDE_MMA if capability >= (8, 0) else _FEW_ROWS[-1]):
        return next(variant for variant in FEW_ROWS if rows <= variant.tile_rows)
    if capability < (8, 0):
        return POPC
    variants = WGMMA if capability == (9, 0) else MMA
    return min(variants, key=lambda variant: _time(variant, multiprocessors, rows, columns))


class BinaryGemm:
    """A binary matrix product with fixed weights, ready to run.

    y[m, n] = Σ_k x[m, k]·w[n, k] over ±1 values, exact, then the epilogue: int32, float32 or bits.
    """

    def __init__(
        self,
        device: Device,
        weights: NDArray[np.uint32],
        count: int,
        epilogue: Epilogue | None = None,
        variant: GemmVariant | None = None,
    ) -> None:
        """Put the weights and constants on the device.

        Args:
            device: where it will run.
            weights: uint32 [columns, ⌈count/32⌉], packed as in a Program; padding bits are zero.
            count: K, 1 to 2^29 − 1.
            epilogue: what becomes of the sums; int32 if not given.
            variant: always run this one; chosen by the shape if not given.

        Raises:
            EngineError: count beyond that.
            ValueError: shapes that do not fit.
        """
        if not 1 <= count <= MAX_BITS:
            raise EngineError(
                f"a binary product over K = {count} elements: the GPU's kernels take 1 to 2^29 - 1"
            )
        self._device = device
        self._variant = variant
        self._epilogue = Raw() if epilogue is None else epilogue
        self.count = count
        self.columns = int(weights.shape[0])
        data = pad_words(weights, count)
        ones = _ONES[data].sum(axis=1, dtype=np.int64)
        self._weights = torch.from_numpy(data).to(device.torch_device)
        self._column, self._more = constants(
            self._epilogue, count - 2 * ones, bound=count, device=device.torch_device
        )

    @property
    def nbytes(self) -> int:
        """Bytes of weights and constants on the device."""
        more = 0 if self._more is None else self._more.nbytes
        return self._weights.nbytes + self._column.nbytes + more

    def variant(self, rows: int) -> GemmVariant:
        """What runs for this many rows."""
        return self._variant or choose(
            self._device.capability, self._device.multiprocessors, rows, self.columns
        )

    def by(self, variant: GemmVariant) -> BinaryGemm:
        """The same product, on the same weights in memory, always run by this variant."""
        other = copy(self)
        other._variant = variant
        return other

    def needs_sums(self, rows: int) -> bool:
        """Whether the input's sums are read; if not, whoever makes the input need not count."""
        return self.variant(rows).kernel != "few_rows"

    def empty_output(self, rows: int, *, sums: bool = False) -> torch.Tensor | Bits:
        """Room for the output: int32 or float32 [rows, columns], or Bits, with sums if asked."""
        if isinstance(self._epilogue, Threshold):
            return empty_bits(self._device, rows, self.columns, sums=sums)
        dtype = torch.int32 if isinstance(self._epilogue, Raw) else torch.float32
        return torch.empty((rows, self.columns), dtype=dtype, device=self._device.torch_device)

    def __call__(self, x: Bits, out: torch.Tensor | Bits | None = None) -> torch.Tensor | Bits:
        """Run on the current stream.

        Args:
            x: [rows, count]; if it has no sums and they are needed, they are counted first.
            out: from `empty_output`; made (without sums) if not given. If it has sums, they are made too.

        Raises:
            ValueError: x or out of another shape or type than the product's.
        """
        if x.count != self.count or x.data.shape[1] != row_bytes(self.count):
            raise ValueError(f"x has {x.count} elements a row, but the weights have {self.count}")
        if out is None:
            out = self.empty_output(x.rows)
        data, sums = self._targets(x.rows, out)
        if x.rows == 0:
            return out
        variant = self.variant(x.rows)
        if sums is not None:
            sums.zero_()  # blocks add to it
        if variant.kernel != "few_rows" and x.sums is None:
            x = count_ones(self._device, x)
        self._launch(variant, x, data, sums)
        return out

    def _targets(self, rows: int, out: torch.Tensor | Bits) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Where the kernel writes: the output, and its sums."""
        if isinstance(out, Bits) != isinstance(self._epilogue, Threshold):
            raise ValueError(f"{type(self._epilogue).__name__} does not write to {type(out).__name__}")
        if isinstance(out, Bits):
            data, sums, shape = out.data, out.sums, (rows, row_bytes(self.columns))
        else:
            data, sums, shape = out, None, (rows, self.columns)
        if tuple(data.shape) != shape or not data.is_contiguous():
            raise ValueError(f"out has shape {tuple(data.shape)}, expected {shape}, contiguous")
        return data, sums

    def _launch(self, variant: GemmVariant, x: Bits, data: torch.Tensor, sums: torch.Tensor | None) -> None:
        entry = variant.entry(MACROS[type(self._epilogue)])
        kernel = self._device.kernel(entry.file, entry.name, entry.defines)
        after: tuple[Argument, ...] = (
            self._column,
            self._more,
            data,
            sums,
            x.rows,
            self.columns,
            x.data.shape[1],
        )
        grid = (self._blocks(variant, x.rows), 1, 1)
        if variant.kernel == "wgmma":
            maps = (
                self._device.tensor_map(x.data, variant.tile_rows, 128, 128),
                self._device.tensor_map(self._weights, variant.tile_columns // variant.cluster, 128, 128),
            )
            self._device.launch(kernel, grid, variant.threads, variant.shared_bytes, *maps, x.sums, *after)
        elif variant.kernel == "few_rows":
            self._device.launch(
                kernel, grid, variant.threads, variant.shared_bytes, x.data, self._weights, *after
            )
        else:
            self._device.launch(
                kernel, grid, variant.threads, variant.shared_bytes, x.data, self._weights, x.sums, *after
            )

    def _blocks(self, variant: GemmVariant, rows: int) -> int:
        """Blocks to launch. wgmma is persistent: as many as run at once, fewer if there are fewer tiles."""
        # Tiles cover the padding of a packed row too.
        columns = row_bytes(self.columns) * 8 if isinstance(self._epilogue, Threshold) else self.columns
        tiles = -(-rows // (variant.tile_rows * variant.cluster)) * -(-columns // variant.tile_columns)
        if variant.kernel == "wgmma":
            return min(tiles, self._device.multiprocessors // variant.cluster) * variant.cluster
        return tiles
