"""onebit trains, packs and runs one-bit neural networks: PyTorch in, XNOR-popcount out.

Names are resolved when first used, so `import onebit` loads neither PyTorch nor the compiled library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onebit import data, export, models, nn, ops, optim, program, train
    from onebit.errors import (
        CheckpointError,
        ConversionError,
        DataError,
        EngineError,
        ExportError,
        FileKindError,
        MissingPackageError,
        OnebitError,
        ProgramError,
        RecipeError,
        TrainError,
    )
    from onebit.lowering import convert
    from onebit.ops import pack
    from onebit.program import Program, load
    from onebit.runtime import Engine

__all__ = [
    "CheckpointError",
    "ConversionError",
    "DataError",
    "Engine",
    "EngineError",
    "ExportError",
    "FileKindError",
    "MissingPackageError",
    "OnebitError",
    "Program",
    "ProgramError",
    "RecipeError",
    "TrainError",
    "convert",
    "data",
    "export",
    "load",
    "models",
    "nn",
    "ops",
    "optim",
    "pack",
    "program",
    "train",
]

_HOME = {
    "Engine": "runtime",
    "Program": "program",
    "load": "program",
    "convert": "lowering",
    "pack": "ops",
    "CheckpointError": "errors",
    "ConversionError": "errors",
    "DataError": "errors",
    "EngineError": "errors",
    "ExportError": "errors",
    "FileKindError": "errors",
    "MissingPackageError": "errors",
    "OnebitError": "errors",
    "ProgramError": "errors",
    "RecipeError": "errors",
    "TrainError": "errors",
}
_ROOMS = {"data", "export", "lowering", "models", "nn", "ops", "optim", "program", "runtime", "train"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"onebit.{_HOME[name]}"), name)
    if name in _ROOMS:
        return import_module(f"onebit.{name}")
    raise AttributeError(f"module 'onebit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_ROOMS])
