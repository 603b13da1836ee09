from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.dataset import ABSENT, Rows
from training.fit.folds import in_fold


def rows_of(groups: list[int], classes: int = 2) -> Rows:
    """A picture and a text of the same group in every row, and classes in turn."""
    own = np.array(groups, np.int64)
    items = np.stack([np.arange(len(own)), np.arange(len(own)), np.full(len(own), ABSENT)], axis=1)
    return Rows(
        items=items,
        targets=np.arange(len(own)) % classes,
        groups=np.where(items == ABSENT, ABSENT, own[:, None]),
    )


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("classes", [3, 6, 9, 10])
def test_every_fold_holds_every_class_where_classes_come_in_turn(classes: int, folds: int) -> None:
    rows = rows_of(list(range(300)), classes)
    for fold in range(folds):
        hidden = in_fold(rows, fold, folds)[:, 0]
        seen = np.bincount(rows.targets[hidden], minlength=classes)
        assert (seen > 0.3 * 300 / classes / folds).all(), seen


@given(groups=st.lists(st.integers(0, 10**9), min_size=1, max_size=50), folds=st.integers(2, 7))
def test_each_group_is_in_one_fold_in_every_modality(groups: list[int], folds: int) -> None:
    rows = rows_of(groups)
    hidden = np.stack([in_fold(rows, fold, folds) for fold in range(folds)])
    assert (hidden.sum(axis=0) == rows.present).all()
    of_group: dict[int, int] = {}
    for group, fold, other in zip(
        groups, hidden[:, :, 0].argmax(axis=0), hidden[:, :, 1].argmax(axis=0), strict=True
    ):
        assert of_group.setdefault(group, fold) == fold == other


@given(blocks=st.integers(1, 30), folds=st.integers(2, 7))
def test_folds_are_of_one_size(blocks: int, folds: int) -> None:
    """However few groups there are: eight languages, too."""
    rows = rows_of(list(range(blocks * folds)))
    assert {int(in_fold(rows, fold, folds)[:, 0].sum()) for fold in range(folds)} == {blocks}
