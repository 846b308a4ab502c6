"""docs/program-format.md says what the code does: op table, limits, and the example that reads a file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onebit
from onebit.program import OPS, DType, Node, Program, limits, load, save
from program_samples import bits_constant, bytes_mlp, i32, u8
from support import ROOT

PAGE = (ROOT / "docs" / "program-format.md").read_text(encoding="utf-8")


def op_table() -> str:
    """The table as the page must hold it; run this file to print it."""
    rows = ["| op | definition |", "|---|---|"]
    for op in OPS.values():
        assert op.version == 1, "give the table a column for versions"
        rows.append(f"| `{op.name}` | {op.definition.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def test_the_op_table_is_that_of_the_code() -> None:
    found = re.search(r"<!-- ops: .*? -->\n(.*?)\n<!-- end of ops -->", PAGE, re.DOTALL)
    assert found is not None
    assert found[1] == op_table(), "update the page: PYTHONPATH=tests python tests/unit/test_program_docs.py"


def test_the_limits_are_those_of_the_code() -> None:
    for text, value in (
        ("| header | 4 MiB |", limits.MAX_HEADER_BYTES == 4 * 2**20),
        ("| nodes | 10,000 |", limits.MAX_NODES == 10_000),
        ("| constants; values | 50,000 each |", limits.MAX_TENSORS == 50_000),
        ("| rank | 8 |", limits.MAX_RANK == 8),
        ("| one size | 2^31 − 1 |", limits.MAX_DIMENSION == 2**31 - 1),
        ("| elements of a value, one sample | 2^31 − 1 |", limits.MAX_VALUE_ELEMENTS == 2**31 - 1),
        ("| bytes of a constant | 2^40 |", limits.MAX_CONSTANT_BYTES == 2**40),
        ("| name | 256 characters |", limits.MAX_NAME == 256),
        ("more than 16 levels (recursion) or 250,000 lists", limits.MAX_JSON_DEPTH == 16),
        ("or 250,000 lists and objects", limits.MAX_JSON_CONTAINERS == 250_000),
    ):
        assert text in PAGE
        assert value, text


def test_every_type_is_in_the_table() -> None:
    for dtype in DType:
        assert f"| `{dtype.value}` |" in PAGE


def test_the_json_example_is_a_graph(tmp_path: Path) -> None:
    found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    node = Node("u8_gemm", ("x", "w"), "y", {"multiplier": 2, "offset": -255}, "fc")
    constants = {"w": bits_constant(np.ones((10, 784)))}
    program = Program(("x",), ("y",), (node,), constants, {"x": u8(784), "y": i32(10)})
    save(program, tmp_path / "p")
    raw = (tmp_path / "p").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["onebit"]) == json.loads(found[1])


@pytest.mark.parametrize(
    "source",
    ["bytes_mlp", "program_v1", "program_v2", "conv_v1", "conv_v2", "bnn_convnet_svhn", "resnet18_xnor"],
)
def test_the_python_example_reads_a_file(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any file: one made by hand, the golden ones, converted networks with convolutions and real layers."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    if source == "bytes_mlp":
        save(bytes_mlp(70, 33, 3), "mnist.onebit")
    elif source.endswith(("_v1", "_v2")):
        shutil.copy(ROOT / "tests" / "golden" / f"{source}.safetensors", "mnist.onebit")
    else:
        models = pytest.importorskip("onebit.models")
        model = models.create_small(source).eval()
        onebit.convert(model, models.example_input(model)).save("mnist.onebit")
    names: dict[str, Any] = {}
    exec(found[1], names)
    program = load("mnist.onebit")
    assert names["constants"].keys() == program.constants.keys()
    assert any(constant.type.dtype is DType.BITS for constant in program.constants.values())
    for name, constant in program.constants.items():
        read = names["constants"][name]
        if constant.type.dtype is DType.BITS:
            words = constant.array.reshape(-1, constant.array.shape[-1])
            channels = range(constant.type.shape[-1])
            ones = [[1 if int(row[c // 32]) >> c % 32 & 1 else -1 for c in channels] for row in words]
            assert read.reshape(len(words), -1).tolist() == ones
        else:
            assert np.array_equal(read, constant.array)
        assert read.shape == constant.type.shape
    printed = capsys.readouterr().out
    for node in program.nodes:
        assert f"{node.layer} {node.op} {list(node.inputs)} -> {node.output} " in printed


if __name__ == "__main__":
    print(op_table())
