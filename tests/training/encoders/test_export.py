from __future__ import annotations

import pytest
import torch

from tests.training.encoders.exported import assert_exports
from tests.training.encoders.tiny_encoders import SPECS, TEXT, TEXT_SPECS, inputs, tiny


@pytest.mark.parametrize("name", sorted(set(SPECS) - {"plain", "convolution", "n-grams"}))
def test_the_graph_answers_as_the_encoder_for_any_number_of_rows(name: str) -> None:
    batches = [inputs(name, rows=rows) for rows in (3, 1, 2, 5)]
    if name in TEXT_SPECS:  # the longest text, too; of one token is the second batch
        batches.append({"text": torch.randint(1, 60, (2, TEXT.max_tokens), dtype=torch.int32)})
    assert_exports(tiny(name), *batches)
