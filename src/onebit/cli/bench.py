"""Time a network here, beside the same network in PyTorch and ONNX Runtime where they are installed.

  onebit bench digits.onebit            a packed file
  onebit bench runs/bnn-digits          a run folder, packed on the fly
  onebit bench quicknet --profile       a registered model with random weights, and where its time goes

Inputs are random; every contender gets the same batch and the same number of threads, in interleaved rounds;
times are medians. The peers get what helps them: BatchNorm, scales and thresholds folded into their weights,
images channels first, pixels already converted to float32 and scaled, and of the forms that a peer offers
(memory formats, quantized forms) the one that is fastest here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError, did_you_mean
from onebit.cli.options import add_threads, batch_sizes, positive
from onebit.cli.runs import read_program
from onebit.cli.show import microseconds, number, print_json, size, table

if TYPE_CHECKING:
    from onebit.bench import BenchReport, Spending
    from onebit.program import Program

HELP = "time a network beside PyTorch and ONNX Runtime"

_MANY_MACS = 20_000_000  # a sample; beyond, a batch of 256 takes a float peer seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "what", metavar="WHAT", help="a .onebit file, a run folder, or the name of a registered model"
    )
    parser.add_argument(
        "--batch",
        type=batch_sizes,
        metavar="N[,N…]",
        help="batch sizes (default: 1,256; 1 for a network of more than 20 million MACs)",
    )
    parser.add_argument(
        "--rounds", type=positive, default=7, metavar="N", help="rounds to take the median of"
    )
    parser.add_argument("--no-peers", action="store_true", help="time this engine alone")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="time of each op, GMAC/s, and share of the rate of this engine's best product of its kind here",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Load, time at each batch size, print."""
    program = _program(args.what)
    from onebit.bench import (
        ENGINE,
        PEERS,
        bench_program,
        describe_machine,
        explain,
        package_versions,
        spend,
    )
    from onebit.program import summarize
    from onebit.runtime import choose_isa, measure_peaks

    summary = summarize(program)
    heavy = summary.macs_1bit + summary.macs_other > _MANY_MACS
    results: list[tuple[BenchReport, list[Spending]]] = []
    for batch in args.batch or ([1] if heavy else [1, 256]):
        report = bench_program(
            program,
            batch=batch,
            threads=args.threads,
            rounds=args.rounds,
            peers=() if args.no_peers else PEERS,
        )
        report.bytes_of[ENGINE] = summary.file_bytes
        results.append((report, spend(program, batch=batch, threads=args.threads)))
    machine, versions = describe_machine(), package_versions()
    if args.json:
        found = [_as_dict(report, ops if args.profile else []) for report, ops in results]
        peaks = measure_peaks(choose_isa(None), args.threads)
        print_json(
            {"machine": machine, "versions": versions, "attainable_peaks_gmacs": peaks, "results": found}
        )
        return 0
    print(f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}")
    print(", ".join(f"{name} {version}" for name, version in versions.items() if version))
    for report, ops in results:
        print(f"\nbatch {report.batch}, {report.threads} thread{'s' if report.threads > 1 else ''}")
        print(_table(report))
        print(explain(program, ops))
        if args.profile:
            print(f"\n{_profile(ops, report.batch)}")
    return 0


def _program(what: str) -> Program:
    """The Program of a file, of a run, or of a model by name."""
    path = Path(what)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return read_program(what)
    from onebit import models
    from onebit.bench import random_program

    if what not in models.names():
        raise UserError(
            f"{what!r} is no file, no run folder and no registered model{did_you_mean(what, models.names())}"
        )
    return random_program(what)


def _table(report: BenchReport) -> str:
    rows = []
    for result in report.results:
        nbytes = report.bytes_of.get(result.name)
        differ = report.disagreeing.get(result.name)
        form = report.form_of.get(result.name)
        rows.append(
            (
                f"{result.name} ({form})" if form else result.name,
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


def _profile(ops: list[Spending], batch: int) -> str:
    rows = [
        (
            op.layer or "–",
            op.op,
            op.kernel,
            microseconds(op.seconds / batch),
            f"{op.share:.1%}",
            number(op.gmacs) if op.gmacs else "–",
            "–" if op.peak_share is None else f"{op.peak_share:.0%}",
        )
        for op in ops
    ]
    return table(rows, header=("layer", "op", "kernel", "an image", "of all", "GMAC/s", "of attainable peak"))


def _as_dict(report: BenchReport, ops: list[Spending]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "batch": report.batch,
        "threads": report.threads,
        "left_out": report.left_out,
        "contenders": [
            {
                "name": result.name,
                "form": report.form_of.get(result.name),
                "seconds_an_image": result.seconds / report.batch,
                "fastest_seconds_an_image": result.fastest / report.batch,
                "times_onebit": report.speedup(result.name),
                "bytes": report.bytes_of.get(result.name),
                "other_class": report.disagreeing.get(result.name),
            }
            for result in report.results
        ],
        "profile": [asdict(op) for op in ops],
    }
