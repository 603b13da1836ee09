"""Decoded media to the arrays that graphs read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bundle.decode import Waveform
from app.bundle.errors import NoModality, UnreadModality
from app.bundle.manifest import AudioInput, ImageInput, Inputs, TextInput
from app.bundle.prepare import Preparer, TextPreparer, prepare_audio, prepare_image
from app.bundle.sample import RawInputs, Sample, collate
from tests import tiny

INPUTS = tiny.inputs()
IMAGE, TEXT, AUDIO = INPUTS.image, INPUTS.text, INPUTS.audio
assert isinstance(IMAGE, ImageInput)
assert isinstance(TEXT, TextInput)
assert isinstance(AUDIO, AudioInput)


def image_that(**changes: Any) -> ImageInput:
    return ImageInput.model_validate(IMAGE.model_dump() | changes)


FITS = {
    "crop": IMAGE,
    "pad": image_that(fit="pad", resize=None, background=9),
    "stretch": image_that(fit="stretch", resize=None),
}


@pytest.mark.parametrize("fit", FITS)
@given(width=st.integers(1, 90), height=st.integers(1, 90))
def test_any_size_becomes_the_fixed_size(fit: str, width: int, height: int) -> None:
    pixels = prepare_image(np.full((height, width, 3), 9, np.uint8), FITS[fit])
    assert pixels.shape == (IMAGE.height, IMAGE.width, 3)
    assert (pixels == 9).all()


def test_a_padded_image_is_whole_and_in_proportion_amid_the_background() -> None:
    wide = np.full((4, 16, 3), 200, np.uint8)
    pixels = prepare_image(wide, image_that(fit="pad", resize=None, background=30))
    assert pixels[:, :, 0].tolist() == [[30] * 8] * 3 + [[200] * 8] * 2 + [[30] * 8] * 3


def test_a_stretched_image_is_whole_and_out_of_proportion() -> None:
    halves = np.full((4, 64, 3), 200, np.uint8)
    halves[:, :32] = 10
    row = prepare_image(halves, FITS["stretch"])[0, :, 0].tolist()
    assert row[:3] + row[-3:] == [10] * 3 + [200] * 3
    assert 10 < row[3] < row[4] < 200


def test_the_centre_is_kept() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (prepare_image(wide, IMAGE) == 200).all()


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(prepare_image(pixels, IMAGE), pixels)


def test_the_crop_may_be_smaller_than_the_resize() -> None:
    spec = IMAGE.model_copy(update={"resize": 16})
    ring = np.full((16, 16, 3), 255, np.uint8)
    ring[4:12, 4:12] = 7
    assert (prepare_image(ring, spec) == 7).all()


def test_stereo_is_mixed_and_resampled() -> None:
    time_s = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * time_s).astype(np.float32)
    mono = prepare_audio(Waveform(np.stack([tone, np.zeros_like(tone)], axis=1), 16_000), AUDIO)
    assert mono.dtype == np.float32
    assert len(mono) == 8000
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000) / 2
    assert np.abs(mono - expected)[100:-100].max() < 1e-3


def test_a_very_short_recording_is_padded_with_silence() -> None:
    mono = prepare_audio(Waveform(np.ones((3, 1), np.float32), 8000), AUDIO)
    assert mono.tolist() == [1] * 3 + [0] * (AUDIO.min_samples - 3)


def test_tokens_beyond_the_limit_are_reported() -> None:
    tokenize = TextPreparer(tiny.tokenizer_json(), TEXT)
    ids, warnings = tokenize("a" * 64)
    assert (len(ids), warnings) == (64, ())
    ids, [warning] = tokenize("a" * 65)
    assert len(ids) == 64
    assert (warning.part, warning.code) == ("text", "truncated")
    assert "64 of 65" in warning.message


def test_typing_a_special_token_does_not_make_one() -> None:
    ids, _ = TextPreparer(tiny.tokenizer_json(), TEXT)("<pad>")
    assert 0 not in ids
    assert len(ids) == 5


def test_a_tokenizer_is_shared_by_threads() -> None:
    tokenize = TextPreparer(tiny.tokenizer_json(), TEXT)
    texts = [f"text number {index}" for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert [ids.tolist() for ids, _ in pool.map(tokenize, texts)] == [
            tokenize(t)[0].tolist() for t in texts
        ]


def test_nothing_to_predict_from_is_said() -> None:
    with pytest.raises(NoModality, match="image, text and audio"):
        Preparer(INPUTS, {TEXT.tokenizer: tiny.tokenizer_json()})(RawInputs())


def test_a_modality_that_the_model_does_not_read_is_refused() -> None:
    with pytest.raises(UnreadModality, match="reads image, not audio"):
        Preparer(Inputs(image=IMAGE), {})(RawInputs(audio=tiny.tone(1)))


def test_collate_pads_and_remembers_who_brought_what() -> None:
    short, long = np.array([5], np.int32), np.array([1, 2, 3], np.int32)
    batch = collate(
        [Sample(text=short), Sample(image=np.zeros((8, 8, 3), np.uint8)), Sample(text=long)], INPUTS
    )
    assert batch.present.tolist() == [[False, True, False], [True, False, False], [False, True, False]]
    image, text = batch.runs
    assert (image.modality, image.rows.tolist()) == ("image", [1])
    assert (text.modality, text.rows.tolist(), text.length, text.padding) == ("text", [0, 2], 3, 2)
    assert text.inputs["text"].tolist() == [[5, 0, 0], [1, 2, 3]]


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=40))
def test_rows_of_like_length_run_together(lengths: list[int]) -> None:
    """Every row once; no run pads more than another run would cost; a single length is a single run."""
    batch = collate([Sample(audio=np.ones(n, np.float32)) for n in lengths], INPUTS)
    assert sorted(row for run in batch.runs for row in run.rows) == list(range(len(lengths)))
    for run in batch.runs:
        chosen = [lengths[row] for row in run.rows]
        assert run.length == max(chosen)
        assert run.padding == sum(run.length - n for n in chosen) <= 2_000
        assert run.inputs["audio_length"].tolist() == chosen
    assert len(batch.runs) <= len(set(lengths))
