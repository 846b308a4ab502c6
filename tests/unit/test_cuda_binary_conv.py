"""The binary convolution on the GPU: each kernel, run by the emulator, against the reference of a Program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cuda_emulation.compile import compiler
from cuda_emulation.device import EmulatedDevice, Spy
from onebit.program import execute, verify
from onebit.runtime import EngineError
from onebit.runtime.cuda.device.interface import target
from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
from onebit.runtime.cuda.kernels import binary_conv
from onebit.runtime.cuda.kernels.binary_conv import MMA, POPC, SUMMING, BinaryConv, covers
from onebit.runtime.cuda.kernels.border_classes import BorderClasses, is_small
from onebit.runtime.cuda.kernels.catalog import entries
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.epilogue import Epilogue, Raw, Residual, ScaleBias, Threshold
from onebit.runtime.cuda.kernels.pack import Bits, empty_bits, pack, row_bytes
from onebit.runtime.cuda.kernels.tiles import Tile, choose
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry
from program_samples import bits, bits_constant, i32, one_op, signs
from support import require, sweep

RAW, SCALED, BITS, SUM = "raw", "scaled", "bits", "sum"
SMALL = MMA[2]


@dataclass(frozen=True)
class Case:
    """A convolution; padding is top, bottom, left, right."""

    channels: int
    columns: int
    kernel: tuple[int, int] = (3, 3)
    image: tuple[int, int] = (5, 7)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_value: int = 0
    batch: int = 2

    @property
    def geometry(self) -> WindowGeometry:
        outs = [
            (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation, before, after in zip(
                self.image,
                self.kernel,
                self.stride,
                self.dilation,
                self.padding[::2],
                self.padding[1::2],
                strict=True,
            )
        ]
        corner = (self.padding[0], self.padding[2])
        return WindowGeometry(*self.image, *self.kernel, *self.stride, *self.dilation, *corner, *outs)

    def __str__(self) -> str:
        return f"{self.channels}-{self.columns}-{self.kernel[0]}x{self.kernel[1]}"

    @property
    def attrs(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_value": self.padding_value,
        }


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    require(compiler(), "g++, which compiles kernels for the emulator")


def operands(case: Case) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    rng = np.random.default_rng([case.channels, case.columns, *case.kernel, case.groups])
    x = signs(rng, case.batch, *case.image, case.channels)
    return x, signs(rng, case.columns, *case.kernel, case.channels // case.groups)


def reference(case: Case, x: NDArray[np.int8], w: NDArray[np.int8]) -> NDArray[np.int64]:
    """The sums [output pixels, columns], by the definition of a Program's op."""
    g = case.geometry
    program = one_op(
        "binary_conv2d",
        {"x": bits(*case.image, case.channels)},
        {"w": bits_constant(w)},
        i32(g.out_h, g.out_w, case.columns),
        **case.attrs,
    )
    verify(program)
    y = execute(program, x)["y"]
    return np.asarray(y).reshape(-1, case.columns).astype(np.int64)


def make_epilogue(kind: str, columns: int, sums: NDArray[np.int64]) -> Epilogue:
    """One that decides within the range of the sums; thresholds also at the ends of int32."""
    rng = np.random.default_rng(columns)
    if kind == RAW:
        return Raw()
    if kind == SCALED:
        scale, bias = rng.standard_normal((2, columns)).astype(np.float32)
        return ScaleBias(scale, bias)
    if kind == SUM:  # numbers that float32 multiplies and adds exactly
        scale, bias, scale2, bias2 = (rng.integers(-4, 5, (4, columns)) / 4).astype(np.float32)
        return Residual(scale, bias, scale2, bias2)
    thresholds = rng.choice(sums.reshape(-1), columns)
    thresholds[rng.random(columns) < 0.1] = -(2**31)
    thresholds[rng.random(columns) < 0.1] = 2**31 - 1
    return Threshold(thresholds.astype(np.int32), bits_constant(signs(rng, columns)).array)


def check(y: torch.Tensor | Bits, sums: NDArray[np.int64], epilogue: Epilogue) -> None:
    """Compare an output with the exact sums and the epilogue's definition."""
    columns = sums.shape[1]
    if isinstance(epilogue, Threshold):
        assert isinstance(y, Bits)
        flip = np.unpackbits(epilogue.flip.view(np.uint8), bitorder="little")[:columns] == 1
        expected = (sums >= epilogue.thresholds) ^ flip
        raw = np.unpackbits(y.data.numpy(), axis=1, bitorder="little")
        assert raw.shape[1] == row_bytes(columns) * 8
        np.testing.assert_array_equal(raw[:, :columns] == 1, expected)
        assert not raw[:, columns:].any(), "a padding bit is set"
        assert y.sums is not None
        np.testing.assert_array_equal(y.sums.numpy(), expected.sum(axis=1))
    elif isinstance(epilogue, ScaleBias):
        assert isinstance(y, torch.Tensor)
        exact = sums.astype(np.float64) * epilogue.scale.astype(np.float64) + epilogue.bias.astype(np.float64)
        np.testing.assert_array_equal(y.numpy(), exact.astype(np.float32))
    else:
        assert isinstance(y, torch.Tensor)
        np.testing.assert_array_equal(y.numpy(), sums)


def check_sum(device: Spy, conv: BinaryConv, x: Bits, sums: NDArray[np.int64], e: Residual) -> None:
    """Floats and signs, each alone and both, with a residual that makes many sums zero."""
    rows, columns = sums.shape
    own = (sums * e.scale.astype(np.float64) + e.bias) * e.scale2 + e.bias2
    change = np.random.default_rng(rows).integers(-1, 2, own.shape)
    residual = (change - own).astype(np.float32)
    expected = (own + residual).astype(np.float32)
    np.testing.assert_array_equal(expected, change)  # nothing was rounded
    assert (expected == 0).any()
    for floats, signed in ((True, True), (True, False), (False, True)):
        total = torch.full((rows, columns), 7.0)
        bits_out = empty_bits(device, rows, columns, sums=True)
        conv.add_to(torch.from_numpy(residual), x, total if floats else None, bits_out if signed else None)
        if floats:
            np.testing.assert_array_equal(total.numpy(), expected)
        if signed:
            raw = np.unpackbits(bits_out.data.numpy(), axis=1, bitorder="little")
            np.testing.assert_array_equal(raw[:, :columns] == 1, expected >= 0)
            assert not raw[:, columns:].any(), "a padding bit is set"
            assert bits_out.sums is not None
            np.testing.assert_array_equal(bits_out.sums.numpy(), (expected >= 0).sum(axis=1))


def run(case: Case, kind: str, device: Spy, tile: Tile | None = None) -> None:
    """One convolution of random ±1, checked."""
    x, w = operands(case)
    sums = reference(case, x, w)
    epilogue = make_epilogue(kind, case.columns, sums)
    conv = BinaryConv(
        device,
        bits_constant(w).array,
        case.channels,
        case.geometry,
        groups=case.groups,
        padding_value=case.padding_value,
        epilogue=epilogue,
        tile=tile,
    )
    packed = pack(device, torch.from_numpy(x.reshape(-1, case.channels)))
    if isinstance(epilogue, Residual):
        check_sum(device, conv, packed, sums, epilogue)
    else:
        check(conv(packed, conv.empty_output(packed, sums=True)), sums, epilogue)
    known = [
        (entry.file, entry.name, dict(entry.defines))
        for entry in entries()
        if target(device.capability) in entry.targets
    ]
    assert all(asked in known for asked in device.asked), "a kernel is not in the catalog"


# Several tiles in each direction, each with a rest, and a ring of stages that turns over: 160 channels are
# two chunks of 16 bytes a tap, 18 in all, so more than four steps of four.
LARGE = Case(160, 300, image=(13, 11), batch=1)
PAIRS = [
    *((tile, BITS) for tile in (*MMA, POPC)),
    *((tile, kind) for tile in (MMA[0], SMALL, POPC) for kind in (RAW, SCALED)),
    *((tile, SUM) for tile in (*SUMMING, POPC)),
]


@pytest.mark.slow  # compiles a kernel a test
@sweep(
    ("tile", "kind"),
    PAIRS,
    keep=[(SMALL, BITS), (MMA[0], SCALED), (POPC, RAW), (POPC, SUM)],
    ids=["-".join([t.name, *(str(n) for _, n in t.macros), kind]) for t, kind in PAIRS],
)
def test_each_tile(tile: Tile, kind: str) -> None:
    device = Spy((7, 5) if tile is POPC else (9, 0))
    run(LARGE, kind, device, tile)
    assert device.launches[-1] == tile.name


CASES = (
    Case(1, 1, (1, 2), (1, 3), padding=(0, 0, 0, 0)),
    Case(31, 33, (2, 2), (3, 5), padding=(1, 0, 0, 1), padding_value=1),
    Case(33, 65, (5, 5), (5, 5), padding=(2, 2, 2, 2), padding_value=-1),
    Case(64, 31, (3, 3), (7, 5), stride=(2, 2)),
    Case(65, 10, (4, 1), (6, 5), stride=(1, 3), padding=(3, 2, 0, 0)),
    Case(127, 64, (3, 2), (9, 7), dilation=(2, 3), padding=(4, 0, 3, 3), padding_value=1),
    Case(128, 129, (3, 3), (4, 4), padding=(5, 5, 5, 5)),  # some outputs see no pixel
    Case(160, 7, (2, 3), (5, 9), stride=(3, 2), dilation=(3, 2)),
    Case(256, 128, (3, 3), (3, 5), groups=2),
    Case(384, 192, (1, 1), (3, 5), stride=(2, 2), padding=(0, 0, 0, 0), groups=3, batch=1),
    Case(129, 40, (5, 4), (3, 2), padding=(4, 4, 3, 3), padding_value=-1),  # larger than the image
)


@sweep("case", CASES, keep=(CASES[1], CASES[5], CASES[8]), ids=str)
def test_shapes_that_hurt(case: Case) -> None:
    run(case, BITS, Spy((7, 5)))
    run(case, RAW, Spy((8, 0)), SMALL if case.groups == 1 else MMA[3])
    if case.columns % 2 and case.channels % 2:
        run(case, SUM, Spy((7, 5)))
    else:
        run(case, SUM, Spy((8, 0)), SMALL if case.groups == 1 else MMA[3])
    if case.columns % 2 == 0:
        run(case, BITS, Spy((9, 0)), SMALL if case.groups == 1 else MMA[3])


def test_the_engine_takes_the_kernels_and_falls_back() -> None:
    rng = np.random.default_rng(1)
    for groups, kernel in ((1, "binary_conv_mma"), (3, "direct")):
        case = Case(6, 9, groups=groups)
        program = one_op(
            "binary_conv2d",
            {"x": bits(5, 7, 6)},
            {"w": bits_constant(signs(rng, 9, 3, 3, 6 // groups))},
            i32(5, 7, 9),
            **case.attrs,
        )
        device = Spy((8, 0))
        x = signs(rng, 2, 5, 7, 6)
        with CudaEngine(program, device=device) as engine:
            np.testing.assert_array_equal(engine(x), execute(program, x)["y"])
        assert device.launches[-1] == kernel


def test_a_pointwise_convolution_is_a_matrix_product() -> None:
    rng = np.random.default_rng(2)
    attrs = Case(1, 1, padding=(0, 0, 0, 0)).attrs
    weights = {"w": bits_constant(signs(rng, 12, 1, 1, 40))}
    program = one_op("binary_conv2d", {"x": bits(3, 4, 40)}, weights, i32(3, 4, 12), **attrs)
    device = Spy((8, 0))
    x = signs(rng, 2, 3, 4, 40)
    with CudaEngine(program, device=device) as engine:
        np.testing.assert_array_equal(engine(x), execute(program, x)["y"])
    assert device.launches[-1].startswith("binary_gemm")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_borders_count_the_taps_inside(case: Case) -> None:
    g = case.geometry
    tap_ones = np.random.default_rng(4).integers(0, 99, (3, *case.kernel))
    borders = BorderClasses.of(g, tap_ones)
    for o in range(g.out_h):
        for q in range(g.out_w):
            ones, taps = np.zeros(3, np.int64), 0
            for i in range(g.kernel_h):
                for j in range(g.kernel_w):
                    row = o * g.stride_h + i * g.dilation_h - g.top
                    column = q * g.stride_w + j * g.dilation_w - g.left
                    if 0 <= row < g.height and 0 <= column < g.width:
                        ones, taps = ones + tap_ones[:, i, j], taps + 1
            at = borders.places[o] + borders.places[g.out_h + q]
            assert borders.taps_inside[at] == taps
            np.testing.assert_array_equal(borders.ones_inside[at], ones)
    most = (min(g.out_h, 2 * g.kernel_h + 1), min(g.out_w, 2 * g.kernel_w + 1))
    assert len(borders.taps_inside) <= most[0] * most[1]


def test_what_is_covered() -> None:
    plain = Case(6, 9).geometry
    assert covers(plain, 6, 9, 1)
    assert covers(plain, 256, 128, 2)
    assert not covers(plain, 6, 9, 3)
    assert not covers(plain, 256, 96, 2)
    assert not covers(plain, 2**26, 8, 1)  # 9·2^26 inputs a sum
    wide = Case(1, 64, kernel=(300, 300), image=(600, 600), padding=(299, 299, 299, 299)).geometry
    assert not is_small(wide, 64)
    assert not is_small(Case(1, 1, kernel=(2**14, 1), image=(2**15, 1)).geometry, 1)


def test_which_tile_runs() -> None:
    h200 = 132
    assert choose(MMA, h200, 1024 * 16 * 16, 256) == MMA[0]
    assert choose(MMA, h200, 1024 * 32 * 32, 128) == MMA[1]
    assert choose(MMA, h200, 1024 * 56 * 56, 64) == MMA[3]
    assert choose(MMA, h200, 1024 * 16 * 16, 256, groups=4) == MMA[3]
    assert choose(MMA, h200, 64, 256) in MMA[2:]
    shared_kib = {"sm_75": 64, "sm_80": 163, "sm_86": 99, "sm_90a": 227}  # CUDA C++ Programming Guide
    for name, most in shared_kib.items():
        for tile in (*MMA, POPC):
            if name in tile.targets:
                assert tile.shared_bytes <= most * 1024, tile


def test_an_empty_batch_launches_nothing() -> None:
    device = EmulatedDevice((8, 0))
    conv = BinaryConv(device, bits_constant(np.ones((3, 3, 3, 40))).array, 40, Case(40, 3).geometry)
    y = conv(empty_bits(device, 0, 40, sums=False))
    assert isinstance(y, torch.Tensor)
    assert y.shape == (0, 3)
    assert device.launches == []


def test_bad_arguments_are_refused() -> None:
    device = EmulatedDevice((8, 0))
    weights = bits_constant(np.ones((4, 3, 3, 40))).array
    conv = BinaryConv(device, weights, 40, Case(40, 4).geometry)
    x = empty_bits(device, 35, 40, sums=False)
    with pytest.raises(EngineError, match=r"binary convolution of 80 channels to 4 in 2 groups"):
        BinaryConv(device, weights, 80, Case(40, 4).geometry, groups=2)
    with pytest.raises(ValueError, match="70 bits are 3 words a row, but the array has 2"):
        BinaryConv(device, weights, 70, Case(70, 4).geometry)
    with pytest.raises(ValueError, match=r"x has 34 pixels of 40 channels, expected images of 5 × 7 pixels"):
        conv(empty_bits(device, 34, 40, sums=False))
    with pytest.raises(ValueError, match=r"x has 35 pixels of 41 channels"):
        conv(empty_bits(device, 35, 41, sums=False))
    with pytest.raises(ValueError, match=r"out has shape \(35, 5\), expected 140 elements"):
        conv(x, torch.empty((35, 5), dtype=torch.int32))
    with pytest.raises(ValueError, match="Raw does not write to Bits"):
        conv(x, x)
    with pytest.raises(ValueError, match="Raw adds no residual"):
        conv.add_to(torch.empty((35, 4)), x, None, x)
    one = np.ones(4, np.float32)
    summing = BinaryConv(device, weights, 40, Case(40, 4).geometry, epilogue=Residual(one, one, one, one))
    with pytest.raises(ValueError, match="run by `add_to`"):
        summing(x)
    with pytest.raises(ValueError, match=r"out has shape \(35, 5\), expected 140 elements"):
        summing.add_to(torch.empty((35, 5)), x, None, None)
    with pytest.raises(ValueError, match=r"signs have shape \(36, 16\), expected 35 rows"):
        summing.add_to(torch.empty((35, 4)), x, None, empty_bits(device, 36, 4, sums=False))


def test_every_tile_is_in_the_catalog_once() -> None:
    listed = [(entry.file, tuple(sorted(entry.defines.items()))) for entry in binary_conv.ENTRIES]
    assert len(set(listed)) == len(listed) == 3 * (len(MMA) + 1) + len(SUMMING) + 1
    every: tuple[Entry, ...] = entries()
    assert all(entry in every for entry in binary_conv.ENTRIES)
