"""Show what a .onebit file holds: layer by layer what is 1-bit, what is not and why; bytes; MACs."""

from __future__ import annotations

import argparse
from textwrap import fill
from typing import TYPE_CHECKING

from onebit.cli.errors import existing_file
from onebit.cli.show import number, print_json, table

if TYPE_CHECKING:
    from onebit.program import Energy

HELP = "show what is 1-bit in a .onebit file, what is not, and why"

NO_CHECKSUM = "none: an older onebit wrote this file, so damage to its weights would not be noticed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("file", metavar="FILE", help="a .onebit file")
    parser.add_argument(
        "--energy", action="store_true", help="estimate the energy of an inference from the BNN paper's table"
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Load, verify, summarize."""
    path = existing_file(args.file, what="a .onebit file", suffix=".onebit")
    from onebit.program import estimate_energy, load, stored_checksum, summarize

    program = load(path)
    checksum = stored_checksum(path)
    summary = summarize(program)
    types = {
        kind: {name: str(program.type_of(name)) for name in names}
        for kind, names in (("inputs", program.inputs), ("outputs", program.outputs))
    }
    energy = estimate_energy(program) if args.energy else None
    if args.json:
        document = {
            "file": str(path),
            **types,
            "metadata": dict(program.metadata),
            "checksum": checksum,
            "summary": summary.to_dict(),
        }
        print_json({**document, "energy": energy.to_dict()} if energy else document)
        return 0
    for kind, values in types.items():
        print(f"{kind:9} {', '.join(f'{name} {kind_}' for name, kind_ in values.items())}")
    for key, value in program.metadata.items():
        if isinstance(value, str):
            print(f"{key:9} {value}")
    if program.classes:
        named = ", ".join(f"{number} {name}" for number, name in enumerate(program.classes))
        print(fill(named, 80, initial_indent="classes   ", subsequent_indent=10 * " "))
    print(f"{'checksum':9} {checksum or NO_CHECKSUM}")
    print(f"\n{summary}")
    if energy:
        print(f"\n{_energy_table(energy)}")
    return 0


def _energy_table(energy: Energy) -> str:
    parts = ("arithmetic", "weights", "activations", "total")
    scale, unit = (1e-6, "µJ") if energy.packed.total >= 1e6 else (1e-3, "nJ")  # from pJ
    rows = []
    for part in parts:
        packed, float32 = getattr(energy.packed, part), getattr(energy.float32, part)
        times = f"{number(float32 / packed)} ×" if packed else "–"
        rows.append((part, f"{number(packed * scale)} {unit}", f"{number(float32 * scale)} {unit}", times))
    note = (
        "Estimated for a 45 nm process from the table in arXiv 1602.02830; not a measurement of this machine."
    )
    return f"{table(rows, header=('energy of an inference', 'packed', 'float32', 'saved'))}\n{note}"
