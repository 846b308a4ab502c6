"""A Program as an ONNX model of standard operators."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from onebit.export.onnx import elementwise, sums
from onebit.export.onnx.model_builder import check_opset
from onebit.export.onnx.writer import Writer
from onebit.program import OPS, Node, Program, verify
from onebit.program.atomic import write_atomically
from onebit.program.float_environment import default_float_environment
from onebit.program.fusion import Step, fuse
from onebit.program.ops import FloatKind

DEFAULT_OPSET = 17

RULES: Mapping[FloatKind, Callable[[Writer, Step, Node], None]] = MappingProxyType(
    {
        FloatKind.LINEAR: sums.write_product,
        FloatKind.CONV: sums.write_product,
        FloatKind.MAX_POOL: elementwise.max_pool,
        FloatKind.AVG_POOL: elementwise.avg_pool,
        FloatKind.MEAN: elementwise.channel_mean,
        FloatKind.SIGN: elementwise.sign,
        FloatKind.LEVEL: elementwise.threshold,
        FloatKind.SCALE_SHIFT: elementwise.affine,
        FloatKind.SCALE_PIXELS: elementwise.scale_pixels,
        FloatKind.SAME: elementwise.to_float,
        FloatKind.BINARY: elementwise.binary,
        FloatKind.FUNCTION: elementwise.function,
        FloatKind.PRELU: elementwise.prelu,
        FloatKind.CONCAT: elementwise.concat,
        FloatKind.TRANSPOSE: elementwise.permute,
        FloatKind.RESHAPE: elementwise.reshape,
    }
)


@default_float_environment()
def to_onnx(program: Program, *, opset: int = DEFAULT_OPSET, fold: bool = True) -> bytes:
    """The Program as an ONNX model, serialized: the same inputs and outputs by name, type and order of axes.

    The batch is symbolic. One-bit weights are stored as bits and unpacked by operators of constants alone,
    which a runtime folds when it loads the model. What equals the Program bit for bit, and what only nearly,
    docs/export.md says.
    opset: version of the standard operators, from 13 to 21; 17 suits ONNX Runtime since 1.12.
    fold: behind products of real numbers, where line E1 of docs/numerics.md promises nothing, scales and
        shifts are written such that a runtime folds them into the weights. False: they are rounded as the
        Program says everywhere, which is slower and leaves only the order of float sums open.
    Raises ExportError for another opset, for a Program that ONNX cannot hold (an integer sum beyond float32's
    exactness, weights beyond 2 GiB) and where the package `onnx` is missing; ProgramError for a broken
    Program.
    """
    check_opset(opset)
    verify(program)
    writer = Writer(program, opset, fold=fold)
    for step in fuse(program):
        node = step.nodes[0]
        writer.b.begin(node.layer or node.op)
        RULES[OPS[node.op].float_form.kind](writer, step, node)
    return writer.finish()


def save_onnx(program: Program, path: str | os.PathLike[str], *, opset: int = DEFAULT_OPSET) -> int:
    """Write `to_onnx(program, opset=opset)` to `path`, whole or not at all; returns the file's bytes.

    A file that is there is replaced. Raises what `to_onnx` raises, and OSError naming `path`.
    """
    model = to_onnx(program, opset=opset)
    write_atomically(path, [model])
    return len(model)
