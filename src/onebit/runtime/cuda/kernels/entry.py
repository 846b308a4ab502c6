"""One kernel with its macros, as host code asks a device for it, and the targets that it is compiled for."""

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
