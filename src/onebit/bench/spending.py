"""Where this engine's time goes, op by op, and from that why a network is not faster.

The roofs are measured on this engine, in the same process: its best rate on a large product and a
large convolution, 1-bit and float32. They say what an op could reach here, whatever the CPU and its clock (a
convolution may pass 100 %: taps outside the image count as work and need none). docs/performance.md has the
arithmetic's own bounds, which need the C benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from onebit.bench.packed import random_inputs
from onebit.program import Constant, DType, Node, Program, TensorType, pack_bits, verify

ONE_BIT, REAL, BYTES, MOVES = "1-bit products", "float32 products", "8-bit products", "the rest"
_ROWS, _N, _K, _IMAGES = 256, 1024, 1024, 4  # of the products that show the roofs


@dataclass(frozen=True)
class Spending:
    """One op of a run. `roof` is the fraction of the roof of its kind, None where it is no such product."""

    layer: str
    op: str
    kernel: str
    kind: str
    seconds: float
    share: float
    macs: int
    gmacs: float
    roof: float | None


def spend(
    program: Program,
    *,
    batch: int,
    threads: int = 1,
    repeats: int = 10,
    roofs: dict[str, float] | None = None,
) -> list[Spending]:
    """Median time of each op, in the order of a run; `roofs` as `measure_roofs` gives them."""
    from onebit.runtime import Engine

    with Engine(program, threads=threads) as engine:
        ops = engine.profile(*random_inputs(program, batch), repeats=repeats)
    total = sum(op.seconds for op in ops) or 1.0
    found = []
    for op in ops:
        kind = kind_of(op.op)
        roof = (roofs or {}).get(kind)
        found.append(
            Spending(
                op.layer,
                op.op,
                op.variant,
                kind,
                op.seconds,
                op.seconds / total,
                op.macs,
                op.gmacs,
                op.gmacs / roof if roof and op.macs else None,
            )
        )
    return found


def kind_of(op: str) -> str:
    """Which kind of work an op of a profile is; what is fused behind a product counts with it."""
    first = op.partition("+")[0]
    if first.startswith("binary_"):
        return ONE_BIT
    if first.startswith("u8_"):
        return BYTES
    return REAL if first.startswith("f32_") else MOVES


def by_kind(spendings: Iterable[Spending]) -> dict[str, float]:
    """Kind → share of the time, the largest first."""
    shares: dict[str, float] = {}
    for spending in spendings:
        shares[spending.kind] = shares.get(spending.kind, 0.0) + spending.share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def measure_roofs(*, threads: int = 1) -> dict[str, float]:
    """Kind → GMAC/s of this engine's best product of that kind, at its best of a few."""
    from onebit.runtime import Engine

    roofs: dict[str, float] = {}
    for kind, op, dtype in (
        (ONE_BIT, "binary_gemm", DType.BITS),
        (ONE_BIT, "binary_conv2d", DType.BITS),
        (REAL, "f32_gemm", DType.F32),
        (REAL, "f32_conv2d", DType.F32),
    ):
        program = _conv(op, dtype) if op.endswith("conv2d") else _product(op, dtype)
        with Engine(program, threads=threads) as engine:
            inputs = random_inputs(program, (_IMAGES if op.endswith("conv2d") else _ROWS) * threads)
            best = max(engine.profile(*inputs, repeats=3)[0].gmacs for _ in range(4))
        roofs[kind] = max(roofs.get(kind, 0.0), best)
    return roofs


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


def _product(op: str, dtype: DType) -> Program:
    """One matrix product, [K] → [N]."""
    return _single(op, dtype, (_K,), (_N, _K), (_N,), {})


def _conv(op: str, dtype: DType) -> Program:
    """One 3×3 convolution without padding, so that every tap is inside the image."""
    attrs: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    if dtype is DType.BITS:
        attrs["padding_value"] = 0
    channels = 256
    return _single(op, dtype, (16, 16, channels), (channels, 3, 3, channels), (14, 14, channels), attrs)


def _single(
    op: str, dtype: DType, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], attrs: dict[str, Any]
) -> Program:
    """A Program of one op whose weights are random; 1-bit ones end in a threshold, as in a network."""
    random = np.random.default_rng(1)
    if dtype is DType.BITS:
        weight = pack_bits(random.integers(0, 2, w).astype(bool))
    else:
        weight = random.standard_normal(w).astype(np.float32)
    constants = {"w": Constant(TensorType(dtype, w), weight)}
    one_bit = dtype is DType.BITS
    values = {"x": TensorType(dtype, x), "y": TensorType(DType.I32 if one_bit else dtype, y)}
    nodes = [Node(op, ("x", "w"), "y", attrs)]
    if one_bit:
        channels = (y[-1],)
        constants["t"] = Constant(TensorType(DType.I32, channels), np.zeros(channels, np.int32))
        flips = pack_bits(np.zeros(channels, bool))
        constants["flip"] = Constant(TensorType(DType.BITS, channels), flips)
        values["z"] = TensorType(DType.BITS, y)
        nodes.append(Node("threshold", ("y", "t", "flip"), "z"))
    program = Program(("x",), ("z" if one_bit else "y",), tuple(nodes), constants, values)
    verify(program)
    return program
