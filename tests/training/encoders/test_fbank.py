from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor

from training.encoders.fbank import KaldiFbank

# 128 bands are more than 257 bins can fill at low frequencies: Kaldi's filters, and the model's, are so.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values:UserWarning")


@pytest.mark.parametrize("samples", [400, 559, 560, 16_000])
def test_the_filterbank_is_the_one_that_transformers_computes(samples: int) -> None:
    theirs = ASTFeatureExtractor(max_length=128, do_normalize=False)
    sound = 0.2 * np.random.default_rng(samples).standard_normal(samples).astype(np.float32) + 0.1
    expected = torch.as_tensor(theirs(sound, sampling_rate=16_000)["input_values"][0])
    fbank = KaldiFbank(rate_hz=16_000, bands=128)
    found = fbank(torch.from_numpy(sound).unsqueeze(0))[0]
    assert len(found) == fbank.frames(torch.tensor(samples)) == (samples - 400) // 160 + 1
    torch.testing.assert_close(found, expected[: len(found)], atol=1e-3, rtol=0)


def test_silence_is_as_quiet_as_transformers_has_it() -> None:
    theirs = ASTFeatureExtractor(max_length=98, do_normalize=False)
    expected = torch.as_tensor(theirs(np.zeros(16_000, np.float32), sampling_rate=16_000)["input_values"][0])
    found = KaldiFbank(rate_hz=16_000, bands=128)(torch.zeros(1, 16_000))[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
