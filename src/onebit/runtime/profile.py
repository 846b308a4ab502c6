"""Where a run's time goes: each op's median, its rate, and the share of what this engine can reach at best.

The attainable peaks are measured on this engine, in the same process: its best rate on a large product and a
large convolution of each kind. They say what an op could reach here, whatever the CPU and its clock. (A
convolution may pass 100 %: taps outside the image count as work and need none.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, Protocol

import numpy as np

from onebit.program import ARRAY_DTYPES, OPS, Constant, DType, Node, Program, TensorType, pack_bits
from onebit.program.ops import Kind, MacKind
from onebit.program.tensors import Array
from onebit.runtime.builder import OpRecord

ONE_BIT, REAL, BYTES, REST = "1-bit products", "float32 products", "8-bit products", "the rest"
_ROWS, _N, _K, _IMAGES, _SIDE, _CHANNELS = 256, 1024, 1024, 4, 16, 256  # of the products that show the peaks


class OpProfile(NamedTuple):
    """One op of a profiled run: layer, ops, kernel, seconds (median), and products of the batch."""

    layer: str
    op: str
    variant: str
    seconds: float
    macs: int
    gmacs: float  # 10^9 multiply-accumulates a second; 0 where the op is no product
    peak_share: float | None  # gmacs over the best of `measure_peaks`; None where the op is no product


class TimedEngine(Protocol):
    """What is asked of an engine here."""

    @property
    def ops(self) -> Sequence[OpRecord]:
        """The ops of a run."""

    def time_ops(self, *inputs: Array, repeats: int) -> list[list[float]]:
        """The seconds of each op, for each of so many runs."""

    def close(self) -> None:
        """Give back what it holds."""


_KINDS = {
    MacKind.ONE_BIT: ONE_BIT,
    MacKind.BYTE_BY_BIT: BYTES,
    MacKind.FLOAT_BY_BIT: REAL,
    MacKind.FLOAT: REAL,
}


def kind_of(op: str) -> str:
    """Which kind of work an op of a profile is; what is fused behind a product counts with it."""
    product = OPS[op.partition("+")[0]].product
    return REST if product is None else _KINDS[product.kind]


def profile(
    ops: Sequence[OpRecord], batch: int, runs: list[list[float]], peaks: Mapping[str, float]
) -> list[OpProfile]:
    """The seconds of several runs, an op each, as medians with rates and shares of their attainable peaks."""
    found = []
    for op, *seconds in zip(ops, *runs, strict=True):
        time, macs = median(seconds), op.macs * batch
        gmacs = macs / time * 1e-9 if time > 0 else 0.0
        share = gmacs / peaks[kind_of(op.op)] if macs else None
        found.append(OpProfile(op.layer, op.op, op.variant, time, macs, gmacs, share))
    return found


def best_rates(build: Callable[[Program], TimedEngine], threads: int) -> dict[str, float]:
    """Kind of product → GMAC/s of the best product of that kind on the engines that `build` makes."""
    peaks: dict[str, float] = {}
    for op, dtype in (
        ("binary_gemm", DType.BITS),
        ("binary_conv2d", DType.BITS),
        ("u8_gemm", DType.U8),
        ("u8_conv2d", DType.U8),
        ("f32_gemm", DType.F32),
        ("f32_conv2d", DType.F32),
    ):
        conv = OPS[op].kind is Kind.CONV
        program = _conv(op, dtype) if conv else _product(op, dtype)
        x = np.ones(((_IMAGES if conv else _ROWS) * threads, *program.values["x"].shape), ARRAY_DTYPES[dtype])
        engine = build(program)
        try:
            seconds = min(run[0] for run in engine.time_ops(x, repeats=12))
            best = engine.ops[0].macs * len(x) / seconds * 1e-9
        finally:
            engine.close()
        peaks[kind_of(op)] = max(peaks.get(kind_of(op), 0.0), best)
    return peaks


def _product(op: str, dtype: DType) -> Program:
    """One matrix product, [K] → [N]."""
    return _single(op, dtype, (_K,), (_N, _K), (_N,), {})


def _conv(op: str, dtype: DType) -> Program:
    """One 3×3 convolution without padding, so that every tap is inside the image."""
    attrs: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    if dtype is DType.BITS:
        attrs["padding_value"] = 0
    inside = _SIDE - 2
    return _single(
        op, dtype, (_SIDE, _SIDE, _CHANNELS), (_CHANNELS, 3, 3, _CHANNELS), (inside, inside, _CHANNELS), attrs
    )


def _single(
    op: str, dtype: DType, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], attrs: dict[str, Any]
) -> Program:
    """A Program of one op whose weights are random; 1-bit ones end in a threshold, as in a network."""
    random = np.random.default_rng(1)
    real = dtype is DType.F32
    weight = random.standard_normal(w).astype(np.float32) if real else pack_bits(random.random(w) < 0.5)
    constants = {"w": Constant(TensorType(DType.F32 if real else DType.BITS, w), weight)}
    values = {"x": TensorType(dtype, x), "y": TensorType(DType.F32 if real else DType.I32, y)}
    if dtype is DType.U8:
        attrs = {**attrs, "multiplier": 2, "offset": -255}
    nodes = [Node(op, ("x", "w"), "y", attrs)]
    if not real:
        channels = (y[-1],)
        constants["t"] = Constant(TensorType(DType.I32, channels), np.zeros(channels, np.int32))
        flips = pack_bits(np.zeros(channels, bool))
        constants["flip"] = Constant(TensorType(DType.BITS, channels), flips)
        values["z"] = TensorType(DType.BITS, y)
        nodes.append(Node("threshold", ("y", "t", "flip"), "z"))
    return Program(("x",), ("y" if real else "z",), tuple(nodes), constants, values)
