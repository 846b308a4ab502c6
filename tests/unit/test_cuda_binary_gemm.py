"""Packing and the binary product on the GPU: each kernel, run by the emulator, against int64 sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cuda_emulation.compile import compiler
from cuda_emulation.device import EmulatedDevice, Spy
from onebit.errors import EngineError
from onebit.runtime.cuda.device.interface import target
from onebit.runtime.cuda.kernels import binary_gemm
from onebit.runtime.cuda.kernels.binary_gemm import (
    FEW_ROWS,
    MMA,
    POPC,
    WGMMA,
    BinaryGemm,
    GemmVariant,
    choose,
)
from onebit.runtime.cuda.kernels.catalog import entries
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.epilogue import Epilogue, Raw, ScaleBias, Threshold, constants
from onebit.runtime.cuda.kernels.pack import Bits, count_ones, empty_bits, pack, row_bytes
from support import require, sweep

Signs = NDArray[np.int8]

RAW, SCALED, BITS = "raw", "scaled", "bits"
CAPABILITY = {"wgmma": (9, 0), "mma": (8, 0), "popc": (7, 5), "few_rows": (7, 5)}
ALL_VARIANTS = (*WGMMA, *MMA, POPC, *FEW_ROWS)


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    require(compiler(), "g++, which compiles kernels for the emulator")


def signs(rng: np.random.Generator, rows: int, count: int) -> Signs:
    return rng.choice(np.array([-1, 1], np.int8), (rows, count))


def words(x: Signs) -> NDArray[np.uint32]:
    """Rows of ±1 as a Program packs them."""
    padded = np.zeros((x.shape[0], -(-x.shape[1] // 32) * 32), np.uint8)
    padded[:, : x.shape[1]] = x > 0
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


def unpacked(bits: Bits) -> Signs:
    """The ±1 of packed rows; fails on a padding bit that is set."""
    raw = np.unpackbits(bits.data.numpy(), axis=1, bitorder="little")
    assert raw.shape[1] == row_bytes(bits.count) * 8
    assert not raw[:, bits.count :].any(), "a padding bit is set"
    return (raw[:, : bits.count].astype(np.int8) * 2 - 1).astype(np.int8)


def make_epilogue(kind: str, rng: np.random.Generator, columns: int, count: int) -> Epilogue:
    if kind == RAW:
        return Raw()
    if kind == SCALED:
        scale, bias = rng.standard_normal((2, columns)).astype(np.float32)
        return ScaleBias(scale, bias)
    thresholds = rng.integers(-count, count + 2, columns, dtype=np.int64) // 4
    always = rng.choice([0, -(2**31), 2**31 - 1], columns, p=[0.8, 0.1, 0.1])
    flip = words(signs(rng, 1, columns))[0]
    return Threshold(np.where(always == 0, thresholds, always).astype(np.int32), flip)


def check(y: torch.Tensor | Bits, sums: NDArray[np.int64], epilogue: Epilogue) -> None:
    """Compare an output with the exact sums and the epilogue's definition."""
    if isinstance(epilogue, Threshold):
        assert isinstance(y, Bits)
        columns = sums.shape[1]
        flip = np.unpackbits(epilogue.flip.view(np.uint8), bitorder="little")[:columns] == 1
        expected = (sums >= epilogue.thresholds) ^ flip
        np.testing.assert_array_equal(unpacked(y) > 0, expected)
        if y.sums is not None:
            np.testing.assert_array_equal(y.sums.numpy(), expected.sum(axis=1))
    elif isinstance(epilogue, ScaleBias):
        assert isinstance(y, torch.Tensor)
        # A product of two float32 is exact in float64; the sum is rounded there and then to float32. That is
        # the fma unless the first rounding makes a tie, which happens to one value in some 2^29.
        exact = sums.astype(np.float64) * epilogue.scale.astype(np.float64) + epilogue.bias.astype(np.float64)
        np.testing.assert_array_equal(y.numpy(), exact.astype(np.float32))
    else:
        assert isinstance(y, torch.Tensor)
        assert y.dtype == torch.int32
        np.testing.assert_array_equal(y.numpy(), sums)


def run(variant: GemmVariant | None, kind: str, rows: int, columns: int, count: int, device: Spy) -> None:
    """One product on random ±1, checked; the output's sums are asked for where it has any."""
    rng = np.random.default_rng([rows, columns, count])
    x, w = signs(rng, rows, count), signs(rng, columns, count)
    epilogue = make_epilogue(kind, rng, columns, count)
    gemm = BinaryGemm(device, words(w), count, epilogue, variant)
    y = gemm(pack(device, torch.from_numpy(x)), gemm.empty_output(rows, sums=True))
    check(y, x.astype(np.int64) @ w.astype(np.int64).T, epilogue)
    assert device.launches[-1] == f"binary_gemm_{gemm.variant(rows).kernel}"


# How far a shape goes beyond one tile: it leaves a rest in each direction, takes several tiles in each, and
# (with three multiprocessors) makes a persistent block walk several tiles and its ring of stages turn over.
BEYOND_THE_TILE = {
    "wgmma": (3, 65, 2100),
    "mma": (3, 65, 700),
    "popc": (1, 67, 1100),
    "few_rows": (-1, 13, 4200),
}

# Compiling for the emulator takes a second a kernel, so not all pairs: the largest tile of each kernel meets
# every epilogue, the others that of bits, which depends most on the tile.
PAIRS = [
    *((variant, kind) for variant in (WGMMA[0], MMA[0], POPC) for kind in (RAW, SCALED, BITS)),
    *((variant, BITS) for variant in (*WGMMA[1:], *MMA[1:])),
    *zip(FEW_ROWS, (RAW, SCALED, BITS), strict=True),
]


def shape_for(variant: GemmVariant, kind: str) -> tuple[int, int, int]:
    rows, columns, count = BEYOND_THE_TILE[variant.kernel]
    blocks = variant.cluster if kind == BITS else 1  # a second row of clusters once: it takes seconds
    return max(1, variant.tile_rows * blocks + rows), variant.tile_columns + columns, count


# Each kernel once, and each epilogue.
KEPT = [(WGMMA[0], BITS), (MMA[0], SCALED), (POPC, RAW), (FEW_ROWS[0], RAW)]


@pytest.mark.slow  # compiles a kernel a test, and emulates 384 threads a block
@sweep(
    ("variant", "kind"),
    PAIRS,
    keep=KEPT,
    ids=["-".join([v.kernel, *(str(n) for _, n in v.macros), kind]) for v, kind in PAIRS],
)
def test_each_variant(variant: GemmVariant, kind: str) -> None:
    device = Spy(CAPABILITY[variant.kernel])
    run(variant, kind, *shape_for(variant, kind), device=device)
    known = [(entry.file, entry.name, dict(entry.defines)) for entry in for_target(device.capability)]
    assert len(device.asked) >= 2, "pack_rows and the product"
    assert all(asked in known for asked in device.asked), "a kernel is not in the catalog"


def for_target(capability: tuple[int, int]) -> list[Entry]:
    """What the catalog has for a GPU."""
    return [entry for entry in entries() if target(capability) in entry.targets]


SHAPES = [
    (1, 1, 1),
    (2, 31, 33),
    (9, 127, 31),
    (17, 33, 64),
    (31, 129, 65),
    (33, 65, 511),
    (65, 10, 127),
    (20, 255, 129),
]
MACHINES = [(9, 0), (8, 0), (7, 5)]


@sweep(
    ("capability", "rows", "columns", "count"),
    [(machine, *shape) for machine in MACHINES for shape in SHAPES],
    keep=[(machine, *shape) for machine in MACHINES for shape in (SHAPES[1], SHAPES[5])],
)
def test_shapes_that_are_no_multiple_of_anything(
    capability: tuple[int, int], rows: int, columns: int, count: int
) -> None:
    device = Spy(capability)
    run(None, BITS if columns % 2 else RAW, rows, columns, count, device)
    kernels = [name for name in device.launches if name.startswith("binary_gemm")]
    assert kernels == [f"binary_gemm_{choose(capability, 3, rows, columns).kernel}"]


def test_a_sum_beyond_16_bits() -> None:
    count = 40_001
    ones = np.ones((2, count), np.int8)
    ones[1, ::2] = -1
    for capability, variant in (((7, 5), FEW_ROWS[1]), ((8, 0), MMA[1]), ((9, 0), WGMMA[2])):
        device = EmulatedDevice(capability)
        gemm = BinaryGemm(device, words(ones), count, variant=variant)
        y = gemm(pack(device, torch.from_numpy(ones)))
        assert isinstance(y, torch.Tensor)
        assert y.tolist() == [[count, -1], [-1, count]]


def test_two_layers_hand_over_bits_and_sums() -> None:
    rng = np.random.default_rng(5)
    device = Spy((8, 0))
    x, w1, w2 = signs(rng, 40, 100), signs(rng, 150, 100), signs(rng, 7, 150)
    hidden = make_epilogue(BITS, rng, 150, 100)
    assert isinstance(hidden, Threshold)
    first, second = BinaryGemm(device, words(w1), 100, hidden), BinaryGemm(device, words(w2), 150)
    between = first.empty_output(40, sums=True)
    assert isinstance(between, Bits)
    first(pack(device, torch.from_numpy(x)), between)
    first(pack(device, torch.from_numpy(x)), between)  # again into the same: sums begin at zero each time
    y = second(between)
    assert device.launches.count("count_rows") == 0
    sums = x.astype(np.int64) @ w1.astype(np.int64).T
    check(between, sums, hidden)
    flip = np.unpackbits(hidden.flip.view(np.uint8), bitorder="little")[:150] == 1
    middle = np.where((sums >= hidden.thresholds) ^ flip, 1, -1)
    check(y, middle @ w2.astype(np.int64).T, Raw())
    again = second(Bits(between.data, 150))  # without sums: they are counted
    assert device.launches.count("count_rows") == 1
    check(again, middle @ w2.astype(np.int64).T, Raw())


@pytest.mark.parametrize("t", [-(2**31), -(2**31) + 1, -33, -32, 0, 31, 32, 33, 2**31 - 1])
def test_thresholds_as_constants_compare_as_the_sum_does(t: int) -> None:
    # v + offset is the sum: v >= column must always say what sum >= t says, also at the ends of int32.
    bound, ones = 32, np.arange(33)
    offset = (bound - 2 * ones).astype(np.int64)
    epilogue = Threshold(np.full(33, t, np.int32), np.zeros(2, np.uint32))
    column, flip = constants(epilogue, offset, bound, torch.device("cpu"))
    assert column.dtype == torch.int32
    assert column.shape == (256,)
    assert flip is not None
    assert flip.shape == (8,)
    assert (column[33:] == 2**31 - 1).all()
    for value in range(-bound, bound + 1):
        v = value - offset
        np.testing.assert_array_equal(v >= column[:33].numpy(), np.full(33, value >= t))


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pack_takes_the_signs(dtype: torch.dtype) -> None:
    device = EmulatedDevice((7, 5))
    rng = np.random.default_rng(3)
    for rows, count in [(1, 1), (3, 31), (2, 33), (5, 128), (1, 129), (9, 1030), (1, 9000)]:
        x = torch.from_numpy(rng.standard_normal((rows, count)).astype(np.float32))
        if dtype == torch.bool:
            x, positive = x > 0, (x > 0).numpy()
        elif dtype == torch.int8:
            x = (x * 40).clamp(-128, 127).to(dtype)
            positive = x.numpy() >= 0
        else:
            special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), -float("nan")])
            x.view(-1)[:6] = special[: x.numel()]
            x = x.to(dtype)
            positive = x.double().numpy() >= 0  # False for NaN
        bits = pack(device, x)
        np.testing.assert_array_equal(unpacked(bits) > 0, positive)
        assert bits.sums is not None
        np.testing.assert_array_equal(bits.sums.numpy(), positive.sum(axis=1))
        counted = count_ones(device, bits)
        assert counted.sums is not None
        np.testing.assert_array_equal(counted.sums.numpy(), positive.sum(axis=1))


def test_which_kernel_runs() -> None:
    h200 = 132
    assert choose((9, 0), h200, 16384, 16384) == WGMMA[0]
    assert choose((9, 0), h200, 1024, 1024).kernel == "wgmma"
    assert choose((8, 0), 108, 8192, 8192) == MMA[0]
    assert choose((8, 6), 28, 64, 64) == MMA[1]
    assert choose((12, 0), 170, 8192, 8192).kernel == "mma"
    assert choose((7, 5), 40, 8192, 8192) == POPC
    for capability in ((9, 0), (8, 0), (7, 5)):
        for rows in (1, 2, 8):
            assert choose(capability, h200, rows, 4096).kernel == "few_rows"
        assert choose(capability, h200, 17, 4096).kernel != "few_rows"
    shared_kib = {(7, 5): 64, (8, 0): 163, (8, 6): 99, (9, 0): 227}  # CUDA C++ Programming Guide, of a block
    for capability, most in shared_kib.items():
        for variant in ALL_VARIANTS:
            if target(capability) in variant.targets:
                assert variant.shared_bytes <= most * 1024, variant


def test_a_product_by_another_variant_shares_its_weights() -> None:
    rng = np.random.default_rng(3)
    a, b = signs(rng, 20, 150), signs(rng, 40, 150)
    device = Spy((9, 0))
    first = BinaryGemm(device, words(b), 150)
    second = first.by(MMA[1])
    x = pack(device, torch.from_numpy(a))
    for product, kernel in ((first, "binary_gemm_wgmma"), (second, "binary_gemm_mma")):
        out = product(x)
        assert isinstance(out, torch.Tensor)
        assert np.array_equal(out.numpy(), a.astype(np.int32) @ b.T.astype(np.int32))
        assert device.asked[-1][1] == kernel


def test_an_empty_batch_launches_nothing() -> None:
    device = EmulatedDevice((9, 0))
    gemm = BinaryGemm(device, words(np.ones((3, 40), np.int8)), 40)
    y = gemm(empty_bits(device, 0, 40, sums=True))
    assert isinstance(y, torch.Tensor)
    assert y.shape == (0, 3)
    assert device.launches == []


def test_bad_arguments_are_refused() -> None:
    device = EmulatedDevice((7, 5))
    weights = words(np.ones((3, 40), np.int8))
    gemm = BinaryGemm(device, weights, 40)
    x = empty_bits(device, 2, 40, sums=True)
    with pytest.raises(EngineError, match=r"K = 536870912 elements"):
        BinaryGemm(device, weights, 2**29)
    with pytest.raises(ValueError, match="70 bits are 3 words a row, but the array has 2"):
        BinaryGemm(device, weights, 70)
    with pytest.raises(ValueError, match=r"thresholds has shape \(2,\), expected \(3,\)"):
        BinaryGemm(device, weights, 40, Threshold(np.zeros(2, np.int32), np.zeros(1, np.uint32)))
    with pytest.raises(ValueError, match="x has 41 elements a row, but the weights have 40"):
        gemm(empty_bits(device, 2, 41, sums=True))
    with pytest.raises(ValueError, match=r"out has shape \(2, 4\), expected \(2, 3\)"):
        gemm(x, torch.empty((2, 4), dtype=torch.int32))
    with pytest.raises(ValueError, match="Raw does not write to Bits"):
        gemm(x, x)
    with pytest.raises(ValueError, match=r"torch.float64 cannot be packed"):
        pack(device, torch.zeros((2, 3), dtype=torch.float64))
    with pytest.raises(ValueError, match=r"contiguous matrix, but x has shape \(3, 2\)"):
        pack(device, torch.zeros((2, 3)).T)


def test_every_variant_is_in_the_catalog_once() -> None:
    listed = [(entry.file, tuple(sorted(entry.defines.items()))) for entry in binary_gemm.ENTRIES]
    assert len(set(listed)) == len(listed) == 3 * len(ALL_VARIANTS)
    assert all(entry in entries() for entry in binary_gemm.ENTRIES)
