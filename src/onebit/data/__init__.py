"""Data sets → tensors: `load(name)` gives whole splits in memory, images as bytes."""

from onebit.data.errors import DataError
from onebit.data.loading import NAMES, load
from onebit.data.splits import Split, Splits

__all__ = ["NAMES", "DataError", "Split", "Splits", "load"]
