from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.encoders.exported import assert_exports
from training.encoders.audio import SpectrogramMask
from training.encoders.contract import Encoded, Encoder
from training.encoders.spectrogram import LogMel

SILENCE = {"audio": torch.zeros(2, 4_000), "audio_length": torch.tensor([4_000, 4_000], dtype=torch.int32)}


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


def test_an_absolute_spectrogram_tells_loud_from_quiet() -> None:
    picture = LogMel(rate_hz=8_000, bands=40, is_relative=False)
    tone = torch.sin(2 * torch.pi * 1_000 * torch.arange(4_000) / 8_000).unsqueeze(0)
    loud, _ = picture(tone, torch.tensor([4_000]))
    quiet, _ = picture(0.1 * tone, torch.tensor([4_000]))
    assert abs(float(loud.max()) - 1) < 0.02
    assert abs(float(loud.max() - quiet.max()) - 20 / 80) < 0.01  # 20 of 80 dB


@pytest.mark.parametrize("is_relative", [True, False])
def test_silence_is_a_picture_of_zeros(*, is_relative: bool) -> None:
    picture, valid = LogMel(rate_hz=8_000, bands=40, is_relative=is_relative)(*SILENCE.values())
    assert valid.all()
    assert picture.abs().max() == 0


def test_the_exported_picture_of_silence_is_the_same() -> None:
    torch.manual_seed(0)
    noise = {**SILENCE, "audio": torch.randn_like(SILENCE["audio"])}
    half = {**SILENCE, "audio": torch.cat([noise["audio"][:1], SILENCE["audio"][1:]])}
    assert_exports(Pictured(), noise, SILENCE, half)


class Pictured(Encoder):
    """Says the picture itself: what a graph makes of it is not hidden by layers after it."""

    def __init__(self) -> None:
        super().__init__(width=20, tokens=1)
        self.picture = LogMel(rate_hz=8_000, bands=20)

    def forward(self, audio: Tensor, audio_length: Tensor) -> Encoded:
        picture, _ = self.picture(audio, audio_length)
        return Encoded(tokens=picture.transpose(1, 2), pooled=picture.amax(dim=2))
