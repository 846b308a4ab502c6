"""This engine beside its peers on the machine at hand. Peers are imported where they are used."""

from __future__ import annotations

from onebit.bench.contest import Contender, Timing, contest
from onebit.bench.machine import describe_machine, package_versions
from onebit.bench.packed import ENGINE, PEERS, PYTORCH, BenchReport, bench_program
from onebit.bench.random_model import random_program
from onebit.bench.spending import Spending, explain, spend

__all__ = [
    "ENGINE",
    "PEERS",
    "PYTORCH",
    "BenchReport",
    "Contender",
    "Spending",
    "Timing",
    "bench_program",
    "contest",
    "describe_machine",
    "explain",
    "package_versions",
    "random_program",
    "spend",
]
