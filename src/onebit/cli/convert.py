"""Pack a run's best model into a .onebit file.

onebit convert runs/bnn-digits -o digits.onebit
"""

from __future__ import annotations

import argparse

from onebit.cli.errors import writable_file
from onebit.cli.runs import existing_run
from onebit.cli.show import number, print_json, size

HELP = "pack a trained run into a .onebit file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("run", metavar="RUN", help="a run folder that `onebit train` made")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the file to write (default: RUN/model.onebit)"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    """Load the model, lower it, save it."""
    folder = existing_run(args.run)
    target = writable_file("-o", args.output or str(folder / "model.onebit"), example="model.onebit")
    from onebit.cli.runs import convert_run
    from onebit.program import summarize

    _, program = convert_run(folder)
    program.save(target)
    summary = summarize(program)
    if args.json:
        print_json({"file": str(target), "summary": summary.to_dict()})
        return 0
    print(
        f"{target}: {size(summary.file_bytes)}, {number(summary.ratio_to_float32)} × less than in float32; "
        f"{summary.share_1bit:.1%} of its multiply-accumulates are 1-bit"
    )
    print(f"next: onebit inspect {target}, onebit eval {args.run} {target}, onebit bench {target}")
    return 0
