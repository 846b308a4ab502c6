"""Runs the C benchmark programs that `make bench` builds, and reads the JSON lines they print."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "build" / "bench"
OUT = ROOT / "benchmarks" / "out"

Row = dict[str, Any]


def run(family: str, *arguments: str) -> list[Row]:
    """The rows that bench_<family> prints."""
    program = PROGRAMS / f"bench_{family}"
    if not program.exists():
        raise SystemExit(f"{program.relative_to(ROOT)} is not built; run `make bench`")
    done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def machine(family: str) -> Row:
    """The first row that bench_<family> prints, the machine's bounds; the rest is not waited for."""
    program = PROGRAMS / f"bench_{family}"
    if not program.exists():
        raise SystemExit(f"{program.relative_to(ROOT)} is not built; run `make bench`")
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as running:
        first = running.stdout.readline() if running.stdout else ""
        running.kill()
    row: Row = json.loads(first)
    return row


def medians(rounds: list[list[Row]]) -> list[Row]:
    """Row by row, the median of every figure over several runs of the same program."""
    return [
        {
            key: median(row[key] for row in same) if isinstance(value, float) else value
            for key, value in same[0].items()
        }
        for same in zip(*rounds, strict=True)
    ]


def find(rows: list[Row], **wanted: Any) -> Row:
    """The one row with these fields."""
    return next(row for row in rows if all(row.get(key) == value for key, value in wanted.items()))


def save(name: str, rows: list[Row]) -> None:
    """Keep the figures beside the plots, for whoever wants to look closer."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
