from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.encoders.tiny_encoders import TEXT
from training.encoders.ngrams import NgramTextEncoder
from training.encoders.specs import NgramText

_HIGHEST = 2**31 - 1
_encoder = NgramTextEncoder(
    NgramText(buckets=65_536, channels=2, hidden=2, width=2, orders=(1, 2, 5)), pad_id=0
)


@given(st.lists(st.integers(0, _HIGHEST), min_size=1, max_size=8), st.sampled_from([1, 2, 5]))
@settings(max_examples=60, deadline=None)
def test_no_hash_overflows(ids: list[int], order: int) -> None:
    """As Python's own integers have it, which have no end."""
    found = _encoder.hashed(torch.tensor([ids], dtype=torch.int32), order)[0].tolist()
    constant, *factors = _encoder.factors[order - 1].tolist()
    for start in range(len(ids) - order + 1):
        terms = zip(ids[start : start + order], factors, strict=False)
        code = constant + sum((token + 1) * factor for token, factor in terms)
        assert found[start] == code % (2**31 - 1) % 65_536


def test_pairs_of_tokens_spread_over_the_table() -> None:
    """10,000 pairs in 65,536 buckets fill 9,280 of them if thrown at random."""
    first, second = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    pairs = torch.stack([first.flatten(), second.flatten()], dim=1).int()
    assert 9_100 < len(_encoder.hashed(pairs, 2)[:, 0].unique()) <= 10_000


@torch.inference_mode()
def test_the_order_of_tokens_matters_by_pairs_only() -> None:
    there, back = torch.tensor([[3, 9]], dtype=torch.int32), torch.tensor([[9, 3]], dtype=torch.int32)
    spec = NgramText(buckets=997, channels=4, hidden=4, width=4, orders=(1,))
    singles = NgramTextEncoder(spec, pad_id=TEXT.pad_id).eval()
    torch.testing.assert_close(singles(there), singles(back))
    assert _encoder.hashed(there, 2)[0, 0] != _encoder.hashed(back, 2)[0, 0]
