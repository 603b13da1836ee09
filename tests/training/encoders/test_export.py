from __future__ import annotations

import pytest
import torch

from tests.training.encoders.exported import assert_exports
from tests.training.encoders.tiny_encoders import SPECS, TEXT, inputs, tiny


@pytest.mark.parametrize("name", SPECS)
def test_the_graph_answers_as_the_encoder_for_any_number_of_rows(name: str) -> None:
    assert_exports(tiny(name), *(inputs(name, rows=rows) for rows in (3, 1, 2, 5)))


@pytest.mark.parametrize("name", ["n-grams in parts", "transformer"])
def test_a_graph_reads_one_token_and_the_longest_text(name: str) -> None:
    one = {"text": torch.tensor([[7]], dtype=torch.int32)}
    longest = {"text": torch.randint(1, 60, (2, TEXT.max_tokens), dtype=torch.int32)}
    assert_exports(tiny(name), inputs(name, rows=3), one, longest)
