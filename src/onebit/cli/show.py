"""How the commands print: tables, sizes, times, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str] | None = None) -> str:
    """Rows of text in aligned columns: the first to the left, the others to the right."""
    every = [list(header), *map(list, rows)] if header else [list(row) for row in rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    lines = []
    for row in every:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    if header:
        lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def number(value: float) -> str:
    """Three significant digits or, from 1,000 on, a whole number with commas."""
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def size(nbytes: int) -> str:
    """Bytes as a reader wants them: `512 B`, `36.4 kB`, `147 MB` (powers of 1000)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{number(nbytes / scale)} {unit}"
    return f"{nbytes} B"


def microseconds(seconds: float) -> str:
    """`7.40 µs`."""
    return f"{number(seconds * 1e6)} µs"


def print_json(document: Any) -> None:
    """One JSON document on stdout, for a program to read."""
    json.dump(document, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
