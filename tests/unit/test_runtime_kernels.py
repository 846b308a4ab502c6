"""The kernels without a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onebit.program import pack_bits
from onebit.runtime import EngineError
from onebit.runtime.kernels import binary_matmul, pack_sign
from program_samples import HURTING, signs


@pytest.mark.parametrize("k", HURTING)
@pytest.mark.parametrize("threads", [1, 2])
def test_binary_matmul_equals_a_product_of_signs(k: int, threads: int, isa: str) -> None:
    rng = np.random.default_rng(k)
    for m, n in ((1, 1), (2, 33), (65, 31), (7, 511)):
        a, w = signs(rng, m, k), signs(rng, n, k)
        found = binary_matmul(pack_bits(a > 0), pack_bits(w > 0), k, threads=threads, isa=isa)
        assert found.dtype == np.int32
        assert np.array_equal(found, a.astype(np.int32) @ w.astype(np.int32).T)


def test_binary_matmul_does_not_overflow_sixteen_bits(isa: str) -> None:
    k = 70_001
    ones = pack_bits(np.ones((1, k), bool))
    assert binary_matmul(ones, ones, k, isa=isa).tolist() == [[k]]
    assert binary_matmul(ones, pack_bits(np.zeros((1, k), bool)), k, isa=isa).tolist() == [[-k]]


def test_binary_matmul_of_nothing() -> None:
    w = np.zeros((3, 1), np.uint32)
    assert binary_matmul(np.zeros((0, 1), np.uint32), w, 5).shape == (0, 3)
    assert binary_matmul(w, np.zeros((0, 1), np.uint32), 5).shape == (3, 0)


@pytest.mark.parametrize(
    ("a", "k", "words"),
    [
        (np.zeros((2, 2), np.uint32), 0, "k is 0"),
        (np.zeros((2, 2), np.uint32), 2.0, "k is 2.0"),
        (np.zeros((2, 2), np.uint32), 65, "needs 3 words"),
        (np.zeros((2, 2), np.int32), 33, "int32 \\(2, 2\\)"),
        (np.zeros(2, np.uint32), 33, "uint32 \\(2,\\)"),
        ([[1]], 33, "list"),
        (np.full((2, 2), 0xFFFFFFFF, np.uint32), 33, "padding"),
    ],
)
def test_binary_matmul_refuses(a: Any, k: Any, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        binary_matmul(a, np.zeros((2, 2), np.uint32), k)


@pytest.mark.parametrize("rows", [0, 2])
def test_binary_matmul_checks_threads_and_isa_whatever_the_size(rows: int) -> None:
    a, w = np.zeros((rows, 2), np.uint32), np.zeros((2, 2), np.uint32)
    for threads in (0, -1, 257, "2", 2.5, True, 2**32 + 1):
        with pytest.raises(EngineError, match=f"threads is {threads!r}"):
            binary_matmul(a, w, 33, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="no such instruction set"):
        binary_matmul(a, w, 33, isa="zzz")


@pytest.mark.parametrize("shape", [(1,), (3, 31), (2, 2, 32), (5, 33), (0, 4), (2, 511)])
def test_pack_sign(shape: tuple[int, ...], isa: str) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x.reshape(-1)[::5] = -0.0
    x.reshape(-1)[1::7] = -np.inf
    found = pack_sign(x, isa=isa)
    assert found.dtype == np.uint32
    assert np.array_equal(found, pack_bits(x >= 0))


def test_pack_sign_takes_a_strided_array() -> None:
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    assert np.array_equal(pack_sign(x.T), pack_bits(x.T >= 0))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(3), "float64 \\(3,\\)"),
        (np.float32(1), "float32"),
        (np.zeros((3, 0), np.float32), "\\(3, 0\\)"),
        (np.full(40, np.nan, np.float32), "NaN"),
    ],
)
def test_pack_sign_refuses(x: Any, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        pack_sign(x)
