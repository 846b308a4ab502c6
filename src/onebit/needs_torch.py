"""Importing this finds out whether PyTorch is there, and says how to get it if not.

A leaf, which what cannot do without PyTorch imports first.
"""

from __future__ import annotations

from onebit.errors import MissingPackageError

__all__ = ["torch"]

try:
    import torch
except ModuleNotFoundError as error:
    if error.name not in (None, "torch"):  # PyTorch is there, and what it needs is not
        raise
    raise MissingPackageError(
        "this needs PyTorch, which is not installed: pip install 'onebit[train]'", name="torch"
    ) from error
