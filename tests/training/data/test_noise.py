from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.noise import mixed


@given(snr_db=st.floats(-12, 12), loudness=st.floats(0.05, 0.9), seed=st.integers(0, 2**32 - 1))
def test_noise_lies_below_speech_by_what_was_asked(snr_db: float, loudness: float, seed: int) -> None:
    """Noise of one level shows where speech pauses, so the two can be told apart again."""
    rng = np.random.default_rng(seed)
    speech = np.concatenate([rng.uniform(-loudness, loudness, 400), np.zeros(100)]).astype(np.float32)
    noise = np.full(2_000, 0.3, np.float32)
    total = mixed(speech, noise, snr_db=snr_db, rng=rng)
    heard = total[-1]
    said = total - heard
    measured_db = 10 * np.log10(np.mean(said.astype(np.float64) ** 2) / float(heard) ** 2)
    assert measured_db == pytest.approx(snr_db, abs=0.1)  # 16 bits are what is lost
    assert np.abs(total).max() <= 1
    assert (total * 2**15 == np.rint(total * 2**15)).all()


def test_a_silent_stretch_of_noise_is_never_cut() -> None:
    rng = np.random.default_rng(0)
    noise = np.zeros(8_000, np.float32)
    noise[:500] = rng.uniform(-0.5, 0.5, 500)  # a bark, and the silence that pads its file
    speech = rng.uniform(-0.1, 0.1, 400).astype(np.float32)
    for _ in range(50):
        total = mixed(speech, noise, snr_db=0, rng=rng)
        rest = total - speech * (total @ speech) / (speech @ speech)
        assert np.mean(rest**2) > 0.5 * np.mean(speech**2) * (total @ speech / (speech @ speech)) ** 2


def test_the_same_seed_cuts_the_same() -> None:
    rng = np.random.default_rng(0)
    speech, noise = rng.uniform(-1, 1, (2, 500)).astype(np.float32)
    speech = speech[:100]
    first, again, other = (mixed(speech, noise, snr_db=-3, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
