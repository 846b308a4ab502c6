"""Whole networks at batch 1, bytes in, through Python: onebit beside its peers, and each op beside its floor.

    make bench            or, when it is built:  .venv/bin/python benchmarks/networks.py

Weights are random: speed does not depend on them. All contenders of a network run interleaved, one thread;
the ConvNet also with two. The peers run the same network with BatchNorm, scales and thresholds folded in, in
float32 and in int8, each in the form that is fastest here, and get their pixels as scaled float32 already.

The floor of an op is its 1-bit MACs over the machine's bound of xor+popcnt+add, and its other MACs over the
float32 FMA peak; what moves or rescales elements has none. C measures both bounds on the spot.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any

import kernel_bench
from onebit.bench import (
    ENGINE,
    BenchReport,
    Spending,
    bench_program,
    describe_machine,
    explain,
    package_versions,
    random_program,
    spend,
)
from onebit.bench.contest import Contender, contest
from onebit.bench.packed import random_inputs
from onebit.program import Program
from onebit.runtime import ONE_BIT, Engine

# What is printed → model, options, threads.
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "bnn_convnet_cifar10": ("bnn_convnet_cifar10", {}, (1, 2)),
    "alexnet_xnor": ("alexnet_xnor", {}, (1,)),
    "alexnet_xnor without K": ("alexnet_xnor", {"input_scale": None}, (1,)),
    "quicknet": ("quicknet", {}, (1,)),
    "birealnet18": ("birealnet18", {}, (1,)),
}


@dataclass(frozen=True)
class Bounds:
    """GMAC/s that one thread cannot pass."""

    one_bit: float
    real: float

    def floor(self, op: Spending) -> float:
        """Seconds that the op's products take at the bound; 0 where it has none."""
        return op.macs * 1e-9 / (self.one_bit if op.kind == ONE_BIT else self.real)


def measured_bounds() -> Bounds:
    """The bounds of this machine's best instruction set, from the C benchmark's first line."""
    row = kernel_bench.machine("binary_conv")
    one_bit = row["avx512_xor_popcnt_add_mac_per_cycle"]
    real = max(row["avx512_f32_fma_mac_per_cycle"], row["avx2_f32_fma_mac_per_cycle"])
    if not one_bit:
        raise SystemExit(
            "the bound of 1-bit products is measured with AVX-512 (VPOPCNTDQ), which is not here"
        )
    return Bounds(one_bit * row["clock_ghz"], real * row["clock_ghz"])


def print_times(report: BenchReport) -> None:
    """Milliseconds and ratios of every contender."""
    print(f"batch {report.batch}, {report.threads} thread(s)")
    for result in report.results:
        ratio = "" if result.name == ENGINE else f"{report.speedup(result.name):8.2f}× as long"
        form = report.form_of.get(result.name)
        name = f"{result.name} ({form})" if form else result.name
        print(f"  {name:38} {result.seconds * 1e3:10.4f} ms  {ratio}")
    for name, reason in report.left_out.items():
        print(f"  {name}: {reason}")


def print_floors(program: Program, ops: list[Spending], bounds: Bounds, *, every: bool) -> None:
    """Floor beside time, for each op (or each op that takes 1 % of the time), and what the rest is."""
    total, floor = sum(op.seconds for op in ops), sum(bounds.floor(op) for op in ops)
    print(f"  floor {floor * 1e3:.4f} ms, ops {total * 1e3:.4f} ms: {floor / total:.0%} of the time is floor")
    print(f"  {'op':40} {'layer':30} {'µs':>9} {'floor':>9} {'rest':>9} {'GMAC/s':>8}")
    rest = 0.0
    for op in ops:
        if not every and op.share < 0.01:
            rest += op.seconds
            continue
        low = bounds.floor(op)
        columns = f"{op.seconds * 1e6:9.2f} {low * 1e6:9.2f} {(op.seconds - low) * 1e6:9.2f} {op.gmacs:8.1f}"
        print(f"  {op.op:40} {op.layer:30} {columns}")
    if rest:
        print(f"  {'ops of less than 1 % each':71} {rest * 1e6:9.2f}")
    print(f"  {explain(program, ops)}")


def print_scaling(program: Program, counts: tuple[int, ...], rounds: int, seconds: float) -> None:
    """This engine alone, its thread counts in turn: no peer's workers spin on the cores meanwhile."""
    engines = {count: Engine(program, threads=count) for count in counts}
    inputs = random_inputs(program, 1)
    contenders = [Contender(str(count), partial(engine, *inputs)) for count, engine in engines.items()]
    one, *others = contest(contenders, rounds=rounds, seconds_a_round=seconds)
    for other in others:
        print(f"  onebit alone, {other.name} threads: {one.seconds / other.seconds:.2f}× one thread")


def main() -> None:
    """Print every network's times, then its floors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)} (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one contender in one round")
    parser.add_argument("--every-op", action="store_true", help="also ops of less than 1 %% of the time")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NETWORKS]
    if unknown:
        parser.error(f"no network {unknown[0]!r}; there are: {', '.join(NETWORKS)}")
    for key, value in {**describe_machine(), **package_versions()}.items():
        print(f"# {key}: {value}")
    bounds = measured_bounds()
    print(f"# bounds, GMAC/s on one thread: 1-bit {bounds.one_bit:.0f}, float32 FMA {bounds.real:.0f}")
    for title in arguments.names or NETWORKS:
        name, options, thread_counts = NETWORKS[title]
        program = random_program(name, **options)
        print(f"\n== {title}")
        for threads in thread_counts:
            report = bench_program(
                program, batch=1, threads=threads, rounds=arguments.rounds, seconds=arguments.seconds
            )
            print_times(report)
        if len(thread_counts) > 1:
            print_scaling(program, thread_counts, arguments.rounds, arguments.seconds)
        print_floors(program, spend(program, batch=1, repeats=50), bounds, every=arguments.every_op)


if __name__ == "__main__":
    main()
