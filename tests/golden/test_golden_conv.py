"""`conv_v1` and `conv_v2.safetensors` pin bytes and meaning of every op of convolutional networks, version 1.

Like those of `test_golden_program.py`: if this fails, files that users hold would change their meaning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onebit.program import Constant, DType, Node, Program, TensorType, execute, load, save

OLD = Path(__file__).with_name("conv_v1.safetensors")
GOLDEN = Path(__file__).with_name("conv_v2.safetensors")
PLAIN = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}


def packed(words: object, *shape: int) -> Constant:
    return Constant(TensorType(DType.BITS, shape), np.array(words, np.uint32))


def program() -> Program:
    """An image of 2×3 pixels and two channels; the tests below hold what was worked out by hand."""
    constants = {
        # One filter over 1×2 taps and both channels: (+ −) at the left tap, (+ +) at the right.
        "w0": packed([[[[0b01], [0b11]]]], 1, 1, 2, 2),
        # Two groups of one channel each, 1×2 taps: + + for the first, − + for the second.
        "w1": packed([[[[1], [1]]], [[[0], [1]]]], 2, 1, 2, 1),
        "w2": packed([[[[0b10]]]], 1, 1, 1, 2),  # − +
        "w3": Constant(TensorType(DType.F32, (1, 1, 1, 1)), np.full((1, 1, 1, 1), 0.5, np.float32)),
        "half": Constant(TensorType(DType.F32, (1,)), np.array([0.5], np.float32)),
    }
    pool = {"kernel": (2, 2), "stride": (1, 1)}
    one = {"multiplier": 1, "offset": -3}
    nodes = (
        Node("permute", ("image",), "x", {"axes": (1, 2, 0)}),
        Node("u8_conv2d", ("x", "w0"), "a", {**PLAIN, "padding": (0, 0, 1, 0), **one}, "conv0"),
        Node("to_float", ("a",), "f"),
        Node("sub", ("f", "half"), "g"),
        Node("sign", ("g",), "h"),
        Node("concat", ("h", "h"), "hh"),
        Node("max_pool2d", ("hh",), "m", {**pool, "padding": (0, 1, 0, 0), "dilation": (1, 1)}, "pool"),
        Node(
            "binary_conv2d",
            ("m", "w1"),
            "b",
            {**PLAIN, "padding": (0, 0, 1, 0), "groups": 2, "padding_value": -1},
        ),
        Node("to_float", ("b",), "c"),
        Node("f32_binary_conv2d", ("c", "w2"), "d", PLAIN),
        Node("f32_conv2d", ("d", "w3"), "e", {**PLAIN, "stride": (2, 1)}),
        Node("concat", ("f", "g"), "fg"),
        Node("abs", ("fg",), "k"),
        Node("channel_mean", ("k",), "mean"),
        Node("avg_pool2d", ("mean",), "box", {**pool, "padding": (0, 1, 0, 0), "count_include_pad": 0}),
        Node("avg_pool2d", ("mean",), "all", {**pool, "padding": (0, 1, 0, 0), "count_include_pad": 1}),
        Node("concat", ("box", "all"), "both"),
        Node("mul", ("both", "box"), "y"),
    )
    shapes = {
        "image": (DType.U8, 2, 2, 3), "x": (DType.U8, 2, 3, 2), "a": (DType.I32, 2, 3, 1),
        "f": (DType.F32, 2, 3, 1), "g": (DType.F32, 2, 3, 1), "h": (DType.BITS, 2, 3, 1),
        "hh": (DType.BITS, 2, 3, 2), "m": (DType.BITS, 2, 2, 2), "b": (DType.I32, 2, 2, 2),
        "c": (DType.F32, 2, 2, 2), "d": (DType.F32, 2, 2, 1), "e": (DType.F32, 1, 2, 1),
        "fg": (DType.F32, 2, 3, 2), "k": (DType.F32, 2, 3, 2), "mean": (DType.F32, 2, 3, 1),
        "box": (DType.F32, 2, 2, 1), "all": (DType.F32, 2, 2, 1), "both": (DType.F32, 2, 2, 2),
        "y": (DType.F32, 2, 2, 2),
    }  # fmt: skip
    values = {name: TensorType(dtype, tuple(shape)) for name, (dtype, *shape) in shapes.items()}
    return Program(("image",), ("e", "y"), nodes, constants, values, {"note": "golden"})


def test_save_writes_exactly_the_golden_bytes(tmp_path: Path) -> None:
    save(program(), tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize("file", [OLD, GOLDEN], ids=lambda file: file.stem)
def test_the_golden_file_still_means_the_same(file: Path) -> None:
    loaded = load(file)
    assert loaded.nodes == program().nodes
    x = np.array([[[[9, 0, 0], [0, 0, 9]], [[0, 1, 2], [2, 0, 0]]]], np.uint8)
    got = {name: array[0].tolist() for name, array in execute(loaded, x, keep="all").items()}
    assert got["x"] == [[[9, 0], [0, 1], [0, 2]], [[0, 2], [0, 0], [9, 0]]]
    # Each x − 3: first minus second channel at the left tap, both at the right one; nothing left of column 0.
    assert got["a"] == [[[3], [4], [-5]], [[-4], [-8], [3]]]
    assert got["h"] == [[[1], [1], [-1]], [[-1], [-1], [1]]]
    assert got["m"] == [[[1, 1], [1, 1]], [[-1, -1], [1, 1]]]
    # −1 stands left of column 0.
    assert got["b"] == [[[0, 2], [2, 0]], [[-2, 0], [0, 2]]]
    assert got["d"] == [[[2.0], [-2.0]], [[2.0], [2.0]]]
    assert got["e"] == [[[1.0], [-1.0]]]
    assert got["mean"] == [[[2.75], [3.75], [5.25]], [[4.25], [8.25], [2.75]]]
    assert got["box"] == [[[4.75], [5.0]], [[6.25], [5.5]]]
    assert got["all"] == [[[4.75], [5.0]], [[3.125], [2.75]]]
    assert got["y"] == [[[22.5625, 22.5625], [25.0, 25.0]], [[39.0625, 19.53125], [30.25, 15.125]]]
