"""What a conformal set must and may hold, against the definitions spelt out label by label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.bundle.conformal import set_bounds
from app.bundle.manifest import ConformalMethod
from tests import tiny

METHODS: tuple[ConformalMethod, ...] = ("lac", "aps")
SLACK = 1e-6

rows = arrays.arrays(np.float32, st.integers(2, 7), elements=st.floats(0.125, 1, width=32), unique=True).map(
    lambda weights: (weights / weights.sum()).astype(np.float32)
)
thresholds = st.floats(0, 1.1)


def score(row: np.ndarray, label: int, method: ConformalMethod) -> float:
    if method == "lac":
        return 1 - float(row[label])
    return float(sum(value for value in row.astype(float) if value > row[label]) + row[label] / 2)


@pytest.mark.parametrize("method", METHODS)
@given(row=rows, threshold=thresholds)
def test_labels_are_in_by_their_scores(row: np.ndarray, threshold: float, method: ConformalMethod) -> None:
    bounds = set_bounds(row, threshold, method=method, tolerance=SLACK)
    for label in range(len(row)):
        if label == row.argmax() or abs(score(row, label, method) - threshold) < 1e-5:
            continue
        is_clear = all(abs(row[label] - other) > 1e-5 for other in np.delete(row, label))
        is_in = score(row, label, method) <= threshold
        assert bounds.most[label] >= is_in
        if is_clear:
            assert bounds.least[label] == bounds.most[label] == is_in


@pytest.mark.parametrize("method", METHODS)
@given(row=rows, threshold=thresholds, more=st.floats(0, 1))
def test_a_higher_threshold_lets_no_label_out(
    row: np.ndarray, threshold: float, more: float, method: ConformalMethod
) -> None:
    narrow = set_bounds(row, threshold, method=method, tolerance=SLACK)
    wide = set_bounds(row, threshold + more, method=method, tolerance=SLACK)
    assert (narrow.least <= wide.least).all()
    assert (narrow.most <= wide.most).all()
    assert (narrow.least <= narrow.most).all()


@pytest.mark.parametrize("method", METHODS)
@given(row=rows)
def test_no_set_is_empty(row: np.ndarray, method: ConformalMethod) -> None:
    bounds = set_bounds(row, 0, method=method, tolerance=SLACK)
    assert bounds.most[row.argmax()]
    assert not bounds.admit(np.zeros(len(row), bool)) or not bounds.least.any(), "two are as probable"


def test_between_two_that_are_as_probable_a_graph_may_choose() -> None:
    row = np.array([0.4, 0.4, 0.2], np.float32)
    bounds = set_bounds(row, 0, method="lac", tolerance=1e-4)
    for chosen, is_admitted in (((1, 0, 0), True), ((0, 1, 0), True), ((1, 1, 0), True), ((0, 0, 1), False)):
        assert bounds.admit(np.array(chosen, bool)) == is_admitted


@pytest.mark.parametrize("method", METHODS)
def test_the_thresholds_that_are_applied_are_the_methods(method: ConformalMethod) -> None:
    sets = tiny.conformal_sets(method)
    assert sets.thresholds == getattr(sets, method)
    assert sets.lac != sets.aps
