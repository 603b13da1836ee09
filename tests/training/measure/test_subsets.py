from __future__ import annotations

import numpy as np
import pytest

from app.bundle.manifest import MODALITIES, subsets
from tests.training.simulated import Floats, draw_targets, softmax
from training.measure.multilabel import MultilabelScore
from training.measure.scores import Score, score
from training.measure.subsets import groups_of, measure_slices, measure_subsets

SUBSETS = subsets(MODALITIES)
ROWS = 400


class Experts:
    """Three modalities that say independent things; together they are worth their sum."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.logits = {name: 1.5 * rng.normal(size=(ROWS, 5)) for name in MODALITIES}
        self.targets = draw_targets(self("image+text+audio"), rng)
        self.present = rng.random((ROWS, 3)) < 0.7

    def __call__(self, subset: str) -> Floats:
        return softmax(np.sum([self.logits[name] for name in subset.split("+")], axis=0))


@pytest.fixture(scope="module")
def experts() -> Experts:
    return Experts()


def test_every_subset_is_measured_on_the_rows_that_have_it(experts: Experts) -> None:
    found = measure_subsets(experts, experts.targets, experts.present, np.arange(ROWS), draws=50).by_subset
    assert tuple(found) == SUBSETS
    both = experts.present[:, 0] & experts.present[:, 2]
    wanted = score(experts("image+audio")[both], experts.targets[both], np.flatnonzero(both), draws=50)
    assert found["image+audio"].score == wanted
    assert sum(found["image+audio"].reliability.rows) == both.sum()


def test_a_subset_that_no_row_has_is_left_out(experts: Experts) -> None:
    without = experts.present & [True, True, False]
    found = measure_subsets(experts, experts.targets, without, np.arange(ROWS), draws=10)
    assert tuple(found.by_subset) == ("image", "text", "image+text")
    assert found.counter_intuitive is not None
    assert [(step.fewer, step.more) for step in found.counter_intuitive.steps] == [
        ("image", "image+text"), ("text", "image+text"),
    ]  # fmt: skip


def test_more_modalities_that_hurt_are_counted(experts: Experts) -> None:
    """The text misleads in every row: what it joins gets worse, and what joins it gets better."""

    def misled(subset: str) -> Floats:
        logits = np.zeros((ROWS, 5))
        if "text" in subset.split("+"):
            logits[np.arange(ROWS), experts.targets] -= 1
        if "image" in subset.split("+"):
            logits[np.arange(ROWS), experts.targets] += 3
        return softmax(logits)

    everything = np.ones((ROWS, 3), bool)
    found = measure_subsets(misled, experts.targets, everything, np.arange(ROWS), draws=50).counter_intuitive
    assert found is not None
    steps = {(step.fewer, step.more): step for step in found.steps}
    assert len(steps) == 12
    assert steps["image", "image+text"].rate.value == 1
    assert steps["text", "image+text"].rate.value == 0
    assert steps["image", "image+audio"].rate.value == 0  # what changes nothing hurts nothing
    assert steps["image", "image+text"].marked.value == 1
    assert steps["text", "image+text"].mended == 1
    assert steps["audio", "text+audio"].rate.value == 1
    assert found.rate == pytest.approx(np.mean([step.rate.value for step in found.steps]))


def test_a_rise_that_is_slight_is_told_apart(experts: Experts) -> None:
    def certain(subset: str) -> Floats:
        logits = np.zeros((ROWS, 5))
        logits[np.arange(ROWS), experts.targets] = 9 - 0.1 * len(subset.split("+"))
        return softmax(logits)

    everything = np.ones((ROWS, 3), bool)
    found = measure_subsets(certain, experts.targets, everything, np.arange(ROWS), draws=20).counter_intuitive
    assert found is not None
    assert (found.rate, found.marked) == (1, 0)


def test_one_modality_has_no_step_to_more(experts: Experts) -> None:
    found = measure_subsets(
        experts, experts.targets, np.ones((ROWS, 1), bool), np.arange(ROWS), modalities=("text",), draws=10
    )
    assert tuple(found.by_subset) == ("text",)
    assert found.counter_intuitive is None


def test_labels_that_do_not_exclude_each_other(experts: Experts) -> None:
    targets = (experts("image+text+audio") > 0.3).astype(np.float32)
    found = measure_subsets(experts, targets, experts.present, np.arange(ROWS), draws=10)
    result = found.by_subset["image"]
    assert isinstance(result.score, MultilabelScore)
    assert result.risk_coverage is None
    assert found.counter_intuitive is not None
    assert found.counter_intuitive.steps[0].spoiled is None


def test_groups_are_those_of_the_modality_that_repeats_most() -> None:
    groups = np.array([[0, 5, 9], [1, 5, 9], [2, 6, 9], [3, 7, 8]])
    np.testing.assert_array_equal(groups_of(groups, "image+text"), [5, 5, 6, 7])
    np.testing.assert_array_equal(groups_of(groups, "image+text+audio"), [9, 9, 9, 8])
    np.testing.assert_array_equal(groups_of(groups[:, 0], "text"), groups[:, 0])


def test_slices_are_scores_of_their_rows(experts: Experts) -> None:
    values = np.where(np.arange(ROWS) % 4 == 0, "left", "right")
    said = experts("text")
    found = measure_slices(said, experts.targets, np.arange(ROWS) // 2, values, draws=20)
    assert tuple(found) == ("right", "left")
    left = found["left"]
    assert isinstance(left, Score)
    assert (left.rows, left.groups) == (ROWS // 4, ROWS // 4)
    assert left.accuracy.value == (said.argmax(axis=1) == experts.targets)[::4].mean()
