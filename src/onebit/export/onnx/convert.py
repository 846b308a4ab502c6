"""A Program as an ONNX model of standard operators."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from onebit.errors import ExportError
from onebit.export.onnx import elementwise, sums
from onebit.export.onnx.model_builder import check_opset
from onebit.export.onnx.writer import Writer
from onebit.program import Node, Program, verify
from onebit.program.atomic import write_atomically
from onebit.program.fusion import Step, fuse

DEFAULT_OPSET = 17

RULES: Mapping[str, Callable[[Writer, Step, Node], None]] = MappingProxyType(
    {
        **dict.fromkeys(("binary_gemm", "u8_gemm", "f32_binary_gemm", "f32_gemm"), sums.write_product),
        **dict.fromkeys(
            ("binary_conv2d", "u8_conv2d", "f32_binary_conv2d", "f32_conv2d"), sums.write_product
        ),
        **dict.fromkeys(("add", "sub", "mul", "div"), elementwise.arithmetic),
        **dict.fromkeys(("abs", "relu"), elementwise.plain),
        **dict.fromkeys(("permute", "reshape"), elementwise.move),
        "sign": elementwise.sign,
        "threshold": elementwise.threshold,
        "to_float": elementwise.to_float,
        "scale_pixels": elementwise.scale_pixels,
        "affine": elementwise.affine,
        "prelu": elementwise.prelu,
        "hardtanh": elementwise.hardtanh,
        "max_pool2d": elementwise.max_pool,
        "avg_pool2d": elementwise.avg_pool,
        "channel_mean": elementwise.channel_mean,
        "concat": elementwise.concat,
    }
)


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
        rule = RULES.get(node.op)
        if rule is None:
            raise ExportError(f"layer {node.layer!r}: the op {node.op!r} has no ONNX form yet")
        writer.b.begin(node.layer or node.op)
        rule(writer, step, node)
    return writer.finish()


def save_onnx(program: Program, path: str | os.PathLike[str], *, opset: int = DEFAULT_OPSET) -> int:
    """Write `to_onnx(program, opset=opset)` to `path`, whole or not at all; returns the file's bytes.

    A file that is there is replaced. Raises what `to_onnx` raises, and OSError naming `path`.
    """
    model = to_onnx(program, opset=opset)
    write_atomically(path, [model])
    return len(model)
