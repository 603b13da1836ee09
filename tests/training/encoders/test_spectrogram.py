from __future__ import annotations

import numpy as np
import torch

from training.encoders.audio import SpectrogramMask
from training.encoders.spectrogram import LogMel


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
