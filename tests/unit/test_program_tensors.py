"""Packing, and the sizes that tensor types give."""

from __future__ import annotations

import numpy as np
import pytest

from onebit.program import DType, ProgramError, TensorType, pack_bits, unpack_bits, words
from program_samples import HURTING


@pytest.mark.parametrize("channels", HURTING)
def test_bit_c_mod_32_of_word_c_div_32(channels: int) -> None:
    for c in range(channels):
        positive = np.zeros((2, channels), bool)
        positive[1, c] = True
        packed = pack_bits(positive)
        assert packed.dtype == np.uint32
        assert packed.shape == (2, words(channels)) == (2, (channels + 31) // 32)
        assert packed[0].tolist() == [0] * words(channels)
        assert packed[1].tolist() == [1 << c % 32 if w == c // 32 else 0 for w in range(words(channels))]


@pytest.mark.parametrize("channels", HURTING)
def test_unpack_is_the_inverse_and_padding_is_zero(channels: int) -> None:
    positive = np.random.default_rng(channels).random((3, 2, channels)) < 0.5
    packed = pack_bits(positive)
    assert (unpack_bits(packed, channels) == positive).all()
    full = pack_bits(np.ones(channels, bool))
    assert int(full[-1]) == (1 << (channels - 1) % 32 + 1) - 1


def test_words_are_little_endian_in_memory() -> None:
    packed = pack_bits(np.arange(64) == 8)
    assert packed.astype("<u4").tobytes() == bytes([0, 1, 0, 0, 0, 0, 0, 0])


def test_types_know_their_storage() -> None:
    packed = TensorType(DType.BITS, (5, 33))
    assert packed.storage_shape == (5, 2)
    assert packed.nbytes == 40
    assert packed.elements == 165
    assert str(packed) == "bits[5, 33]"
    assert TensorType(DType.F32, (5, 33)).nbytes == 660
    assert TensorType(DType.I8, ()).nbytes == 1
    with pytest.raises(ProgramError, match="no channel axis"):
        _ = TensorType(DType.F32, ()).channels
