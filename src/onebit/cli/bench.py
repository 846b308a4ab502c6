"""Time a .onebit file here, beside the same network in PyTorch and ONNX Runtime where they are installed.

Inputs are random; every contender gets the same batch and the same number of threads, in interleaved rounds;
times are medians. The peers get what helps them: BatchNorm and thresholds folded into their weights, and
pixels already converted to float32.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import existing_file
from onebit.cli.options import add_threads, batch_sizes, positive
from onebit.cli.show import microseconds, number, print_json, size, table

if TYPE_CHECKING:
    from onebit.bench import Report

HELP = "time a .onebit file beside PyTorch and ONNX Runtime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("file", metavar="FILE", help="a .onebit file")
    parser.add_argument(
        "--batch", type=batch_sizes, default=[1, 256], metavar="N[,N…]", help="batch sizes (default: 1,256)"
    )
    parser.add_argument(
        "--rounds", type=positive, default=7, metavar="N", help="rounds to take the median of"
    )
    parser.add_argument("--no-peers", action="store_true", help="time this engine alone")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Load, time at each batch size, print."""
    path = existing_file(args.file, what="a .onebit file", suffix=".onebit")
    from onebit.bench import ENGINE, PEERS, bench_program, describe_machine, package_versions
    from onebit.program import load

    program = load(path)
    reports = []
    for batch in args.batch:
        report = bench_program(
            program,
            batch=batch,
            threads=args.threads,
            rounds=args.rounds,
            peers=() if args.no_peers else PEERS,
        )
        report.bytes_of[ENGINE] = path.stat().st_size
        reports.append(report)
    machine, versions = describe_machine(), package_versions()
    if args.json:
        print_json({"machine": machine, "versions": versions, "results": [_as_dict(r) for r in reports]})
        return 0
    print(f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}")
    print(", ".join(f"{name} {version}" for name, version in versions.items() if version))
    for report in reports:
        print(f"\nbatch {report.batch}, {report.threads} thread{'s' if report.threads > 1 else ''}")
        print(_table(report))
    return 0


def _table(report: Report) -> str:
    rows = []
    for result in report.results:
        nbytes = report.bytes_of.get(result.name)
        differ = report.disagreeing.get(result.name)
        rows.append(
            (
                result.name,
                microseconds(result.seconds / report.batch),
                microseconds(result.fastest / report.batch),
                f"{number(report.speedup(result.name))} ×",
                size(nbytes) if nbytes else "–",
                "–" if differ is None else f"{differ} of {report.batch}",
            )
        )
    header = ("", "an image", "fastest", "takes", "file", "other class")
    lines = [table(rows, header=header)]
    lines += [f"{name}: left out, {why}" for name, why in report.left_out.items()]
    slower = [result.name for result in report.results if report.speedup(result.name) < 1]
    if slower:
        lines.append(f"The packed network is not the fastest here: {', '.join(slower)} took less time.")
    return "\n".join(lines)


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "batch": report.batch,
        "threads": report.threads,
        "left_out": report.left_out,
        "contenders": [
            {
                "name": result.name,
                "seconds_an_image": result.seconds / report.batch,
                "fastest_seconds_an_image": result.fastest / report.batch,
                "times_onebit": report.speedup(result.name),
                "bytes": report.bytes_of.get(result.name),
                "other_class": report.disagreeing.get(result.name),
            }
            for result in report.results
        ],
    }
