"""The energy estimate against sums worked out by hand from the paper's table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onebit.cli import main
from onebit.program import Program, estimate_energy
from program_samples import bytes_mlp, float_zoo


def test_a_two_layer_network_by_hand() -> None:
    """784 bytes → u8 product, threshold, 33 bits → binary product, affine, 3 floats."""
    energy = estimate_energy(bytes_mlp(784))
    # 784·33 additions; 33 comparisons; 33·3 one-bit products at 3 additions in 32; 3 scales and biases.
    packed = 784 * 33 * 0.1 + 33 * 0.1 + 99 * 0.3 / 32 + 3 * 4.6
    assert energy.packed.arithmetic == pytest.approx(packed)
    assert energy.float32.arithmetic == pytest.approx((784 * 33 + 33 + 99 + 3) * 4.6)
    # Constants: 33 rows of 25 words, 33 thresholds, 2 words of flips, 3 rows of 2 words, 3 scales, 3 biases.
    stored = 4 * (33 * 25 + 33 + 2 + 3 * 2 + 3 + 3)
    assert energy.packed.weights == pytest.approx(stored / 8 * 10)  # 3,488 bytes: 8 KB
    floats = 4 * (33 * 784 + 33 + 33 + 99 + 3 + 3)
    assert energy.float32.weights == pytest.approx(floats / 8 * 100)  # 104,172 bytes: 1 MB
    # Written and read: the image twice, the hidden bits twice, the scores once; sums stay in registers.
    assert energy.packed.activations == pytest.approx((2 * 784 + 2 * 8 + 12) / 8 * 10)
    assert energy.float32.activations == pytest.approx((2 * 784 + 2 * 33 * 4 + 12) / 8 * 10)
    assert energy.ratio == pytest.approx(energy.float32.total / energy.packed.total)


def test_weights_beyond_a_megabyte_come_from_dram() -> None:
    program = bytes_mlp(40_000)
    energy = estimate_energy(program)
    floats = 4 * (33 * 40_000 + 33 + 33 + 99 + 3 + 3)
    assert energy.float32.weights == pytest.approx(floats / 8 * 1300)
    assert energy.packed.weights < energy.float32.weights / 32


@pytest.mark.parametrize("program", [float_zoo(66, 33)])
def test_real_networks_have_energy_too(program: Program) -> None:
    energy = estimate_energy(program)
    assert 0 < energy.packed.total <= energy.float32.total


def test_inspect_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.onebit"
    program = bytes_mlp(784)
    program.save(path)
    assert main(["inspect", str(path)]) == 0
    assert "energy" not in capsys.readouterr().out
    assert main(["inspect", str(path), "--energy"]) == 0
    out = capsys.readouterr().out
    assert "energy of an inference" in out
    assert f"{estimate_energy(program).packed.total / 1000:.2f} nJ" in out
    assert f"{estimate_energy(program).ratio:.0f}" in out
    assert main(["inspect", str(path), "--energy", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["energy"] == estimate_energy(program).to_dict()
