"""The catalog: every kernel, with its macros, that the host code can ask a device for.

Each family lists its variants once, next to the code that chooses among them; `entries` puts the lists
together, and CI compiles all of it for every target. A device that is given `file`, `name` and `defines` of
an entry and nothing else can thus never meet a kernel that was not compiled before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# What CI compiles for. NVRTC 13 compiles for sm_75 and later only; sm_90a is asked for by capability (9, 0).
TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")
WITH_MMA = tuple(
    target for target in TARGETS if target != "sm_75"
)  # b1 mma.sync with and.popc: sm_80 and later
WITHOUT_MMA = ("sm_75",)
WITH_WGMMA = ("sm_90a",)


@dataclass(frozen=True)
class Entry:
    """A kernel as `Device.kernel` takes it, and the targets that it is compiled for."""

    file: str  # relative to csrc/cuda
    name: str  # its `extern "C"` name
    defines: Mapping[str, int]
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        object.__setattr__(self, "defines", MappingProxyType(dict(self.defines)))


def entries() -> tuple[Entry, ...]:
    """All kernels of all families."""
    # Each imports Entry from here.
    from onebit.runtime.cuda import (
        binary_conv,
        binary_gemm,
        elementwise,
        first_layer,
        moves,
        packing,
        windows,
    )

    families = (packing, binary_gemm, binary_conv, first_layer, elementwise, windows, moves)
    return tuple(entry for family in families for entry in family.ENTRIES)
