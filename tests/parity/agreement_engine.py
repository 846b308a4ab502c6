"""An engine against the reference executor: every element of every output, with ==."""

from __future__ import annotations

from typing import Any

import numpy as np

from onebit.program import Program, execute
from onebit.runtime import Engine

IMAGE_OPS = {
    *("binary_conv2d", "u8_conv2d", "f32_binary_conv2d", "f32_conv2d", "max_pool2d", "avg_pool2d"),
    *("channel_mean", "abs", "concat", "permute"),
}


def run(engine: Engine, *inputs: Any) -> list[Any]:
    """The outputs as a list, also where there is one."""
    result = engine(*inputs)
    return list(result) if isinstance(result, tuple) else [result]


def compare(program: Program, engine: Engine, inputs: list[Any], context: str) -> None:
    """Fail with the first element that differs."""
    expected = execute(program, *inputs)
    for name, found in zip(program.outputs, run(engine, *inputs), strict=True):
        wanted = expected[name]
        assert found.dtype == wanted.dtype, (context, name)
        assert found.shape == wanted.shape, (context, name)
        # A NaN may arise (∞ − ∞) and is then a NaN everywhere; its payload is nobody's promise.
        wrong = np.argwhere(~((found == wanted) | ((found != found) & (wanted != wanted))))
        assert not len(wrong), (
            f"{context}: {name}: {len(wrong)} of {wanted.size} differ, first at {tuple(wrong[0])}: "
            f"{found[tuple(wrong[0])]!r}, expected {wanted[tuple(wrong[0])]!r}"
        )
