"""Timing that is fair on a noisy machine: every contender in every round, medians over the rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

# After a call, OpenMP and ONNX Runtime workers spin for some milliseconds and would slow whoever comes next.
_SETTLE_SECONDS = 0.02


@dataclass(frozen=True)
class Contender:
    """One way to compute the same thing. `call` does the whole of it, once."""

    name: str
    call: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds a call of one contender: the median over rounds, and the fastest and slowest round."""

    name: str
    seconds: float
    fastest: float
    slowest: float
    rounds: int


def contest(
    contenders: Sequence[Contender], *, rounds: int = 7, seconds_a_round: float = 0.05, settle: bool = True
) -> list[Timing]:
    """Time the contenders in turn, `rounds` times over; a round repeats a call for about `seconds_a_round`.

    Each block begins with one call that is not counted, which brings weights back into the caches.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one round is needed")
    repeats = [_calls_that_take(contender.call, seconds_a_round) for contender in contenders]
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for index, contender in enumerate(contenders):
            if settle and len(contenders) > 1:
                time.sleep(_SETTLE_SECONDS)
            contender.call()
            start = time.perf_counter()
            for _ in range(repeats[index]):
                contender.call()
            times[index].append((time.perf_counter() - start) / repeats[index])
    return [
        Timing(contender.name, median(own), min(own), max(own), rounds)
        for contender, own in zip(contenders, times, strict=True)
    ]


def fastest(forms: Mapping[str, Callable[[], object]]) -> tuple[str, Callable[[], object]]:
    """Of several forms of one contender the one that takes least: each at its best of five, in turn."""
    if len(forms) > 1:
        results = contest(
            [Contender(name, call) for name, call in forms.items()], rounds=5, seconds_a_round=0.01
        )
        name = min(results, key=lambda result: result.fastest).name
    else:
        (name,) = forms
    return name, forms[name]


def _calls_that_take(call: Callable[[], object], seconds: float) -> int:
    """How many calls fill `seconds`, found by two trial calls of which the first only warms up."""
    call()
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    return max(1, min(100_000, int(seconds / max(once, 1e-7))))
