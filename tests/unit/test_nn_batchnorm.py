"""The BatchNorm line of the numerics contract, against PyTorch's eager kernel, float for float.

α = γ·(1/sqrt(var + ε)), β′ = fma(-mean, α, β), y = fma(x, α, β′), everything in float32. NumPy has no fma:
the float64 product of two float32 is exact, so rounding the float64 sum *to odd* and then to float32 rounds
once (Boldo and Melquiond, 2008). Fractions check that emulation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

F32 = npt.NDArray[np.float32]
needs_vector_kernel = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="the contract is stated for PyTorch's AVX2 and AVX-512 kernels; this machine or "
    "ATEN_CPU_CAPABILITY selects another, which differs in the last bits",
)
BATCHES = [1, 2, 3, 8, 15, 17, 64, 100, 257]
CHANNELS = [1, 2, 3, 7, 10, 15, 16, 17, 31, 33, 63, 65, 100, 511]


def fma(a: F32, b: F32, c: F32) -> F32:
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = np.broadcast_to(c.astype(np.float64), product.shape)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)  # exact: Knuth's two-sum
    to_odd = (error != 0) & (total.view(np.int64) & 1 == 0)
    total = np.where(to_odd, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)
    return total.astype(np.float32)


def contract(x: F32, gamma: F32, beta: F32, mean: F32, var: F32, eps: float) -> F32:
    alpha = gamma * (np.float32(1) / np.sqrt(var + np.float32(eps)))
    return fma(x, alpha, fma(-mean, alpha, beta))


def case(channels: int, eps: float, seed: int) -> tuple[nn.BatchNorm1d, tuple[F32, F32, F32, F32]]:
    rng = np.random.default_rng(seed)
    gamma, beta, mean = (rng.standard_normal(channels).astype(np.float32) for _ in range(3))
    mean *= 30
    var = (rng.random(channels) * 500).astype(np.float32)
    gamma[::7] = 0
    norm = nn.BatchNorm1d(channels, eps=eps).eval()
    with torch.no_grad():
        for tensor, array in (
            (norm.weight, gamma),
            (norm.bias, beta),
            (norm.running_mean, mean),
            (norm.running_var, var),
        ):
            tensor.copy_(torch.from_numpy(array))
    return norm, (gamma, beta, mean, var)


def count_deviations() -> tuple[int, int]:
    """(values that differ, values compared): batch sizes, channel counts, integer and real inputs, two ε."""
    different = compared = 0
    for seed, (n, c) in enumerate((n, c) for n in BATCHES for c in CHANNELS):
        norm, parameters = case(c, 1e-4 if seed % 2 else 1e-5, seed)
        rng = np.random.default_rng(seed)
        for x in (rng.integers(-c, c + 1, (n, c)), rng.standard_normal((n, c)) * 30):
            x32 = x.astype(np.float32)
            with torch.no_grad():
                y = norm(torch.from_numpy(x32)).numpy()
            different += int((y.view(np.int32) != contract(x32, *parameters, norm.eps).view(np.int32)).sum())
            compared += y.size
    return different, compared


def test_the_emulated_fma_rounds_once() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (
        (rng.standard_normal(4000) * 2.0 ** rng.integers(-12, 13, 4000)).astype(np.float32) for _ in range(3)
    )
    c[:2000] = -(a[:2000] * b[:2000])  # cancellation: the case where two roundings go wrong
    c[2000:3000] *= np.float32(2**-20)
    for u, v, w, got in zip(a.tolist(), b.tolist(), c.tolist(), fma(a, b, c).tolist(), strict=True):
        exact = Fraction(u) * Fraction(v) + Fraction(w)
        below, above = (float(np.nextafter(np.float32(got), np.float32(s))) for s in (-np.inf, np.inf))
        error = abs(Fraction(got) - exact)
        assert error <= abs(Fraction(below) - exact)
        assert error <= abs(Fraction(above) - exact)
    assert (fma(a, b, c) != a * b + c).sum() > 1000


@needs_vector_kernel
def test_eval_batchnorm_is_the_contracts_expression() -> None:
    different, compared = count_deviations()
    assert compared > 500_000
    assert different == 0


@needs_vector_kernel
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "AVX2", reason="the test above just ran on AVX2"
)
def test_the_avx2_kernel_agrees_too() -> None:
    code = (
        "import torch, test_nn_batchnorm as t\n"
        "assert torch.backends.cpu.get_cpu_capability() == 'AVX2'\n"
        "different, compared = t.count_deviations()\n"
        "print(different, compared > 500_000)"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == ["0", "True"], result.stderr


@needs_vector_kernel
@pytest.mark.parametrize("magnitude", [1e-20, 1e-10, 1e10, 1e18])
def test_agreement_holds_for_extreme_values(magnitude: float) -> None:
    compared = 0
    for n, c in ((1, 1), (5, 33), (33, 511)):
        norm, (gamma, beta, mean, var) = case(c, 1e-4, seed=c)
        rng = np.random.default_rng(c)
        x = (rng.standard_normal((n, c)) * 10.0 ** rng.integers(-38, 38, (n, c))).astype(np.float32)
        factor = np.float32(magnitude)
        with torch.no_grad():
            norm.weight.mul_(magnitude)
            norm.bias.mul_(magnitude)
            y = norm(torch.from_numpy(x)).numpy()
        with np.errstate(over="ignore"):
            expected = contract(x, gamma * factor, beta * factor, mean, var, 1e-4)
        assert np.array_equal(y, expected, equal_nan=True)
        compared += int(np.isfinite(y).sum())
    assert compared > 1000


@needs_vector_kernel
def test_three_axes_and_no_affine_agree() -> None:
    norm, parameters = case(33, 1e-4, seed=5)
    x = np.random.default_rng(6).standard_normal((9, 33, 7)).astype(np.float32)
    shaped = tuple(p[:, None] for p in parameters)
    with torch.no_grad():
        assert np.array_equal(norm(torch.from_numpy(x)).numpy(), contract(x, *shaped, 1e-4))
    plain = nn.BatchNorm1d(33, affine=False).eval()
    x2 = x[:, :, 0].copy()
    ones, zeros = np.ones(33, np.float32), np.zeros(33, np.float32)
    assert np.array_equal(plain(torch.from_numpy(x2)).numpy(), contract(x2, ones, zeros, zeros, ones, 1e-5))


@needs_vector_kernel
def test_a_non_contiguous_input_takes_another_kernel_of_pytorch() -> None:
    """The known limit of the line: for a transposed input PyTorch normalizes first, then applies γ and β.

    Linear layers always hand over contiguous tensors. Should this test fail one day, the limit is gone.
    """
    norm, parameters = case(65, 1e-4, seed=7)
    x = (np.random.default_rng(8).standard_normal((33, 65)) * 30).astype(np.float32)
    with torch.no_grad():
        y = norm(torch.from_numpy(x.T.copy()).T).numpy()
    expected = contract(x, *parameters, 1e-4)
    assert (y != expected).any()
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
