"""Show what a .onebit file holds: layer by layer what is 1-bit, what is not and why; bytes; MACs."""

from __future__ import annotations

import argparse

from onebit.cli.errors import existing_file
from onebit.cli.show import print_json

HELP = "show what is 1-bit in a .onebit file, what is not, and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("file", metavar="FILE", help="a .onebit file")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Load, verify, summarize."""
    path = existing_file(args.file, what="a .onebit file", suffix=".onebit")
    from onebit.program import load, summarize

    program = load(path)
    summary = summarize(program)
    types = {
        kind: {name: str(program.type_of(name)) for name in names}
        for kind, names in (("inputs", program.inputs), ("outputs", program.outputs))
    }
    if args.json:
        print_json(
            {"file": str(path), **types, "metadata": dict(program.metadata), "summary": summary.to_dict()}
        )
        return 0
    for kind, values in types.items():
        print(f"{kind:9} {', '.join(f'{name} {kind_}' for name, kind_ in values.items())}")
    for key, value in program.metadata.items():
        print(f"{key:9} {value}")
    print(f"\n{summary}")
    return 0
