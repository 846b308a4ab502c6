"""What is 1-bit in a Program, what is not and why; true bytes on disk; multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onebit.program.file_format import file_size
from onebit.program.graph import Graph, Node
from onebit.program.ops import MacKind
from onebit.program.tensors import DType
from onebit.program.verify import verify


@dataclass(frozen=True)
class Row:
    """One node. Bytes are those its constants take in the file (a shared one counts where first used)."""

    layer: str
    op: str
    geometry: str  # e.g. "3×3 stride 2×2 padding 1"; "" where the op has no windows
    inputs: str
    output: str
    weights: str  # "1-bit", "float32", or "" where the op has no weight matrix
    stored_bytes: int
    float32_bytes: int  # the same, with the weight matrix in float32
    macs_1bit: int  # of one sample
    macs_other: int  # of one sample
    why_not_1bit: str  # "" where it is 1-bit


@dataclass(frozen=True)
class Summary:
    """The table that `onebit inspect` prints. `str()` is for people, `to_dict()` for programs."""

    rows: tuple[Row, ...]
    file_bytes: int  # the exact size of the file, header included
    header_bytes: int
    float32_bytes: int  # constants, with every weight matrix in float32
    macs_1bit: int
    macs_other: int

    @property
    def ratio_to_float32(self) -> float:
        """Bytes with float32 weight matrices (no header) over bytes of the file (with it)."""
        return self.float32_bytes / self.file_bytes

    @property
    def share_1bit(self) -> float:
        """Fraction of the multiply-accumulates that are 1-bit; 0 where there are none."""
        total = self.macs_1bit + self.macs_other
        return self.macs_1bit / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON."""
        return {**asdict(self), "ratio_to_float32": self.ratio_to_float32, "share_1bit": self.share_1bit}

    def __str__(self) -> str:
        return _render(self)


def summarize(program: Graph) -> Summary:
    """Measure a verified program, node by node. Raises ProgramError for a broken one."""
    verify(program)
    seen: set[str] = set()
    rows = tuple(_row(program, node, seen) for node in program.nodes)
    stored = sum(row.stored_bytes for row in rows)
    size = file_size(program)
    return Summary(
        rows=rows,
        file_bytes=size,
        header_bytes=size - stored,
        float32_bytes=sum(row.float32_bytes for row in rows),
        macs_1bit=sum(row.macs_1bit for row in rows),
        macs_other=sum(row.macs_other for row in rows),
    )


def _row(program: Graph, node: Node, seen: set[str]) -> Row:
    op, call = node.facts, program.call_of(node)
    types = call.types
    stored = float32 = 0
    weights = ""
    for operand, name, type_ in zip(op.operands_for(len(types)), node.inputs, types, strict=True):
        if operand.weights:
            weights = "1-bit" if type_.dtype is DType.BITS else "float32"
        if name in program.constants and name not in seen:
            seen.add(name)
            stored += type_.nbytes
            float32 += 4 * type_.elements if operand.weights else type_.nbytes
    macs = op.macs(call)
    one_bit = op.product is not None and op.product.kind is MacKind.ONE_BIT
    return Row(
        layer=node.layer,
        op=node.op,
        geometry=op.geometry(call),
        inputs=", ".join(str(t) for t, constant in zip(types, call.constant, strict=True) if not constant),
        output=str(program.values[node.output]),
        weights=weights,
        stored_bytes=stored,
        float32_bytes=float32,
        macs_1bit=macs if one_bit else 0,
        macs_other=0 if one_bit else macs,
        why_not_1bit=op.reason(call),
    )


_COLUMNS = ("layer", "op", "input", "output", "weights", "bytes", "1-bit MACs", "other MACs", "why not 1-bit")
_RIGHT = {"bytes", "1-bit MACs", "other MACs"}


def _render(summary: Summary) -> str:
    def count(number: int) -> str:
        return f"{number:,}" if number else "–"

    lines = [_COLUMNS]
    for row in summary.rows:
        counts = (count(row.stored_bytes), count(row.macs_1bit), count(row.macs_other))
        name = f"{row.op} {row.geometry}".rstrip()
        lines.append(
            (row.layer or "–", name, row.inputs, row.output, row.weights or "–", *counts, row.why_not_1bit)
        )
    text = _align(lines)
    total = summary.macs_1bit + summary.macs_other
    return "\n".join(
        [
            *text,
            "",
            f"file      {summary.file_bytes:,} bytes, {summary.header_bytes:,} of them header and graph",
            f"float32   {summary.float32_bytes:,} bytes with float32 weights, "
            f"{summary.ratio_to_float32:.1f} × the file",
            f"MACs      {total:,} a sample, {summary.macs_1bit:,} of them 1-bit ({summary.share_1bit:.1%})",
        ]
    )


def _align(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    text = []
    for line in lines:
        cells = zip(_COLUMNS, line, widths, strict=True)
        padded = [cell.rjust(width) if name in _RIGHT else cell.ljust(width) for name, cell, width in cells]
        text.append("  ".join(padded).rstrip())
    text.insert(1, "  ".join("─" * width for width in widths))
    return text
