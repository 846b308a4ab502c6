"""`program_v1` and `program_v2.safetensors`: one Program, in each format version; bytes and meaning stay.

If this fails, either a change broke every file that users hold, or the format changed on purpose: then the
format version rises, these files stay readable, and another golden file joins them.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from onebit.program import Constant, DType, Node, Program, TensorType, execute, load, save, stored_checksum

OLD = Path(__file__).with_name("program_v1.safetensors")
GOLDEN = Path(__file__).with_name("program_v2.safetensors")
CHECKSUM = "aa8c4ec3"

HEADS = {
    OLD: '{"format":"onebit","format_version":1,',
    GOLDEN: '{"format":"onebit","format_version":2,"checksum":"' + CHECKSUM + '",',
}
GRAPH = (
    '"inputs":[{"name":"x","dtype":"u8","shape":[2,2]}],"outputs":["y","h"],'
    '"constants":{"flip":{"dtype":"bits","shape":[3]},"scale":{"dtype":"f32","shape":[2]},'
    '"shift":{"dtype":"f32","shape":[2]},"t":{"dtype":"i32","shape":[3]},'
    '"w0":{"dtype":"bits","shape":[3,4]},"w1":{"dtype":"bits","shape":[2,3]}},'
    '"nodes":['
    '{"op":"reshape","version":1,"inputs":["x"],"output":"r","dtype":"u8","shape":[4],"attrs":{"shape":[4]},'
    '"layer":"flatten"},'
    '{"op":"u8_gemm","version":1,"inputs":["r","w0"],"output":"a","dtype":"i32","shape":[3],'
    '"attrs":{"multiplier":2,"offset":-255},"layer":"fc0"},'
    '{"op":"threshold","version":1,"inputs":["a","t","flip"],"output":"h","dtype":"bits","shape":[3],'
    '"attrs":{},"layer":"bn0"},'
    '{"op":"binary_gemm","version":1,"inputs":["h","w1"],"output":"b","dtype":"i32","shape":[2],'
    '"attrs":{},"layer":"fc1"},'
    '{"op":"to_float","version":1,"inputs":["b"],"output":"f","dtype":"f32","shape":[2],"attrs":{},"layer":""},'
    '{"op":"affine","version":1,"inputs":["f","scale","shift"],"output":"g","dtype":"f32","shape":[2],'
    '"attrs":{},"layer":"bn1"},'
    '{"op":"hardtanh","version":1,"inputs":["g"],"output":"y","dtype":"f32","shape":[2],'
    '"attrs":{"max":1.5,"min":-1.5},"layer":""}],'
    '"metadata":{"note":"golden"}}'
)


def program() -> Program:
    def packed(words: object, *shape: int) -> Constant:
        return Constant(TensorType(DType.BITS, shape), np.array(words, np.uint32))

    def floats(*values: float) -> Constant:
        return Constant(TensorType(DType.F32, (len(values),)), np.array(values, np.float32))

    constants = {
        "w0": packed([[0b1111], [0b0101], [0b0000]], 3, 4),
        "t": Constant(TensorType(DType.I32, (3,)), np.array([0, 1, -(2**31)], np.int32)),
        "flip": packed([0b100], 3),
        "w1": packed([[0b111], [0b001]], 2, 3),
        "scale": floats(0.5, -0.25),
        "shift": floats(0.125, 1.0),
    }
    nodes = (
        Node("reshape", ("x",), "r", {"shape": (4,)}, "flatten"),
        Node("u8_gemm", ("r", "w0"), "a", {"multiplier": 2, "offset": -255}, "fc0"),
        Node("threshold", ("a", "t", "flip"), "h", layer="bn0"),
        Node("binary_gemm", ("h", "w1"), "b", layer="fc1"),
        Node("to_float", ("b",), "f"),
        Node("affine", ("f", "scale", "shift"), "g", layer="bn1"),
        Node("hardtanh", ("g",), "y", {"min": -1.5, "max": 1.5}),
    )
    shapes = {
        "x": (DType.U8, 2, 2),
        "r": (DType.U8, 4),
        "a": (DType.I32, 3),
        "h": (DType.BITS, 3),
        "b": (DType.I32, 2),
        "f": (DType.F32, 2),
        "g": (DType.F32, 2),
        "y": (DType.F32, 2),
    }
    values = {name: TensorType(dtype, tuple(shape)) for name, (dtype, *shape) in shapes.items()}
    return Program(("x",), ("y", "h"), nodes, constants, values, {"note": "golden"})


def test_save_writes_exactly_the_golden_bytes(tmp_path: Path) -> None:
    save(program(), tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize("file", HEADS, ids=lambda file: file.stem)
def test_the_golden_bytes_are_what_the_format_says(file: Path) -> None:
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = raw[8 : 8 + length].decode("ascii"), raw[8 + length :]
    escaped = (HEADS[file] + GRAPH).replace('"', '\\"')
    assert header.rstrip(" ") == (
        '{"__metadata__":{"onebit":"' + escaped + '"},'
        '"flip":{"dtype":"U32","shape":[1],"data_offsets":[0,4]},'
        '"scale":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},'
        '"shift":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},'
        '"t":{"dtype":"I32","shape":[3],"data_offsets":[20,32]},'
        '"w0":{"dtype":"U32","shape":[3,1],"data_offsets":[32,44]},'
        '"w1":{"dtype":"U32","shape":[2,1],"data_offsets":[44,52]}}'
    )
    assert data.hex() == (
        "04000000"  # flip: the third channel
        "0000003f000080be"  # 0.5, -0.25
        "0000003e0000803f"  # 0.125, 1.0
        "000000000100000000000080"  # 0, 1, -2^31
        "0f0000000500000000000000"
        "0700000001000000"
    )


def test_the_checksum_is_the_crc_32_of_the_file_with_zeros_in_its_place() -> None:
    raw = GOLDEN.read_bytes()
    assert raw.count(CHECKSUM.encode()) == 1
    assert zlib.crc32(raw.replace(CHECKSUM.encode(), b"00000000")) == int(CHECKSUM, 16)


@pytest.mark.parametrize("file", HEADS, ids=lambda file: file.stem)
def test_the_golden_file_still_means_the_same(file: Path) -> None:
    loaded = load(file)
    assert stored_checksum(file) == (None if file == OLD else CHECKSUM)
    assert loaded.nodes == program().nodes
    assert loaded.values == dict(program().values)
    x = np.array([[[255, 0], [255, 0]], [[1, 2], [3, 4]]], np.uint8)
    got = execute(loaded, x, keep=["a", "b"])
    # 2x − 255 is 255, −255, 255, −255 in the first sample and −253, −251, −249, −247 in the second.
    assert got["a"].tolist() == [[0, 1020, 0], [-1000, -4, 1000]]
    assert got["h"].tolist() == [[1, 1, -1], [-1, -1, -1]]
    assert got["b"].tolist() == [[1, 1], [-3, 1]]
    assert got["y"].tolist() == [[0.625, 0.75], [-1.375, 0.75]]
