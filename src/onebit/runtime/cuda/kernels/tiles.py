"""Tiles of a product's output, a block each, and the choice of one for a shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onebit.runtime.cuda.kernels.entry import WITH_MMA, Entry
from onebit.runtime.cuda.kernels.epilogue import MACROS, Epilogue, Residual, Threshold
from onebit.runtime.cuda.kernels.pack import row_bytes

_STEP = 64  # bytes along K of a stage (base/mma_tile.cuh)


@dataclass(frozen=True)
class Tile:
    """A kernel with its tile.

    Attributes:
        file: the kernel's source.
        name: the kernel.
        macros: all but EPILOGUE.
        targets: what it is compiled for.
        threads: a block.
        shared_bytes: a block.
        rows: of the output, a block.
        columns: of the output, a block.
        blocks: that run on a multiprocessor at once.
        rate: a guess at the share of the peak that it reaches on a large product; `choose` compares by it.
    """

    file: str
    name: str
    macros: tuple[tuple[str, int], ...]
    targets: tuple[str, ...]
    threads: int
    shared_bytes: int
    rows: int
    columns: int
    blocks: int
    rate: float

    def entry(self, epilogue: int) -> Entry:
        """The kernel with this EPILOGUE, for `Device.kernel`."""
        return Entry(self.file, self.name, {**dict(self.macros), "EPILOGUE": epilogue}, self.targets)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that can be asked for."""
        return tuple(self.entry(epilogue) for epilogue in MACROS.values())

    def grid(self, rows: int, columns: int, epilogue: Epilogue) -> tuple[int, int, int]:
        """A block a tile; packed bits have columns up to the end of their padded row."""
        stored = row_bytes(columns) * 8 if isinstance(epilogue, Threshold | Residual) else columns
        return -(-rows // self.rows) * -(-stored // self.columns), 1, 1


def mma_tile(
    family: str, down: int, across: int, fragments: int, stages: int, blocks: int, rate: float, extra: int = 0
) -> Tile:
    """A tile of csrc/cuda/`family`/mma.cu by base/mma_tile.cuh, where the macros are explained.

    `extra` is shared memory beside the stages, in bytes a row of the tile.
    """
    macros = {"WARPS_DOWN": down, "WARPS_ACROSS": across, "FRAGMENTS": fragments, "STAGES": stages}
    rows, columns = 16 * fragments * down, 64 * across
    return Tile(
        f"{family}/mma.cu",
        f"{family}_mma",
        tuple(macros.items()),
        WITH_MMA,
        threads=32 * down * across,
        shared_bytes=stages * _STEP * (rows + columns) + extra * rows,
        rows=rows,
        columns=columns,
        blocks=blocks,
        rate=rate,
    )


def choose(tiles: Sequence[Tile], multiprocessors: int, rows: int, columns: int, groups: int = 1) -> Tile:
    """The tile that takes the least time for an output of this shape, by the number of rounds of tiles.

    With several groups only tiles whose columns divide those of a group may be taken; there must be one.
    """
    fitting = [tile for tile in tiles if groups == 1 or columns // groups % tile.columns == 0]

    def time(tile: Tile) -> float:
        count = -(-rows // tile.rows) * -(-columns // tile.columns)
        rounds = -(-count // (multiprocessors * tile.blocks))
        return rounds * tile.blocks * tile.rows * tile.columns / tile.rate

    return min(fitting, key=time)
