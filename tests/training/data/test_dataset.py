from __future__ import annotations

import numpy as np
import pytest

from training.data.dataset import Dataset, PairedByClass, draw_of_class
from training.data.items import Clips, Labelled
from training.fit.folds import WithoutFold, in_fold


def test_rows_that_belong_together_have_one_class(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.test):
        pairing = split.pairing
        assert isinstance(pairing, PairedByClass)
        rows = pairing.rows(1)
        np.testing.assert_array_equal(rows.items[:, 0], np.arange(len(rows)))
        for at, held in enumerate(pairing.by_modality.values()):
            np.testing.assert_array_equal(held.labels[rows.items[:, at]], rows.targets)


def test_rows_are_drawn_again_the_same_and_otherwise_for_another_seed(dataset: Dataset) -> None:
    first, again, other = (dataset.test.pairing.rows(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.items, again.items)
    assert (first.items != other.items).any()


def test_every_item_of_a_class_can_be_drawn_and_no_other() -> None:
    drawn = draw_of_class(np.array([2, 0, 2, 1, 2]), np.full(300, 2), np.random.default_rng(0))
    assert set(drawn.tolist()) == {0, 2, 4}


def test_a_class_that_another_modality_lacks_cannot_be_paired() -> None:
    lone = Labelled(labels=np.array([0, 1]), groups=np.arange(2))
    with pytest.raises(AssertionError, match="cannot be paired"):
        PairedByClass({"image": lone, "text": Labelled(np.array([0]), np.arange(1))}).rows(0)


def test_splits_share_no_recording(dataset: Dataset) -> None:
    heard = []
    for split in (dataset.train, dataset.validation, dataset.test):
        clips = split.items.clips
        assert clips is not None
        heard.append({clips[item].tobytes() for item in range(len(clips))})
    assert heard[0].isdisjoint(heard[1])
    assert heard[0].isdisjoint(heard[2])
    assert heard[1].isdisjoint(heard[2])
    assert [len(clips) for clips in heard] == [40, 100, 100]


def test_clips_are_taken_whole_and_in_order() -> None:
    clips = Clips.of([np.arange(n, dtype=np.float32) for n in (3, 0, 5)])
    taken = clips.take(np.array([2, 0]))
    assert [taken[item].tolist() for item in range(len(taken))] == [[0, 1, 2, 3, 4], [0, 1, 2]]
    assert clips.lengths.tolist() == [3, 0, 5]


def test_a_fold_hides_its_groups_and_the_folds_together_hide_every_item_once(dataset: Dataset) -> None:
    whole = dataset.train.pairing.rows(5)
    hidden = [in_fold(whole, fold, 3) for fold in range(3)]
    np.testing.assert_array_equal(np.sum(hidden, axis=0), np.ones_like(whole.items))
    for fold in range(3):
        kept = WithoutFold(dataset.train.pairing, fold, 3).rows(5)
        assert kept.present.any(axis=1).all()
        assert not in_fold(kept, fold, 3).any()
