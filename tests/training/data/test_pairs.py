from __future__ import annotations

import numpy as np
from training.data.corpus import Corpus
from training.data.pairs import ClassRows, draw_pairs


def test_rows_that_belong_together_have_one_class(corpus: Corpus) -> None:
    for split in (corpus.train, corpus.validation, corpus.test):
        pairs = draw_pairs(split, seed=1)
        np.testing.assert_array_equal(pairs.image, np.arange(len(split.images.labels)))
        np.testing.assert_array_equal(split.texts.labels[pairs.text], pairs.labels)
        np.testing.assert_array_equal(split.clips.labels[pairs.audio], pairs.labels)


def test_pairs_are_drawn_again_the_same_and_otherwise_for_another_seed(corpus: Corpus) -> None:
    first, again, other = (draw_pairs(corpus.test, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.audio, again.audio)
    assert (first.audio != other.audio).any()


def test_every_row_of_a_class_can_be_drawn_and_no_other() -> None:
    rows = ClassRows.of(np.array([2, 0, 2, 1, 2]))
    drawn = rows.draw(np.full(300, 2), np.linspace(0, 0.999, 300))
    assert set(drawn.tolist()) == {0, 2, 4}


def test_splits_share_no_recording(corpus: Corpus) -> None:
    splits = (corpus.train, corpus.validation, corpus.test)
    heard = [{clip.tobytes() for clip in split.clips.samples} for split in splits]
    assert heard[0].isdisjoint(heard[1])
    assert heard[0].isdisjoint(heard[2])
    assert heard[1].isdisjoint(heard[2])
    assert [len(clips) for clips in heard] == [40, 100, 100]
