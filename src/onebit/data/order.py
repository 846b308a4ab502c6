"""The order of an epoch over images that are stored in groups: random, computed, and read group by group.

A data set that does not fit into memory can be shuffled well and still be read in long pieces: the groups
are permuted, and then every image moves a little. What stands where is a function of the seed and the epoch
alone, so a run resumes in the middle of an epoch by computing it again, without reading what went before.

The permuted groups make up one sequence of images. Each rank's steps are dealt out to `LANES` lanes, step s
to lane s mod LANES, and each lane works through a span of the sequence of its own. A process that prepares
the batches of a lane so reads each of its groups once; `LANES` is fixed, so that the number of such processes
changes nothing.

Within a lane, image i gets the key i + spread · u with u uniform in [0, 1), and the lane's order is that of
the keys. An image i' >= i + spread has a larger key whatever u and u' are, and one with i' <= i - spread a
smaller one. So place p of the order is taken by an image with |i - p| <= spread: what has been read, and not
yet been used, is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

LANES = 8
SPREAD = 2000  # images; encoded, ImageNet's average 110 kB, which each lane holds about `SPREAD` of


@dataclass(frozen=True)
class Piece:
    """The images of one batch.

    lane: where what has been read for it is kept. chunks, rows: (N,), the index of each image's chunk, and
    its row in the chunk's group. slots: (N,), the place of each image's chunk among the permuted chunks; of
    those below `behind` the lane needs nothing any more.
    """

    lane: int
    chunks: Ints
    rows: Ints
    slots: Ints
    behind: int


class EpochOrder:
    """What one of `ranks` processes trains on in each step of an epoch.

    chunks: int64 (M, 3), of each chunk its group and the rows [start, stop) of it that are in the data set.
    steps: batches an epoch, of `share` images on each rank; steps · share · ranks images at most are there,
    and those left over are left out, others in each epoch.
    """

    def __init__(
        self,
        chunks: Ints,
        *,
        seed: int,
        epoch: int,
        steps: int,
        share: int,
        rank: int = 0,
        ranks: int = 1,
        spread: int = SPREAD,
    ) -> None:
        self._words = [seed & 0xFFFFFFFF, seed >> 32, epoch]
        # RandomState's stream is the one that NumPy promises never to change.
        self._permutation = np.random.RandomState(self._words).permutation(len(chunks)).astype(np.int64)
        permuted = chunks[self._permutation]
        self._starts = permuted[:, 1]
        sizes = permuted[:, 2] - permuted[:, 1]
        self._ends = np.cumsum(sizes)
        self._firsts = self._ends - sizes
        self._share, self._spread, self._rank = share, spread, rank
        # Rank by rank, lane by lane: how many images come before each lane's span.
        counts = np.array([len(range(lane, steps, LANES)) * share for lane in range(LANES)], dtype=np.int64)
        self._counts = counts
        self._spans = rank * int(counts.sum()) + np.cumsum(counts) - counts
        self._orders: dict[int, Ints] = {}
        assert ranks * int(counts.sum()) <= int(sizes.sum())

    def piece(self, step: int) -> Piece:
        """The images of a step, on this rank."""
        lane, turn = step % LANES, step // LANES
        places = self._order(lane)[turn * self._share : (turn + 1) * self._share] + self._spans[lane]
        slots = np.searchsorted(self._ends, places, side="right").astype(np.int64)
        rows = self._starts[slots] + places - self._firsts[slots]
        used = turn * self._share - self._spread + int(self._spans[lane])
        behind = int(np.searchsorted(self._ends, used, side="right"))
        return Piece(lane, self._permutation[slots], rows, slots, behind)

    def _order(self, lane: int) -> Ints:
        if lane not in self._orders:
            count = int(self._counts[lane])
            draws = np.random.RandomState([*self._words, self._rank, lane + 1]).random_sample(count)
            keys = np.arange(count) + self._spread * draws
            self._orders[lane] = np.argsort(keys, kind="stable").astype(np.int64)
        return self._orders[lane]
