"""A stage: one op of a run on a device, with its constants there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onebit.program import TensorType
from onebit.runtime.cuda.kernels.buffers import DeviceValue


class StageRun(Protocol):
    """What a stage does, on torch's current stream."""

    @property
    def nbytes(self) -> int:
        """Bytes on the device that it keeps."""

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Compute `outs` from `inputs`, which do not overlap them."""


@dataclass(frozen=True)
class Stage:
    """One op of a run."""

    op: str  # the ops of the Program that it does, e.g. "binary_gemm+threshold"
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: StageRun
    macs: int = 0  # of one sample
    counts: bool = False  # it fills the sums of its bits output


@dataclass
class Stages:
    """All stages in order, and what they work on.

    Attributes:
        stages: in the order of a run.
        types: the type of each value, also of those that the Program lacks.
        aliases: value → the value whose memory it is, in another shape.
        results: the value that is handed to the user, for each output of the Program.
        counted: bits values whose sums some stage reads.
    """

    stages: list[Stage] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)
    counted: set[str] = field(default_factory=set)
