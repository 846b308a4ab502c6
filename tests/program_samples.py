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
        Node("hardswish", ("h",), "hs", layer="act2"),
        Node("relu", ("hs",), "r", layer="act3"),
        Node("sign", ("s",), "b", layer="sign"),
    )
    values = {"image": u8(1, 2, k // 2), "z": f32(k), "flat": u8(k), "pixels": f32(k), "sum": f32(k)}
    values |= {name: f32(n) for name in ("g", "m", "p", "q", "d", "s", "h", "r", "hs")}
    values["b"] = bits(n)
    return Program(("image", "z"), ("r", "b"), nodes, constants, values)


def conv_zoo(size: int = 5, seed: int = 0) -> Program:
    """An image of bytes [2, size, size] through every op of convolutional networks; two outputs."""
    rng = np.random.default_rng(seed)
    plain = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    pool = {"kernel": (2, 2), "stride": (1, 1), "padding": (1, 0, 0, 1)}
    constants = {
        "w0": bits_constant(signs(rng, 4, 3, 3, 2)),
        "t0": constant(rng.integers(-999, 999, 4).astype(np.int32)),
        "f0": bits_constant(signs(rng, 4)),
        "w1": bits_constant(signs(rng, 6, 2, 2, 2)),
        "w2": bits_constant(signs(rng, 3, 3, 1, 6)),
        "w3": constant((rng.integers(-8, 9, (3, 1, 1, 1)) / 8).astype(np.float32)),
    }
    nodes = (
        Node("permute", ("image",), "x", {"axes": (1, 2, 0)}, "permute"),
        Node("u8_conv2d", ("x", "w0"), "a0", {**plain, "multiplier": 2, "offset": -255}, "conv0"),
        Node("threshold", ("a0", "t0", "f0"), "b0", layer="bn0"),
        Node("max_pool2d", ("b0",), "p0", {**pool, "dilation": (1, 1)}, "pool0"),
        Node("binary_conv2d", ("p0", "w1"), "a1", {**plain, "groups": 2, "padding_value": -1}, "conv1"),
        Node("to_float", ("a1",), "r1", layer="conv1"),
        Node("f32_binary_conv2d", ("r1", "w2"), "a2", {**plain, "dilation": (2, 1)}, "conv2"),
        Node("f32_conv2d", ("a2", "w3"), "a3", {**plain, "stride": (2, 1), "groups": 3}, "conv3"),
        Node("abs", ("a3",), "m", layer="k"),
        Node("channel_mean", ("m",), "k", layer="k"),
        Node("avg_pool2d", ("k",), "box", {**pool, "count_include_pad": 1}, "k"),
        Node("avg_pool2d", ("a3",), "mean", {**pool, "count_include_pad": 0}, "pool1"),
        Node("mul", ("mean", "box"), "scaled", layer="scale"),
        Node("concat", ("scaled", "box", "mean"), "cat", layer="concat"),
        Node("sign", ("cat",), "bits", layer="sign"),
        Node("concat", ("bits", "bits"), "twice", layer="concat"),
        Node("permute", ("cat",), "y", {"axes": (2, 0, 1)}, "permute"),
    )
    image, pooled = (size, size), (size // 2 + 1, size + 5)
    values = {
        "image": u8(2, *image),
        "x": u8(*image, 2),
        "a0": i32(*image, 4),
        "b0": bits(*image, 4),
        "p0": bits(*image, 4),
        "a1": i32(size + 1, size + 1, 6),
        "r1": f32(size + 1, size + 1, 6),
        "a2": f32(size - 1, size + 3, 3),
        "y": f32(7, *pooled),
        "bits": bits(*pooled, 7),
        "twice": bits(*pooled, 14),
    }
    channels = {"a3": 3, "m": 3, "k": 1, "box": 1, "mean": 3, "scaled": 3, "cat": 7}
    values |= {name: f32(*pooled, c) for name, c in channels.items()}
    return Program(("image",), ("y", "twice"), nodes, constants, values)


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
