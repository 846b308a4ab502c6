"""The summary: which weights and multiply-accumulates are 1-bit, and bytes that are true."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onebit.program import Node, Program, ProgramError, file_size, save, summarize
from program_samples import bits, bytes_mlp, conv_zoo, f32, float_zoo, one_op, u8


@pytest.mark.parametrize(
    "program", [bytes_mlp(), bytes_mlp(1, 1, 1), bytes_mlp(511, 65, 10), float_zoo(), conv_zoo()]
)
def test_file_bytes_are_what_save_writes(program: Program, tmp_path: Path) -> None:
    save(program, tmp_path / "p.onebit")
    summary = summarize(program)
    assert summary.file_bytes == file_size(program) == (tmp_path / "p.onebit").stat().st_size
    assert summary.header_bytes + sum(row.stored_bytes for row in summary.rows) == summary.file_bytes


def test_rows_of_a_bytes_network() -> None:
    summary = summarize(bytes_mlp(70, 33, 3))
    first, threshold, hidden, to_float, affine = summary.rows
    assert (first.op, first.layer, first.inputs, first.output) == ("u8_gemm", "fc0", "u8[70]", "i32[33]")
    assert (first.weights, first.stored_bytes, first.float32_bytes) == ("1-bit", 33 * 3 * 4, 33 * 70 * 4)
    assert (first.macs_1bit, first.macs_other) == (0, 33 * 70)
    assert "8-bit" in first.why_not_1bit
    assert (threshold.stored_bytes, threshold.float32_bytes) == (33 * 4 + 8, 33 * 4 + 8)
    assert (threshold.weights, threshold.why_not_1bit) == ("", "")
    assert (hidden.macs_1bit, hidden.macs_other, hidden.why_not_1bit) == (3 * 33, 0, "")
    assert (affine.stored_bytes, to_float.stored_bytes) == (24, 0)
    assert (summary.macs_1bit, summary.macs_other) == (99, 2310)
    assert summary.share_1bit == 99 / 2409
    total = 33 * 70 * 4 + 3 * 33 * 4 + 140 + 24
    assert summary.float32_bytes == total
    assert summary.ratio_to_float32 == total / summary.file_bytes


def test_a_float_network_is_called_that() -> None:
    rows = {row.op: row for row in summarize(float_zoo()).rows}
    assert rows["f32_gemm"].weights == "float32"
    assert "ordinary Linear" in rows["f32_gemm"].why_not_1bit
    assert rows["f32_binary_gemm"].weights == "1-bit"
    assert "float32, not bits" in rows["f32_binary_gemm"].why_not_1bit
    assert rows["f32_gemm"].macs_other == 24
    assert rows["sign"].why_not_1bit == ""


def test_rows_of_a_convolutional_network_show_the_geometry() -> None:
    program = conv_zoo()
    rows = {row.op: row for row in summarize(program).rows}
    binary = rows["binary_conv2d"]
    assert binary.geometry == "2×2 padding 1 of -1s groups 2"
    assert (binary.weights, binary.stored_bytes, binary.float32_bytes) == ("1-bit", 6 * 4 * 4, 6 * 8 * 4)
    assert (binary.macs_1bit, binary.macs_other, binary.why_not_1bit) == (36 * 6 * 8, 0, "")
    assert rows["u8_conv2d"].geometry == "3×3 padding 1"
    assert (rows["u8_conv2d"].macs_other, rows["u8_conv2d"].macs_1bit) == (25 * 4 * 18, 0)
    assert "8-bit" in rows["u8_conv2d"].why_not_1bit
    assert rows["f32_binary_conv2d"].geometry == "3×1 dilation 2×1 padding 1"
    assert rows["f32_binary_conv2d"].macs_other == 32 * 3 * 18
    assert rows["f32_conv2d"].geometry == "1×1 stride 2×1 padding 1 groups 3"
    assert (rows["f32_conv2d"].weights, rows["f32_conv2d"].macs_other) == ("float32", 30 * 3)
    assert "ordinary convolution" in rows["f32_conv2d"].why_not_1bit
    assert rows["max_pool2d"].geometry == rows["avg_pool2d"].geometry == "2×2 padding 1,0,0,1"
    assert rows["max_pool2d"].why_not_1bit == ""
    assert "float32" in rows["avg_pool2d"].why_not_1bit
    assert rows["concat"].geometry == rows["threshold"].geometry == ""
    assert "  binary_conv2d 2×2 padding 1 of -1s groups 2  " in program.summary()


@pytest.mark.parametrize(("type_", "reason"), [(bits, ""), (u8, "u8"), (f32, "f32, not bits")])
def test_a_max_pool_is_1_bit_on_bits_only(type_: Any, reason: str) -> None:
    attrs = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    (row,) = summarize(one_op("max_pool2d", {"x": type_(4, 4, 3)}, {}, type_(2, 2, 3), **attrs)).rows
    assert (row.geometry, row.macs_1bit, row.macs_other) == ("2×2 stride 2×2", 0, 0)
    assert row.why_not_1bit == "" if reason == "" else reason in row.why_not_1bit


def test_a_shared_constant_counts_once() -> None:
    program = bytes_mlp()
    again = Node("affine", ("y", "scale", "shift"), "z")
    program = replace(program, nodes=(*program.nodes, again), values={**program.values, "z": f32(3)})
    assert [row.stored_bytes for row in summarize(program).rows][-2:] == [24, 0]


def test_text_names_every_layer_and_total() -> None:
    text = bytes_mlp().summary()
    for part in ("fc0", "bn0", "binary_gemm", "2,310", "its input is 8-bit", "99 of them 1-bit (4.1%)"):
        assert part in text, text
    lines = text.splitlines()
    edge = lines[0].index("bytes") + len("bytes")
    assert lines[2][:edge].endswith(" 396")
    assert all(line == line.rstrip() for line in lines)


def test_repr_is_one_line_of_names_and_types() -> None:
    program = bytes_mlp(70, 33, 3)
    nodes = len(program.nodes)
    (given,), (scores,) = program.inputs, program.outputs
    assert repr(program) == f"Program({given} u8[70] → {scores} f32[3], {nodes} nodes)"
    assert "nothing ?" in repr(program.with_outputs("nothing"))  # a broken one can be printed too


def test_to_dict_is_json() -> None:
    summary = summarize(bytes_mlp())
    back = json.loads(json.dumps(summary.to_dict()))
    assert back["file_bytes"] == summary.file_bytes
    assert back["rows"][0]["layer"] == "fc0"
    assert back["ratio_to_float32"] == summary.ratio_to_float32


def test_a_broken_program_has_no_summary() -> None:
    with pytest.raises(ProgramError, match="an output exists"):
        summarize(bytes_mlp().with_outputs("ghost"))
