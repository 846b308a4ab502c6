"""Every rule of the verifier, broken one at a time: one error that names place, rule and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onebit.program import Constant, DType, Node, Program, ProgramError, TensorType, limits, verify
from program_samples import (
    bits,
    bits_constant,
    bytes_mlp,
    constant,
    f32,
    float_zoo,
    i32,
    one_op,
    u8,
)

MLP = bytes_mlp()
ZOO = float_zoo()


def with_node(program: Program, index: int, **changes: Any) -> Program:
    nodes = list(program.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(program, nodes=tuple(nodes))


def with_constant(program: Program, name: str, value: Any) -> Program:
    return replace(program, constants={**program.constants, name: value})


def with_array(program: Program, name: str, array: np.ndarray) -> Program:
    return with_constant(program, name, Constant(program.constants[name].type, array))


def with_value(program: Program, name: str, type_: TensorType) -> Program:
    return replace(program, values={**program.values, name: type_})


def swapped(program: Program, i: int, j: int) -> Program:
    nodes = list(program.nodes)
    nodes[i], nodes[j] = nodes[j], nodes[i]
    return replace(program, nodes=tuple(nodes))


def w0(change: Callable[[np.ndarray], np.ndarray]) -> Program:
    return with_array(MLP, "w0", change(MLP.constants["w0"].array))


def nan_scale(value: float) -> Program:
    return with_array(MLP, "scale", np.array([1, 2, value], np.float32))


def padded_w0() -> np.ndarray:
    array = MLP.constants["w0"].array.copy()
    array[7, -1] |= np.uint32(1 << 31)
    return array


def gemm(x: TensorType, w: Constant, out: TensorType, op: str = "binary_gemm", **attrs: Any) -> Program:
    return one_op(op, {"x": x}, {"w": w}, out, **attrs)


def u8_gemm(k: int, **attrs: Any) -> Program:
    return gemm(u8(k), bits_constant(np.ones((1, k))), i32(1), "u8_gemm", **attrs)


def binary(op: str, a: TensorType, b: TensorType) -> Program:
    return one_op(op, {"a": a, "b": b}, {}, a)


def plus(value: TensorType, shape: tuple[int, ...]) -> Program:
    return one_op("add", {"x": value}, {"c": constant(np.ones(shape, np.float32))}, value)


def hardtanh(**attrs: Any) -> Program:
    return one_op("hardtanh", {"x": f32(3)}, {}, f32(3), **attrs)


def reshape(x: TensorType, out: TensorType, shape: Any) -> Program:
    return one_op("reshape", {"x": x}, {}, out, shape=shape)


def huge_k() -> Program:
    words = -(-(2**31 - 1) // 32)
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint32), (1, words), (0, 0))
    type_ = TensorType(DType.BITS, (1, 2**31))
    return gemm(bits(2**31), Constant(type_, array), i32(1))


CASES: dict[str, tuple[Callable[[], Program], str]] = {
    # names, inputs, outputs
    "no inputs": (lambda: replace(MLP, inputs=()), r"program: inputs: found \(\), expected"),
    "no outputs": (lambda: replace(MLP, outputs=()), r"program: outputs: found \(\), expected"),
    "inputs are a list": (lambda: replace(MLP, inputs=["x"]), r"program: inputs: found \['x'\]"),
    "input twice": (lambda: replace(MLP, inputs=("x", "x")), "input 'x': names are unique"),
    "input without a type": (lambda: replace(MLP, inputs=("x", "z")), "input 'z': every input has a type"),
    "input named like a constant": (
        lambda: replace(with_value(MLP, "w0", u8(1)), inputs=("x", "w0")),
        "input 'w0': names are unique: found a constant",
    ),
    "output twice": (lambda: MLP.with_outputs("y", "y"), "output 'y': outputs are unique"),
    "output unknown": (lambda: MLP.with_outputs("q"), "output 'q': an output exists"),
    "output is a constant": (lambda: MLP.with_outputs("w0"), "output 'w0': an output is a value"),
    "name empty": (lambda: with_node(MLP, 0, output=""), "length of a name: found 0 characters"),
    "name too long": (lambda: with_node(MLP, 0, output="n" * 257), "length of a name: found 257 characters"),
    "name not text": (lambda: with_node(MLP, 0, output=7), "a name is text: found 7"),
    "name with a line break": (lambda: with_node(MLP, 0, output="a\nb"), "printable characters"),
    "name with a lone surrogate": (lambda: with_node(MLP, 0, output="\ud800"), "printable characters"),
    "name reserved": (lambda: with_node(MLP, 0, output="__metadata__"), "safetensors reserves"),
    "layer not printable": (lambda: with_node(MLP, 0, layer="\x00"), "layer: characters of a name"),
    "metadata not text": (lambda: replace(MLP, metadata={"a": 1}), "metadata 'a': its text: found 1"),
    "metadata not Unicode": (lambda: replace(MLP, metadata={"a": "\udc00"}), "a str of Unicode"),
    # order
    "unknown input of a node": (
        lambda: with_node(MLP, 2, inputs=("ghost", "w1")),
        r"node 2 'binary_gemm' \(layer 'fc1'\), input x = 'ghost': every input is defined: found no value",
    ),
    "wrong order": (
        lambda: swapped(MLP, 0, 1),
        r"input x = 'a0': nodes stand in topological order .* node 1",
    ),
    "cycle": (lambda: with_node(MLP, 0, inputs=("y", "w0")), "without cycles: found the output of node 4"),
    "node reads itself": (lambda: with_node(MLP, 0, inputs=("a0", "w0")), "found the output of node 0"),
    "two nodes, one output": (
        lambda: with_node(MLP, 2, output="a0"),
        "names are unique: found a name already",
    ),
    "output named like a constant": (lambda: with_node(MLP, 2, output="w0"), "a name already taken"),
    "output named like the input": (lambda: with_node(MLP, 2, output="x"), "a name already taken"),
    "output without a type": (
        lambda: with_node(MLP, 0, output="new"),
        "found no entry in values, expected i32",
    ),
    "value nobody makes": (
        lambda: with_value(MLP, "spare", f32(1)),
        "value 'spare': every typed value is used",
    ),
    "unused constant": (
        lambda: with_constant(MLP, "spare", constant(np.ones(1, np.float32))),
        "constant 'spare': every constant is used",
    ),
    # ops
    "unknown op": (lambda: with_node(MLP, 2, op="conv9"), "unknown op: found 'conv9', expected one of abs, "),
    "op not text": (lambda: with_node(MLP, 2, op=None), "op: a name is text: found None"),
    "newer op": (
        lambda: with_node(MLP, 2, version=2),
        "version of the op: found 2, expected 1; a newer onebit",
    ),
    "older op": (lambda: with_node(MLP, 2, version=0), "version of the op: found 0, expected 1$"),
    "version is a bool": (
        lambda: with_node(MLP, 2, version=True),
        "version of the op: found True, expected 1$",
    ),
    "too few inputs": (
        lambda: with_node(MLP, 2, inputs=("h0",)),
        r"number of inputs: found 1, expected 2 \(x, w\)",
    ),
    "too many inputs": (
        lambda: with_node(MLP, 3, inputs=("a1", "a1")),
        r"number of inputs: found 2, expected 1",
    ),
    "weights are a value": (
        lambda: with_node(MLP, 2, inputs=("h0", "h0")),
        "input w = 'h0': its role: found a value",
    ),
    "x is a constant": (
        lambda: with_node(MLP, 2, inputs=("w1", "w1")),
        "input x = 'w1': its role: found a constant",
    ),
    "wrong declared type": (
        lambda: with_value(MLP, "a0", i32(34)),
        r"node 0 'u8_gemm' \(layer 'fc0'\), output 'a0': declared type: found i32\[34\], expected i32\[33\]",
    ),
    "wrong declared dtype": (lambda: with_value(MLP, "a0", f32(33)), r"found f32\[33\], expected i32\[33\]"),
    # types of each op
    "gemm x dtype": (
        lambda: gemm(u8(3), bits_constant(np.ones((2, 3))), i32(2)),
        r"dtype of x: found u8\[3\], expected bits",
    ),
    "gemm w dtype": (
        lambda: gemm(bits(3), constant(np.ones((2, 3), np.float32)), i32(2)),
        r"dtype of w: found f32\[2, 3\], expected bits",
    ),
    "gemm w rank": (lambda: gemm(bits(3), bits_constant(np.ones((1, 2, 3))), i32(2)), "rank of w"),
    "gemm K": (
        lambda: gemm(bits(33), bits_constant(np.ones((2, 34))), i32(2)),
        r"K of w: found bits\[2, 34\], expected bits\[2, 33\]",
    ),
    "gemm of a scalar": (
        lambda: gemm(f32(), constant(np.ones((1, 1), np.float32)), f32(1), "f32_gemm"),
        r"rank of x: found f32\[\]",
    ),
    "binary_gemm of 2^31 channels": (huge_k, "each size of a shape: found 2147483648"),
    "u8_gemm overflows int32": (
        lambda: u8_gemm(11013, multiplier=255, offset=129985),
        r"accumulator: found K·\(255·\|multiplier\| \+ \|offset\|\) = 2147645130, expected at most",
    ),
    "u8_gemm overflows int64": (
        lambda: u8_gemm(1, multiplier=2**62, offset=0),
        "range of the int32 accumulator",
    ),
    "u8_gemm multiplier 0": (lambda: u8_gemm(1, multiplier=0, offset=0), "attribute multiplier: found 0"),
    "u8_gemm multiplier beyond any int": (
        lambda: u8_gemm(1, multiplier=2**80, offset=0),
        "attribute multiplier: found .*, expected an int of at most 64 bits",
    ),
    "u8_gemm without offset": (
        lambda: u8_gemm(1, multiplier=1),
        r"attributes: found \['multiplier'\], expected",
    ),
    "u8_gemm bool": (
        lambda: u8_gemm(1, multiplier=True, offset=0),
        r"attribute multiplier: found True \(bool\)",
    ),
    "u8_gemm float": (lambda: u8_gemm(1, multiplier=1, offset=0.0), r"attribute offset: found 0.0 \(float\)"),
    "u8_gemm NumPy int": (
        lambda: u8_gemm(1, multiplier=np.int64(1), offset=0),
        r"\(int64\), expected an int",
    ),
    "attribute not known": (
        lambda: with_node(MLP, 3, attrs={"a": 1}),
        r"attributes: found \['a'\], expected \[\]",
    ),
    "sign of integers": (
        lambda: one_op("sign", {"x": i32(3)}, {}, bits(3)),
        r"dtype of x: found i32\[3\], expected f32",
    ),
    "sign of a scalar": (lambda: one_op("sign", {"x": f32()}, {}, f32()), "rank of x"),
    "thresholds too short": (
        lambda: with_constant(MLP, "t0", constant(np.zeros(32, np.int32))),
        r"type of thresholds: found i32\[32\], expected i32\[33\]",
    ),
    "flip too long": (
        lambda: with_constant(MLP, "f0", bits_constant(np.ones(34))),
        r"type of flip: found bits\[34\], expected bits\[33\]",
    ),
    "to_float of floats": (
        lambda: one_op("to_float", {"x": f32(3)}, {}, f32(3)),
        "expected i32 or u8 or bits",
    ),
    "scale_pixels of floats": (lambda: one_op("scale_pixels", {"x": f32(3)}, {}, f32(3)), "expected u8"),
    "affine scale": (
        lambda: with_constant(MLP, "scale", constant(np.ones(1, np.float32))),
        r"type of scale: found f32\[1\], expected f32\[3\]",
    ),
    "affine shift": (
        lambda: with_constant(MLP, "shift", constant(np.ones(3, np.int32))),
        r"type of shift: found i32\[3\], expected f32\[3\]",
    ),
    "values of two shapes": (
        lambda: binary("add", f32(3), f32(2)),
        r"two values: found f32\[3\] and f32\[2\]",
    ),
    "add of integers": (lambda: binary("add", i32(3), i32(3)), r"dtype of a: found i32\[3\], expected f32"),
    "constant does not broadcast": (lambda: plus(f32(3), (2,)), r"shape of the constant: found f32\[2\]"),
    "constant would widen the value": (lambda: plus(f32(1), (3,)), "one that broadcasts to"),
    "constant of higher rank": (lambda: plus(f32(3), (1, 3)), "one that broadcasts to"),
    "two constants": (
        lambda: replace(
            one_op("add", {"x": f32(1)}, {"c": constant(np.ones(1, np.float32))}, f32(1)),
            nodes=(Node("add", ("c", "c"), "y"),),
        ),
        "operands: found two constants",
    ),
    "prelu slopes": (
        lambda: one_op("prelu", {"x": f32(3)}, {"s": constant(np.ones(2, np.float32))}, f32(3)),
        r"type of slope: found f32\[2\], expected f32\[3\]",
    ),
    "prelu integer slope": (
        lambda: one_op("prelu", {"x": f32(3)}, {"s": constant(np.ones(1, np.int32))}, f32(3)),
        "dtype of slope",
    ),
    "hardtanh NaN": (lambda: hardtanh(min=float("nan"), max=1.0), "attribute min: found nan"),
    "hardtanh infinite": (lambda: hardtanh(min=-1.0, max=float("inf")), "attribute max: found inf"),
    "hardtanh beyond float32": (lambda: hardtanh(min=-1e39, max=1.0), "attribute min: found -1e[+]39"),
    "hardtanh crossed": (lambda: hardtanh(min=1.0, max=-1.0), "found min 1.0 > max -1.0"),
    "hardtanh int": (
        lambda: hardtanh(min=-1, max=1.0),
        r"attribute min: found -1 \(int\), expected a finite float",
    ),
    "reshape elements": (
        lambda: reshape(f32(6), f32(4), (4,)),
        r"attribute shape: found \(4,\) for f32\[6\]",
    ),
    "reshape bits to a scalar": (lambda: reshape(bits(1), bits(1), ()), "rank 1 or more for bits"),
    "reshape list": (lambda: reshape(f32(6), f32(6), [6]), r"attribute shape: found \[6\] \(list\)"),
    "reshape zero": (lambda: reshape(f32(6), f32(6), (6, 0)), "attribute shape"),
    "reshape -1": (lambda: reshape(f32(6), f32(6), (-1,)), "attribute shape"),
    "reshape bool": (lambda: reshape(f32(1), f32(1), (True,)), "attribute shape"),
    "reshape rank": (lambda: reshape(f32(1), f32(1), (1,) * 9), "rank of attribute shape: found 9"),
    # sizes
    "rank 9": (lambda: with_value(MLP, "x", u8(*[1] * 9)), "input 'x': rank: found 9, expected at most 8"),
    "size 0": (lambda: with_value(MLP, "x", u8(0)), "each size of a shape: found 0"),
    "negative size": (lambda: with_value(MLP, "x", u8(-1)), "each size of a shape: found -1"),
    "size is a bool": (lambda: with_value(MLP, "x", u8(True)), "each size of a shape: found True"),
    "size is a float": (lambda: with_value(MLP, "x", u8(3.0)), "each size of a shape: found 3.0"),
    "shape is a list": (
        lambda: with_value(MLP, "x", TensorType(DType.U8, [3])),
        r"shape: found \[3\], expected a tuple",
    ),
    "product of sizes overflows": (
        lambda: with_value(MLP, "x", u8(*[2**31 - 1] * 8)),
        rf"size of a value: found {(2**31 - 1) ** 8} elements",
    ),
    "type is no TensorType": (
        lambda: with_value(MLP, "x", "u8[3]"),
        r"type: found 'u8\[3\]', expected a TensorType",
    ),
    "dtype is no DType": (lambda: with_value(MLP, "x", TensorType("u8", (3,))), "expected a TensorType"),
    "bits scalar": (lambda: with_value(MLP, "h0", bits()), "rank of a bits tensor: found 0"),
    "too many nodes": (
        lambda: replace(MLP, nodes=MLP.nodes * (limits.MAX_NODES // 5 + 1)),
        "program: number of nodes: found 10005, expected at most 10000",
    ),
    "constant too large": (
        lambda: with_constant(
            MLP, "w0", Constant(TensorType(DType.F32, (2**20, 2**20)), np.zeros(1, np.float32))
        ),
        "size of a constant: found 4398046511104 bytes",
    ),
    # constants
    "constant is an array": (
        lambda: with_constant(MLP, "w0", np.ones(3)),
        "constant 'w0': type: found ndarray",
    ),
    "storage is a list": (lambda: with_array(MLP, "w0", [1]), "constant 'w0': storage: found list"),
    "storage dtype": (
        lambda: w0(lambda a: a.astype(np.int64)),
        r"storage dtype of bits\[33, 70\]: found int64",
    ),
    "storage of signed words": (lambda: w0(lambda a: a.view(np.int32)), "storage dtype of .* found int32"),
    "storage byte order": (lambda: w0(lambda a: a.astype(">u4")), "storage dtype of .* found >u4"),
    "storage shape": (
        lambda: w0(lambda a: a[:, :2].copy()),
        r"storage shape of bits\[33, 70\]: found \(33, 2\), expected \(33, 3\)",
    ),
    "storage not contiguous": (lambda: w0(np.asfortranarray), "storage layout: found strides"),
    "padding bits": (
        lambda: with_array(MLP, "w0", padded_w0()),
        "constant 'w0': bits beyond channel 69 are zero: found 0x8.* as the last word of row 7",
    ),
    "NaN in a constant": (
        lambda: nan_scale(float("nan")),
        r"constant 'scale': constants are finite: found nan at index \(2,\)",
    ),
    "infinity in a constant": (lambda: nan_scale(float("inf")), "constants are finite: found inf"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_rule_gets_its_error(name: str) -> None:
    build, message = CASES[name]
    with pytest.raises(ProgramError, match=message) as caught:
        verify(build())
    assert type(caught.value) is ProgramError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("program", [MLP, ZOO, bytes_mlp(1, 1, 1), bytes_mlp(511, 65, 64)])
def test_valid_programs_pass(program: Program) -> None:
    verify(program)
    verify(program.with_outputs(*program.values))


def test_the_widest_u8_gemm_that_fits_passes() -> None:
    verify(u8_gemm(1, multiplier=-1, offset=2**31 - 1 - 255))
    with pytest.raises(ProgramError, match="= 2147483648, expected at most 2147483647"):
        verify(u8_gemm(1, multiplier=-1, offset=2**31 - 255))


def test_an_error_stays_short_whatever_the_name() -> None:
    with pytest.raises(ProgramError) as caught:
        verify(with_node(MLP, 0, op="x" * 100_000, layer="y" * 100_000))
    assert len(str(caught.value)) < 500


def test_nan_is_found_at_the_end_of_a_large_constant() -> None:
    array = np.zeros((600, 1000), np.float32)
    array[599, 999] = np.nan
    program = gemm(f32(1000), constant(array), f32(600), "f32_gemm")
    with pytest.raises(ProgramError, match=r"found nan at index \(599, 999\)"):
        verify(program)
