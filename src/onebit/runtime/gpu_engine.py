"""The engine on a GPU, imported when it is first asked for: PyTorch is loaded only then."""

from __future__ import annotations

from typing import Any

from onebit.errors import EngineError


def cuda_engine() -> Any:
    """The class of engines on a GPU, which needs PyTorch."""
    try:
        from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EngineError(
            "device 'cuda' needs PyTorch with CUDA (https://pytorch.org/get-started), and the rest with "
            "`pip install 'onebit[cuda]'`"
        ) from error
    return CudaEngine
