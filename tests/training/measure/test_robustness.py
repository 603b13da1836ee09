from __future__ import annotations

import numpy as np
import pytest

from tests.training.simulated import Floats, calibrated, softmax
from training.data.items import Clips, Images, Texts
from training.measure.robustness import (
    AUDIO_SNR_DB,
    IMAGE_NOISE,
    TEXT_DAMAGE,
    damaged_texts,
    noisy_clips,
    noisy_images,
    robustness,
)


def test_a_curve_falls_as_the_noise_rises() -> None:
    logits, targets = calibrated(600, sharpness=6)
    noise = np.random.default_rng(1).normal(size=logits.shape)

    def answer(level: float) -> Floats:
        return softmax(logits + 20 * level * noise)

    curve = robustness(
        answer, IMAGE_NOISE, targets, np.arange(600), spoiled="image", subset="image+text", draws=50
    )
    assert [point.level for point in curve.points] == list(IMAGE_NOISE)
    accuracy = [point.accuracy.value for point in curve.points]
    assert accuracy[0] == (logits.argmax(axis=1) == targets).mean()
    assert accuracy == sorted(accuracy, reverse=True)
    assert curve.points[-1].nll.value > curve.points[0].nll.value
    assert all(point.accuracy.interval is not None for point in curve.points)


def test_images_have_the_noise_that_was_asked_for() -> None:
    grey = Images(np.full((1_200, 8, 8, 1), 128, np.uint8))  # more than are drawn at once
    np.testing.assert_array_equal(noisy_images(grey, deviation=0, seed=1).pixels, grey.pixels)
    noisy = noisy_images(grey, deviation=0.1, seed=1).pixels
    assert noisy.dtype == np.uint8
    assert noisy.astype(float).std() == pytest.approx(25.5, rel=0.02)
    np.testing.assert_array_equal(noisy, noisy_images(grey, deviation=0.1, seed=1).pixels)


def test_clips_have_the_ratio_that_was_asked_for() -> None:
    tone = np.sin(np.arange(8_000) / 5).astype(np.float32)
    clips = Clips.of([0.1 * tone, np.zeros(100, np.float32), 0.2 * tone])
    for snr_db in (20.0, 0.0, -3.0):
        noisy = noisy_clips(clips, snr_db=snr_db, seed=1)
        for item in (0, 2):
            noise = noisy[item] - clips[item]
            measured = 10 * np.log10(np.square(clips[item]).mean() / np.square(noise).mean())
            assert measured == pytest.approx(snr_db, abs=0.3)
    assert not noisy[1].any()
    loud = noisy_clips(clips, snr_db=-20, seed=1)
    assert np.abs(loud.samples).max() == 1
    assert loud.samples.dtype == np.float32


def test_texts_are_damaged_as_often_as_asked() -> None:
    texts = Texts(("abcdefghijklmnopqrst",) * 50)

    def whole(rate: float) -> int:
        return damaged_texts(texts, rate=rate, seed=1).strings.count(texts.strings[0])

    assert whole(0.0) == 50
    assert whole(0.02) == pytest.approx(50 * 0.98**20, abs=12)
    assert whole(0.8) == 0


def test_levels_go_from_clean_to_hopeless() -> None:
    assert (IMAGE_NOISE[0], IMAGE_NOISE[-1]) == (0, 1)
    assert (AUDIO_SNR_DB[0], AUDIO_SNR_DB[-1]) == (20, -20)
    assert (TEXT_DAMAGE[0], TEXT_DAMAGE[-1]) == (0, 0.8)
