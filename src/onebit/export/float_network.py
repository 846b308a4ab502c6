"""The same network in float32, read off a Program: what a user without this engine would run.

Everything that helps a float engine is done for it. Images are channels first, as PyTorch and ONNX have them,
so a Program's permutes vanish. Thresholds, BatchNorm, scales and biases are folded into the weights and the
bias of the product before them, also across a max-pool, so a hidden layer is one product and one clamp: an
integer sum against a threshold is 2·(sum − threshold) + 1, never inside (−1, 1), so that clamping to [−1, 1]
is its sign, and runtimes fuse a clamp into the product. Inputs come as float32 with their scaling done,
outside the timing. Weights are real float32 ±1. Results equal the packed network's, up to float32 rounding.
"""

from __future__ import annotations

from onebit.export.float_fold import fold
from onebit.export.float_ops import FloatNetwork, FloatOp, NotComparable
from onebit.export.float_translate import translate
from onebit.program import Program
from onebit.program.float_environment import default_float_environment

__all__ = ["FloatNetwork", "FloatOp", "NotComparable", "float_network"]


@default_float_environment()
def float_network(program: Program) -> FloatNetwork:
    """The float32 network that computes what `program` does.

    Raises NotComparable, naming the op, for an op that the float peers do not know.
    """
    return fold(translate(program))
