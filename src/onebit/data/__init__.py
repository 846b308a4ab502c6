"""Data sets → tensors: `load(name)` gives whole splits in memory, images as bytes, sounds as floats.

Names are resolved when first used, so that reading a WAV file (`onebit.data.wav`) loads no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onebit.data.errors import DataError

if TYPE_CHECKING:
    from onebit.data.loading import NAMES, load
    from onebit.data.splits import Split, Splits

__all__ = ["NAMES", "DataError", "Split", "Splits", "load"]


def __getattr__(name: str) -> Any:
    if name in ("NAMES", "load"):
        from onebit.data import loading

        return getattr(loading, name)
    if name in ("Split", "Splits"):
        from onebit.data import splits

        return getattr(splits, name)
    raise AttributeError(f"module 'onebit.data' has no attribute {name!r}")
