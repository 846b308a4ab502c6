"""Data sets → tensors: `load(name)` gives whole splits in memory, images as bytes, sounds as floats.

What does not fit there is streamed: `open_stream` says which images there are, `streaming` makes batches.

Names are resolved when first used, so that reading a picture or a sound (`pictures`, `wav`) or a data set as
arrays (`load_arrays`) loads no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onebit.errors import DataError

if TYPE_CHECKING:
    from onebit.data.loading import NAMES, load, load_arrays
    from onebit.data.stream_sets import open_stream
    from onebit.data.tensor_splits import Split, Splits

__all__ = ["NAMES", "DataError", "Split", "Splits", "load", "load_arrays", "open_stream"]


def __getattr__(name: str) -> Any:
    if name in ("NAMES", "load", "load_arrays"):
        from onebit.data import loading

        return getattr(loading, name)
    if name in ("Split", "Splits"):
        from onebit.data import tensor_splits

        return getattr(tensor_splits, name)
    if name == "open_stream":
        from onebit.data import stream_sets

        return stream_sets.open_stream
    raise AttributeError(f"module 'onebit.data' has no attribute {name!r}")
