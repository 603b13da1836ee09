from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.calibrate.prior import class_prior, label_prior


@given(st.lists(st.integers(0, 4), max_size=40))
def test_shares_add_up_and_no_class_is_impossible(seen: list[int]) -> None:
    prior = class_prior(np.array(seen, np.int64), labels=5)
    assert prior.sum() == pytest.approx(1)
    assert (prior > 0).all()


def test_counts_are_one_more_than_seen() -> None:
    assert class_prior(np.array([0, 0, 2]), labels=3) == pytest.approx([3 / 6, 1 / 6, 2 / 6])
    assert class_prior(np.array([0, 0, 2]), labels=3, smoothing=0.5) == pytest.approx(
        [2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5]
    )


def test_labels_that_do_not_exclude_each_other_are_counted_on_their_own() -> None:
    targets = np.array([[1, 0, 1], [1, 0, 0]], np.float32)
    assert label_prior(targets) == pytest.approx([3 / 4, 1 / 4, 2 / 4])
