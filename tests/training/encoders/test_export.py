from __future__ import annotations

import pytest
import torch

from tests.training.encoders.exported import assert_exports
from tests.training.encoders.tiny_encoders import (
    AUDIO_SPECS,
    IMAGE_SPECS,
    SPECS,
    TEXT,
    TEXT_SPECS,
    inputs,
    tiny,
)
from training.encoders.specs import NgramText

_EXPORTED = (
    "recall",
    "residual",
    "transformer",
    "n-grams in parts",
    "kernel",  # describes as `described` does
    "kernel of n-grams",
)
_LIKE = (
    "plain in cells",
    "convolution in parts",
    "mel",
    "mel residual",
    "described",
    "statistics",
    "kernel of statistics",
)


@pytest.mark.parametrize(
    "name", [*_EXPORTED, *(pytest.param(name, marks=pytest.mark.thorough) for name in _LIKE)]
)
def test_the_graph_answers_as_the_encoder_for_any_number_of_rows(name: str) -> None:
    batches = [inputs(name, rows=rows) for rows in (3, 1, 2, 5)]
    if name in TEXT_SPECS:  # the longest text, too; of one token is the second batch
        batches.append({"text": torch.randint(1, 60, (2, TEXT.max_tokens), dtype=torch.int32)})
    if isinstance(SPECS[name], NgramText):  # and the highest ids, where a hash might overflow
        batches.append({"text": torch.randint(2**31 - 9, 2**31, (2, 9), dtype=torch.int32)})
    if name in IMAGE_SPECS:  # flat paper has no gradient to divide by
        batches.append({"image": torch.full((2, 32, 34, 3), 255, dtype=torch.uint8)})
    if name in AUDIO_SPECS:  # silence has no logarithm
        batches.append({**batches[0], "audio": torch.zeros_like(batches[0]["audio"])})
    assert_exports(tiny(name), *batches)
