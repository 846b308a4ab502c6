"""Small Programs for tests, built by hand: between them they use every op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onebit.program import Constant, DType, Node, Program, TensorType, pack_bits

HURTING = (1, 31, 32, 33, 63, 64, 65, 511)


def bits_constant(signs: Any) -> Constant:
    """A bits constant from an array of ±1."""
    signs = np.asarray(signs)
    return Constant(TensorType(DType.BITS, signs.shape), pack_bits(signs > 0))


def constant(array: Any) -> Constant:
    """A constant of the array's own dtype."""
    array = np.array(array, order="C")
    names = {"float32": DType.F32, "int32": DType.I32, "uint8": DType.U8, "int8": DType.I8}
    return Constant(TensorType(names[array.dtype.name], array.shape), array)


def one_op(
    op: str,
    inputs: Mapping[str, TensorType],
    constants: Mapping[str, Constant],
    output: TensorType,
    order: tuple[str, ...] = (),
    **attrs: Any,
) -> Program:
    """A program of one node; its inputs in the order given, or values first."""
    names = order or (*inputs, *constants)
    node = Node(op, names, "y", attrs, layer="layer")
    return Program(tuple(inputs), ("y",), (node,), constants, {**inputs, "y": output})


def f32(*shape: int) -> TensorType:
    return TensorType(DType.F32, shape)


def i32(*shape: int) -> TensorType:
    return TensorType(DType.I32, shape)


def u8(*shape: int) -> TensorType:
    return TensorType(DType.U8, shape)


def bits(*shape: int) -> TensorType:
    return TensorType(DType.BITS, shape)


def signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 2, shape).astype(np.int8) * 2 - 1


def bytes_mlp(k: int = 70, hidden: int = 33, classes: int = 3, seed: int = 0) -> Program:
    """Bytes → integer threshold → bits → scale and shift: what a converted BNN looks like."""
    rng = np.random.default_rng(seed)
    constants = {
        "w0": bits_constant(signs(rng, hidden, k)),
        "t0": constant(rng.integers(-99, 99, hidden).astype(np.int32)),
        "f0": bits_constant(signs(rng, hidden)),
        "w1": bits_constant(signs(rng, classes, hidden)),
        "scale": constant(rng.normal(size=classes).astype(np.float32)),
        "shift": constant(rng.normal(size=classes).astype(np.float32)),
    }
    nodes = (
        Node("u8_gemm", ("x", "w0"), "a0", {"multiplier": 2, "offset": -255}, "fc0"),
        Node("threshold", ("a0", "t0", "f0"), "h0", layer="bn0"),
        Node("binary_gemm", ("h0", "w1"), "a1", layer="fc1"),
        Node("to_float", ("a1",), "r1", layer="bn1"),
        Node("affine", ("r1", "scale", "shift"), "y", layer="bn1"),
    )
    values = {
        "x": u8(k),
        "a0": i32(hidden),
        "h0": bits(hidden),
        "a1": i32(classes),
        "r1": f32(classes),
        "y": f32(classes),
    }
    return Program(("x",), ("y",), nodes, constants, values, {"model": "bytes_mlp"})


def float_zoo(k: int = 6, n: int = 4, seed: int = 0) -> Program:
    """One input of bytes and one of floats through every op that `bytes_mlp` lacks; two outputs."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": constant(rng.normal(size=(n, k)).astype(np.float32)),
        "wb": bits_constant(signs(rng, n, n)),
        "slope": constant(np.full(1, 0.25, np.float32)),
        "half": constant(np.float32(0.5)),
        "row": constant(rng.normal(size=n).astype(np.float32)),
    }
    nodes = (
        Node("reshape", ("image",), "flat", {"shape": (k,)}, "flatten"),
        Node("scale_pixels", ("flat",), "pixels", layer="pixels"),
        Node("add", ("pixels", "z"), "sum", layer="mix"),
        Node("f32_gemm", ("sum", "w"), "g", layer="fc0"),
        Node("mul", ("half", "g"), "m", layer="scale"),
        Node("prelu", ("m", "slope"), "p", layer="act0"),
        Node("f32_binary_gemm", ("p", "wb"), "q", layer="fc1"),
        Node("div", ("q", "row"), "d", layer="norm"),
        Node("sub", ("d", "row"), "s", layer="norm"),
        Node("hardtanh", ("s",), "h", {"min": -1.0, "max": 1.0}, "act1"),
        Node("relu", ("h",), "r", layer="act2"),
        Node("sign", ("s",), "b", layer="sign"),
    )
    values = {"image": u8(1, 2, k // 2), "z": f32(k), "flat": u8(k), "pixels": f32(k), "sum": f32(k)}
    values |= {name: f32(n) for name in ("g", "m", "p", "q", "d", "s", "h", "r")}
    values["b"] = bits(n)
    return Program(("image", "z"), ("r", "b"), nodes, constants, values)


def feed(program: Program, batch: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Random inputs that the program accepts."""
    rng = np.random.default_rng(seed)
    arrays = []
    for name in program.inputs:
        type_ = program.values[name]
        shape = (batch, *type_.shape)
        if type_.dtype is DType.U8:
            arrays.append(rng.integers(0, 256, shape, dtype=np.uint8))
        elif type_.dtype is DType.BITS:
            arrays.append(signs(rng, *shape))
        elif type_.dtype is DType.F32:
            arrays.append(rng.normal(size=shape).astype(np.float32))
        else:
            arrays.append(rng.integers(-100, 100, shape).astype(type_.storage_dtype))
    return arrays
