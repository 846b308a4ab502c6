"""Where this engine's time goes, op by op, and from that why a network is not faster.

The attainable peaks are the engine's own (`onebit.runtime.measure_peaks`). docs/performance.md has the
arithmetic's bounds, which need the C benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onebit.bench.packed import random_inputs
from onebit.program import Program
from onebit.runtime import ONE_BIT, Engine, kind_of


@dataclass(frozen=True)
class Spending:
    """One op of a run. `peak_share`: of the attainable peak of its kind; None where it is no product."""

    layer: str
    op: str
    kernel: str
    kind: str
    seconds: float
    share: float
    macs: int
    gmacs: float
    peak_share: float | None


def spend(
    program: Program,
    *,
    batch: int,
    threads: int = 1,
    repeats: int = 10,
) -> list[Spending]:
    """Median time of each op, in the order of a run, with its share of all and of its attainable peak."""
    with Engine(program, threads=threads) as engine:
        ops = engine.profile(*random_inputs(program, batch), repeats=repeats)
    total = sum(op.seconds for op in ops) or 1.0
    return [
        Spending(
            op.layer,
            op.op,
            op.variant,
            kind_of(op.op),
            op.seconds,
            op.seconds / total,
            op.macs,
            op.gmacs,
            op.peak_share,
        )
        for op in ops
    ]


def by_kind(spendings: Iterable[Spending]) -> dict[str, float]:
    """Kind → share of the time, the largest first."""
    shares: dict[str, float] = {}
    for spending in spendings:
        shares[spending.kind] = shares.get(spending.kind, 0.0) + spending.share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def explain(program: Program, spendings: list[Spending]) -> str:
    """One paragraph: how much of the network is 1-bit, and how much of the time that is."""
    from onebit.program import summarize

    summary = summarize(program)
    shares = by_kind(spendings)
    parts = ", ".join(f"{share:.0%} {kind}" for kind, share in shares.items() if share >= 0.005)
    lines = [
        f"{summary.share_1bit:.1%} of its multiply-accumulates are 1-bit; this engine's time is {parts}."
    ]
    others = sorted((s for s in spendings if s.kind != ONE_BIT), key=lambda s: -s.seconds)[:3]
    if shares.get(ONE_BIT, 0.0) < 0.5 and others:
        named = ", ".join(f"{s.op} {s.layer} {s.share:.0%}".replace("  ", " ") for s in others)
        lines.append(f"What binary weights and activations cannot speed up comes first there: {named}.")
    return " ".join(lines)
