"""First layers on the GPU: each kernel, run by the emulator, against the reference of a Program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cuda_emulation.compile import compiler
from cuda_emulation.device import Spy
from onebit.program import Program, execute, verify
from onebit.runtime.cuda.device.interface import target
from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
from onebit.runtime.cuda.kernels import u8_conv
from onebit.runtime.cuda.kernels.catalog import entries
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.epilogue import Epilogue, Raw, ScaleBias, Threshold
from onebit.runtime.cuda.kernels.pack import Bits, empty_bits, row_bytes
from onebit.runtime.cuda.kernels.tiles import Tile
from onebit.runtime.cuda.kernels.u8_conv import CONV, DP4A, GEMM, U8Conv, U8Gemm, covers
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry
from program_samples import bits_constant, i32, one_op, signs, u8
from support import require, sweep

RAW, SCALED, BITS = "raw", "scaled", "bits"
PIXELS = (2, -255)  # multiplier and offset of pixels as odd numbers from −255 to 255


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    require(compiler(), "g++, which compiles kernels for the emulator")


@dataclass(frozen=True)
class Case:
    """A convolution of bytes; padding is the same on each side."""

    channels: int
    columns: int
    kernel: tuple[int, int] = (3, 3)
    image: tuple[int, int] = (6, 5)
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    groups: int = 1
    affine: tuple[int, int] = PIXELS
    batch: int = 2

    def __str__(self) -> str:
        return f"{self.channels}-{self.columns}-{self.kernel[0]}x{self.kernel[1]}-{self.groups}"

    @property
    def geometry(self) -> WindowGeometry:
        outs = [
            (size + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1
            for size, kernel in zip(self.image, self.kernel, strict=True)
        ]
        numbers = (self.stride, self.stride, self.dilation, self.dilation, self.padding, self.padding)
        return WindowGeometry(*self.image, *self.kernel, *numbers, *outs)

    def program(self, w: NDArray[np.int8]) -> Program:
        g = self.geometry
        return one_op(
            "u8_conv2d",
            {"x": u8(*self.image, self.channels)},
            {"w": bits_constant(w)},
            i32(g.out_h, g.out_w, self.columns),
            stride=(self.stride,) * 2,
            padding=(self.padding,) * 4,
            dilation=(self.dilation,) * 2,
            groups=self.groups,
            multiplier=self.affine[0],
            offset=self.affine[1],
        )


def operands(case: Case) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    rng = np.random.default_rng([case.channels, case.columns, *case.kernel, case.groups])
    x = rng.integers(0, 256, (case.batch, *case.image, case.channels), dtype=np.uint8)
    x[0, 0, 0] = 255
    return x, signs(rng, case.columns, *case.kernel, case.channels // case.groups)


def make_epilogue(kind: str, sums: NDArray[np.int64]) -> Epilogue:
    """One that decides within the range of the sums; thresholds also at the ends of int32."""
    columns = sums.shape[1]
    rng = np.random.default_rng(columns)
    if kind == RAW:
        return Raw()
    if kind == SCALED:
        scale, bias = rng.standard_normal((2, columns)).astype(np.float32)
        return ScaleBias(scale, bias)
    thresholds = rng.choice(sums.reshape(-1), columns)
    thresholds[rng.random(columns) < 0.1] = -(2**31)
    thresholds[rng.random(columns) < 0.1] = 2**31 - 1
    return Threshold(thresholds.astype(np.int32), bits_constant(signs(rng, columns)).array)


def check(device: Spy, product: U8Conv, x: NDArray[np.uint8], sums: NDArray[np.int64], e: Epilogue) -> None:
    """Run a product and compare it with the exact sums and the epilogue's definition."""
    rows, columns = sums.shape
    given = torch.from_numpy(x)
    if isinstance(e, Threshold):
        y = empty_bits(device, rows, columns, sums=True)
        product(given, y)
        flip = np.unpackbits(e.flip.view(np.uint8), bitorder="little")[:columns] == 1
        expected = (sums >= e.thresholds) ^ flip
        raw = np.unpackbits(y.data.numpy(), axis=1, bitorder="little")
        assert raw.shape[1] == row_bytes(columns) * 8
        np.testing.assert_array_equal(raw[:, :columns] == 1, expected)
        assert not raw[:, columns:].any(), "a padding bit is set"
        assert y.sums is not None
        np.testing.assert_array_equal(y.sums.numpy(), expected.sum(axis=1))
    elif isinstance(e, ScaleBias):
        out = torch.empty((rows, columns))
        product(given, out)
        # What an fma of float32 gives: the sum is rounded to float32 first, the rest once.
        rounded = sums.astype(np.float32).astype(np.float64)
        exact = rounded * e.scale.astype(np.float64) + e.bias.astype(np.float64)
        np.testing.assert_array_equal(out.numpy(), exact.astype(np.float32))
    else:
        out = torch.empty((rows, columns), dtype=torch.int32)
        product(given, out)
        np.testing.assert_array_equal(out.numpy(), sums)
    known = [
        (entry.file, entry.name, dict(entry.defines))
        for entry in entries()
        if target(device.capability) in entry.targets
    ]
    assert all(asked in known for asked in device.asked), "a kernel is not in the catalog"


def run(case: Case, kind: str, device: Spy, tile: Tile | None = None) -> None:
    """One convolution of random bytes, checked."""
    x, w = operands(case)
    program = case.program(w)
    verify(program)
    sums = execute(program, x)["y"].reshape(-1, case.columns).astype(np.int64)
    epilogue = make_epilogue(kind, sums)
    product = U8Conv(
        device,
        bits_constant(w).array,
        case.channels,
        case.geometry,
        multiplier=case.affine[0],
        offset=case.affine[1],
        groups=case.groups,
        epilogue=epilogue,
        tile=tile,
    )
    check(device, product, x, sums, epilogue)


def run_gemm(rows: int, columns: int, count: int, kind: str, device: Spy, tile: Tile | None = None) -> None:
    """One matrix product of random bytes, checked."""
    rng = np.random.default_rng([rows, columns, count])
    x = rng.integers(0, 256, (rows, count), dtype=np.uint8)
    w = signs(rng, columns, count)
    attrs = {"multiplier": PIXELS[0], "offset": PIXELS[1]}
    program = one_op("u8_gemm", {"x": u8(count)}, {"w": bits_constant(w)}, i32(columns), **attrs)
    sums = execute(program, x)["y"].astype(np.int64)
    epilogue = make_epilogue(kind, sums)
    product = U8Gemm(device, bits_constant(w).array, count, **attrs, epilogue=epilogue, tile=tile)
    check(device, product, x, sums, epilogue)


KINDS = (RAW, SCALED, BITS)
NAMES = {CONV[0]: "conv-128", CONV[1]: "conv-64", DP4A: "dp4a", GEMM[0]: "gemm-256", GEMM[1]: "gemm-128"}


def name_of(value: Tile | str) -> str:
    return value if isinstance(value, str) else NAMES[value]


@pytest.mark.slow  # compiles a kernel a test
@sweep(
    ("tile", "kind"),
    [(tile, kind) for tile in (*CONV, DP4A) for kind in KINDS],
    keep=[(CONV[0], SCALED), (CONV[1], BITS), (DP4A, RAW)],
    ids=name_of,
)
def test_each_tile_of_a_convolution(tile: Tile, kind: str) -> None:
    # Several tiles in each direction with a rest, and 7·7·3 = 147 bytes of K: three steps.
    run(Case(3, 140, (7, 7), (13, 11), padding=3), kind, Spy((7, 5) if tile is DP4A else (9, 0)), tile)


@pytest.mark.slow  # compiles a kernel a test
@sweep(
    ("tile", "kind"), [(tile, kind) for tile in GEMM for kind in KINDS], keep=[(GEMM[1], BITS)], ids=name_of
)
def test_each_tile_of_a_matrix_product(tile: Tile, kind: str) -> None:
    device = Spy((9, 0))
    run_gemm(tile.rows + 3, tile.columns + 35, 784, kind, device, tile)
    assert device.launches == ["u8_gemm_mma"]


CASES = (
    Case(1, 1, (1, 1), (1, 3), padding=0),
    Case(3, 33, (2, 5), (5, 7), padding=2, affine=(-3, 11)),
    Case(1, 65, (4, 4), (9, 7), stride=2, padding=3, affine=(1, 0)),
    Case(16, 10, (3, 3), (4, 5), padding=4, dilation=2),
    Case(17, 31, (3, 2), (5, 9), stride=3, dilation=2, affine=(1, -128)),
    Case(6, 128, (3, 3), (3, 5), groups=2),
    Case(33, 7, (5, 5), (3, 4), padding=4),  # larger than the image
)


@sweep("case", CASES, keep=(CASES[1], CASES[5]), ids=str)
def test_shapes_that_hurt(case: Case) -> None:
    run(case, BITS, Spy((7, 5)))
    run(case, RAW, Spy((8, 0)), CONV[1])
    run(case, BITS, Spy((9, 0)), CONV[1])


@pytest.mark.parametrize(
    ("capability", "count", "kernel"),
    [
        ((9, 0), 80, "u8_gemm_mma"),
        ((8, 0), 16, "u8_gemm_mma"),
        ((8, 0), 70, "u8_conv_mma"),  # rows do not begin at multiples of 16 bytes
        ((7, 5), 80, "u8_conv_dp4a"),
        ((7, 5), 1, "u8_conv_dp4a"),
    ],
)
def test_rows_of_any_length(capability: tuple[int, int], count: int, kernel: str) -> None:
    device = Spy(capability)
    run_gemm(5, 33, count, BITS, device)
    assert device.launches == [kernel]


def test_sums_up_to_the_end_of_int32() -> None:
    # 255·8,421,504 + 127 = 2^31 − 1, the largest that a Program allows.
    multiplier = 8_421_504
    for affine, t in (((multiplier, 127), 2**31 - 1), ((-multiplier, -127), -(2**31) + 1)):
        x = np.array([[255], [254], [0]], np.uint8)
        sums = x.astype(np.int64) * affine[0] + affine[1]
        assert abs(sums).max() == 2**31 - 1
        for capability in ((7, 5), (8, 0)):
            for threshold in (t, t + 1 if t < 0 else t - 1, 0):
                epilogue = Threshold(np.array([threshold], np.int32), np.zeros(1, np.uint32))
                device = Spy(capability)
                weights = bits_constant(np.ones((1, 1), np.int8)).array
                product = U8Gemm(
                    device, weights, 1, multiplier=affine[0], offset=affine[1], epilogue=epilogue
                )
                check(device, product, x, sums, epilogue)


def test_the_engine_takes_the_kernels_and_falls_back() -> None:
    for groups, kernel in ((1, "u8_conv_mma"), (3, "direct")):
        case = Case(6, 9, groups=groups)
        x, w = operands(case)
        program = case.program(w)
        device = Spy((8, 0))
        with CudaEngine(program, device=device) as engine:
            np.testing.assert_array_equal(engine(x), execute(program, x)["y"])
        assert device.launches[-1] == kernel
    assert covers(Case(6, 128).geometry, 128, 2)
    assert not covers(Case(6, 96).geometry, 96, 2)


def test_an_empty_batch_launches_nothing() -> None:
    device = Spy((8, 0))
    product = U8Gemm(device, bits_constant(np.ones((3, 20))).array, 20, multiplier=1, offset=0)
    product(torch.empty((0, 20), dtype=torch.uint8), torch.empty((0, 3), dtype=torch.int32))
    assert device.launches == []


def test_bad_arguments_are_refused() -> None:
    device = Spy((8, 0))
    product = U8Gemm(device, bits_constant(np.ones((3, 20))).array, 20, multiplier=1, offset=0)
    x, out = torch.zeros((2, 20), dtype=torch.uint8), torch.empty((2, 3), dtype=torch.int32)
    with pytest.raises(ValueError, match=r"x is torch.int8 of shape \(2, 20\), expected uint8"):
        product(x.to(torch.int8), out)
    with pytest.raises(
        ValueError, match=r"x is torch.uint8 of shape \(2, 21\), expected uint8 images of 1 × 1"
    ):
        product(torch.zeros((2, 21), dtype=torch.uint8), out)
    with pytest.raises(ValueError, match=r"out has shape \(2, 4\), expected 6 elements"):
        product(x, torch.empty((2, 4), dtype=torch.int32))
    with pytest.raises(ValueError, match="Raw does not write to Bits"):
        product(x, Bits(out.view(torch.uint8), 3))


def test_every_tile_is_in_the_catalog_once() -> None:
    listed = [(entry.file, tuple(sorted(entry.defines.items()))) for entry in u8_conv.ENTRIES]
    assert len(set(listed)) == len(listed) == 3 * (len(GEMM) + len(CONV) + 1)
    every: tuple[Entry, ...] = entries()
    assert all(entry in every for entry in u8_conv.ENTRIES)
