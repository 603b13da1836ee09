from __future__ import annotations

import numpy as np
import pytest
import torch
from training.spectrogram import LogMel

from training.encoders import SpectrogramMask
from training.model import Model
from training.recipe import Recipe


@pytest.fixture
def model(recipe: Recipe) -> Model:
    torch.manual_seed(0)
    return Model(recipe, vocabulary=300).eval()


@pytest.mark.parametrize("tokens", [1, 2, 5, 17])
@torch.inference_mode()
def test_a_padded_text_answers_as_it_does_alone(model: Model, tokens: int) -> None:
    alone = torch.randint(1, 300, (1, tokens), dtype=torch.int32)
    padded = torch.nn.functional.pad(alone, (0, 23))
    torch.testing.assert_close(model.text(padded), model.text(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1_000, 1_001, 1_079, 1_640, 4_321, 8_000])
@torch.inference_mode()
def test_a_padded_recording_answers_as_it_does_alone(model: Model, samples: int) -> None:
    alone = 0.1 * torch.randn(1, samples)
    length = torch.tensor([samples], dtype=torch.int32)
    for padding in (1, 80, 777, 6_000):
        padded = torch.nn.functional.pad(alone, (0, padding))
        torch.testing.assert_close(model.audio(padded, length), model.audio(alone, length), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_rubbish_in_the_padding_of_a_recording_is_not_heard(model: Model) -> None:
    quiet = 0.1 * torch.randn(2, 4_000)
    length = torch.tensor([1_500, 4_000], dtype=torch.int32)
    loud = quiet.clone()
    loud[0, 1_500:] = 1.0
    torch.testing.assert_close(model.audio(loud, length), model.audio(quiet, length), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_rows_do_not_see_each_other(model: Model) -> None:
    image = torch.randint(256, (5, 28, 28, 3), dtype=torch.uint8)
    together = model.image(image)
    for row in range(5):
        torch.testing.assert_close(model.image(image[row : row + 1]), together[row : row + 1])


@torch.inference_mode()
def test_loudness_and_contrast_matter_little(model: Model) -> None:
    sound, length = 0.1 * torch.randn(1, 4_000), torch.tensor([4_000], dtype=torch.int32)
    torch.testing.assert_close(
        model.audio(sound, length), model.audio(0.05 * sound, length), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("value", [0.0, 1.0])
@torch.inference_mode()
def test_silence_and_blank_images_give_numbers(model: Model, value: float) -> None:
    sound = torch.full((1, 2_000), value)
    blank = torch.full((1, 28, 28, 3), int(255 * value), dtype=torch.uint8)
    assert model.audio(sound, torch.tensor([2_000], dtype=torch.int32)).isfinite().all()
    assert model.image(blank).isfinite().all()


def test_the_spectrogram_finds_a_tone_in_its_band() -> None:
    picture = LogMel(rate_hz=8_000, bands=40)
    time = torch.arange(4_000) / 8_000
    for hz in (200.0, 1_000.0, 3_000.0):
        seen, valid = picture(torch.sin(2 * torch.pi * hz * time).unsqueeze(0), torch.tensor([4_000]))
        band = int(seen.mean(dim=2).argmax())
        centre_bin = int(picture.filters[band].argmax())
        assert abs(centre_bin * 8_000 / 256 - hz) < 80
        assert seen.max() == 1
        assert valid.all()


def test_the_spectrogram_agrees_with_torch_stft() -> None:
    picture = LogMel(rate_hz=8_000, bands=40)
    sound = torch.randn(1, 4_000)
    waves = torch.nn.functional.conv1d(sound.unsqueeze(1), picture.kernel, stride=picture.hop)
    ours = waves[:, :129].square() + waves[:, 129:].square()
    theirs = (
        torch.stft(
            torch.nn.functional.pad(sound, (0, 56)),
            n_fft=256,
            hop_length=80,
            win_length=256,
            window=torch.nn.functional.pad(torch.hann_window(200), (0, 56)),
            center=False,
            return_complex=True,
        )
        .abs()
        .square()
    )
    frames = min(ours.shape[2], theirs.shape[2])
    np.testing.assert_allclose(ours[..., :frames], theirs[..., :frames], atol=1e-2, rtol=1e-3)


def test_every_band_hears_something() -> None:
    assert (LogMel(rate_hz=8_000, bands=40).filters.sum(dim=1) > 0).all()


def test_the_spectrogram_is_hidden_in_training_only() -> None:
    hide = SpectrogramMask(bands=6, frames=10)
    picture = torch.ones(50, 40, 60)
    torch.testing.assert_close(hide.eval()(picture), picture)
    hidden = (hide.train()(picture) == 0).float().mean()
    assert 0.05 < hidden < 0.3


@torch.inference_mode()
def test_towers_have_the_width_that_the_manifest_announces(recipe: Recipe, model: Model) -> None:
    length = torch.tensor([2_000], dtype=torch.int32)
    features = {
        "image": model.image(torch.zeros(1, 28, 28, 3, dtype=torch.uint8)),
        "text": model.text(torch.ones(1, 3, dtype=torch.int32)),
        "audio": model.audio(torch.zeros(1, 2_000), length),
    }
    for name in recipe.inputs.names:
        assert features[name].shape == (1, recipe.inputs.encoder(name).features)
