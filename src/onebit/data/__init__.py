"""Data sets → tensors: `load(name)` gives whole splits in memory, images as bytes, sounds as floats.

What does not fit there is streamed: `open_stream` says which images there are, `streaming` makes batches.

Names are resolved when first used, so that reading a WAV file (`onebit.data.wav`) loads no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onebit.errors import DataError

if TYPE_CHECKING:
    from onebit.data.loading import NAMES, load
    from onebit.data.splits import Split, Splits
    from onebit.data.stream_sets import open_stream

__all__ = ["NAMES", "DataError", "Split", "Splits", "load", "open_stream"]


def __getattr__(name: str) -> Any:
    if name in ("NAMES", "load"):
        from onebit.data import loading

        return getattr(loading, name)
    if name in ("Split", "Splits"):
        from onebit.data import splits

        return getattr(splits, name)
    if name == "open_stream":
        from onebit.data import stream_sets

        return stream_sets.open_stream
    raise AttributeError(f"module 'onebit.data' has no attribute {name!r}")
