"""What the benchmark of few languages makes of answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.few_languages import Said, figures_of, in_levels


def answers(rows: int, *, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (rows, 10)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_levels_keep_the_order_of_digits_and_say_no_more_than_so_many_things(count: int) -> None:
    heard, asked = (answers(400, seed=seed).softmax(dim=1).numpy() for seed in (0, 1))
    told = in_levels(asked, heard, count=count)
    np.testing.assert_allclose(told.sum(axis=1), 1)
    assert (told.argsort(axis=1) == asked.argsort(axis=1)).all()
    assert len(np.unique(told.max(axis=1).round(9))) == count


def test_a_model_that_says_how_often_it_is_right_is_as_good_as_a_perfect_one() -> None:
    def said(seed: int) -> Said:
        logits, rng = answers(20_000, seed=seed), np.random.default_rng(seed)
        cut = rng.random((len(logits), 1))
        targets = (logits.softmax(dim=1).numpy().cumsum(axis=1) < cut).sum(axis=1)
        return Said(logits, targets, np.arange(len(logits)))

    found = dict(figures_of(said(0), said(1), rng=np.random.default_rng(2)))
    assert found["the model"].ece.value < 0.015
    assert found["a perfect model"].ece.value < 0.015
    assert found["the model"].nll.value < found["2 levels"].nll.value < found["one level"].nll.value
