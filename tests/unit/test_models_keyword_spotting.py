"""The keyword spotter by part: filters, shifts, loudness, levels, one-bit layers, and its packed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onebit import models
from onebit.lowering import convert
from onebit.models.keyword_spotting import FilterBank, KeywordSpotter, Levels, RandomShift, gabor_filters
from onebit.nn import BinaryConv1d
from onebit.program import DType, summarize
from parity.agreement import EXECUTORS, assert_hidden_bits_equal, assert_within_tolerance, eager


def tones(count: int, length: int, seed: int = 0) -> Tensor:
    """(count, 1, length): silence, and in its middle a tone and some noise, at loudnesses far apart."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, 1, length), np.float32)
    for i in range(count):
        part = slice(rng.integers(0, length // 4), rng.integers(length // 2, length))
        t = np.arange(part.stop - part.start)
        tone = np.sin(t * rng.uniform(0.1, 2.5)) + 0.1 * rng.normal(size=len(t))
        x[i, 0, part] = tone * 10.0 ** rng.uniform(-3, -0.5)
    return torch.from_numpy(x)


@pytest.mark.parametrize(("filters", "taps", "rate"), [(40, 64, 8000), (33, 129, 16000), (12, 48, 8000)])
def test_filters_peak_at_centres_equally_apart_in_mel(filters: int, taps: int, rate: int) -> None:
    bank = gabor_filters(filters, taps, rate)
    assert bank.shape == (filters, taps)
    assert bank.dtype == torch.float32
    torch.testing.assert_close(bank.square().sum(1), torch.ones(filters))
    spectrum = np.abs(np.fft.rfft(bank.numpy(), 8192, axis=1))
    peaks = spectrum.argmax(axis=1) * rate / 8192
    mel = np.linspace(2595 * math.log10(1 + 60 / 700), 2595 * math.log10(1 + rate / 1400), filters + 2)
    centres = 700 * (10 ** (mel[1:-1] / 2595) - 1)
    # At the ends of the band a filter's mirror image pulls the peak aside, by less than its own width.
    assert (np.abs(peaks - centres) < 0.6 * rate / taps).all()
    inside = (centres > 3 * rate / taps) & (centres < rate / 2 - 3 * rate / taps)
    assert (np.abs(peaks - centres)[inside] < 0.02 * rate / taps).all()


def test_shifts_are_whole_samples_in_both_directions_with_zeros_behind() -> None:
    x = torch.arange(1.0, 401.0).expand(64, 1, 400).contiguous()
    layer = RandomShift(7)
    torch.manual_seed(3)
    moved = layer(x)
    shifts = set()
    for row in moved[:, 0].tolist():
        (shift,) = {int(value) - 1 - place for place, value in enumerate(row) if value}
        assert row == [v if 1 <= v <= 400 else 0 for v in range(1 + shift, 401 + shift)]
        shifts.add(shift)
    assert shifts <= set(range(-7, 8))
    assert len(shifts) > 10
    torch.manual_seed(3)
    assert torch.equal(layer(x), moved), "drawn from another generator than torch's global one"
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(RandomShift(0)(x), x)


def test_the_bank_is_the_formula() -> None:
    torch.manual_seed(0)
    bank = FilterBank(filters=5, taps=16, stride=4, hop=20, sample_rate=8000)
    with torch.no_grad():
        bank.filters.weight.normal_()
        bank.log_half.normal_()
    x = tones(3, 300)
    got = bank(x).detach().numpy()
    assert got.shape == (3, 5, (300 - 16) // 4 // 5 - 1)
    w, half = bank.filters.weight[:, 0].detach().double().numpy(), np.exp(bank.log_half.detach().numpy())
    for i, sound in enumerate(x[:, 0].double().numpy()):
        level = sound / (np.abs(sound).mean() + 1e-5)
        places = np.array([np.abs(w @ level[s : s + 16]) for s in range(0, 300 - 15, 4)])
        frames = np.array([places[f : f + 10].mean(0) for f in range(0, len(places) - 9, 5)])
        np.testing.assert_allclose(got[i].T, frames / (frames + half.T), rtol=1e-4, atol=1e-6)


def test_loudness_does_not_matter_and_silence_is_nothing() -> None:
    bank = FilterBank(filters=9, taps=32, stride=8, hop=80, sample_rate=8000)
    x = tones(6, 2000)
    x /= x.abs().amax(dim=2, keepdim=True)
    assert (bank(x / 50) - bank(x)).abs().max() < 0.01
    assert bank(x).max() > 0.3
    assert bank(torch.zeros(2, 1, 2000)).unique().tolist() == [0.0]


def test_levels_are_a_thermometer() -> None:
    layer = Levels(channels=33, levels=3, activation="ste_sign")
    x = torch.rand(50, 33, 20, generator=torch.Generator().manual_seed(0))
    bits = layer(x).detach().reshape(50, 3, 33, 20)
    assert bits.unique().tolist() == [-1.0, 1.0]
    assert (bits[:, 1:] >= bits[:, :-1]).all()
    # A standard deviation of a uniform number is 1/√12; the thresholds lie at the mean and 0.7 of it around.
    for level, offset in enumerate((0.7, 0.0, -0.7)):
        far = (x - 0.5 - offset / math.sqrt(12)).abs() > 0.03
        assert torch.equal(bits[:, level][far] > 0, (x > 0.5 + offset / math.sqrt(12))[far])


def test_hidden_layers_see_signs_only_and_have_one_bit_weights() -> None:
    model = models.create_small("bnn_keyword_spotter")
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, BinaryConv1d):
            module.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
            assert module.quantized_weight()[0].abs().unique().tolist() == [1.0]
    model.classifier.register_forward_pre_hook(lambda m, args: seen.update(means=args[0]))
    model(tones(9, 700))
    assert list(seen) == ["body.conv1", "body.conv2", "body.conv3", "means"]
    assert all(seen[name].abs().unique().tolist() == [1.0] for name in list(seen)[:3])
    assert seen["means"].shape == (9, 65)


def trained_looking(**options: Any) -> KeywordSpotter:
    torch.manual_seed(2)
    model = models.create_small("bnn_keyword_spotter", **options)
    assert isinstance(model, KeywordSpotter)
    for seed in range(3):
        model(tones(31, model.input_shape[1], seed))
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input_shape": (1, 1503), "levels": 1, "hidden": (31, 65), "kernel_size": 3, "taps": 15},
        {"filters": 33, "levels": 2, "hidden": (), "stride": 5, "hop": 40, "activation": "approx_sign"},
    ],
    ids=str,
)
def test_packed_on_sounds_it_agrees_by_the_second_rule(options: dict[str, Any]) -> None:
    model = trained_looking(**options)
    x = tones(20, model.input_shape[1], seed=9)
    program = convert(model, x[:1])
    (expected,) = eager(model, x)
    for name, executor in EXECUTORS.items():
        flips = assert_within_tolerance(program, executor, x.numpy())
        assert flips.signs > 1000, name
        (found,) = executor(program, x.numpy())
        assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95, (name, flips)


def test_packed_on_silence_every_bit_is_the_same() -> None:
    """Of zeros the bank is exactly 0 in any order of summation, and all behind it is integer."""
    model = trained_looking()
    x = torch.zeros(2, 1, 700)
    assert assert_hidden_bits_equal(model, convert(model, x[:1]), x) > 1000


def test_packed_it_takes_samples_and_fits_into_64_kib(tmp_path) -> None:
    model = models.create("bnn_keyword_spotter").eval()
    program = convert(model, models.example_input(model, 1))
    kind = program.values[program.inputs[0]]
    assert (kind.dtype, kind.shape) == (DType.F32, (1, 8000))
    program.save(tmp_path / "words.onebit")
    summary = summarize(program)
    assert (tmp_path / "words.onebit").stat().st_size == summary.file_bytes < 64 * 1024
    # 81 frames · 120·96·5 + 40 · 96·128·5 + 20 · 128·128·5, behind 497 · 40·64, before 1,280
    assert summary.macs_1bit == 4_665_600 + 2_457_600 + 1_638_400
    assert summary.macs_other == 1_272_320 + 1_280


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shape": (2, 8000)}, r"input_shape must be \(1, samples\); got \(2, 8000\)"),
        ({"input_shape": (1, 28, 28)}, r"\(1, samples\)"),
        ({"hop": 44}, "hop must be a multiple of stride; got hop=44, stride=16"),
        ({"kernel_size": 4}, "kernel_size must be odd; got 4"),
        ({"shift": -1}, "shift must be at least 0; got -1"),
        ({"hidden": (33, 0)}, r"hidden must be a sequence of positive integers; got \(33, 0\)"),
        ({"activation": "sign"}, "unknown quantizer 'sign'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        models.create_small("bnn_keyword_spotter", **options)


def test_the_shortest_sound() -> None:
    with pytest.raises(
        ValueError, match=r"input_shape=\(1, 479\): 480 samples or more are needed for 4 frames"
    ):
        models.create_small("bnn_keyword_spotter", input_shape=(1, 479))
    model = models.create_small("bnn_keyword_spotter", input_shape=(1, 480))
    assert model.bank(torch.rand(2, 1, 480)).shape[2] == 4
    assert model(torch.rand(2, 1, 480)).shape == (2, 3)
