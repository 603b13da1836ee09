from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.recipes.own_rows import write_rows
from training.choose import Judged, choose, judge
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.progress import silent
from training.recipe import Recipe
from training.recipes.finetune import OwnRows, finetune
from training.run import train

RNG = np.random.default_rng(0)
GROUPS = np.arange(400) // 4


def candidate(name: str, better: float = 0.0, noise: float = 0.1) -> Judged:
    nll = 0.5 - better + noise * RNG.standard_normal(400)
    return Judged(name, nll, (nll < 0.6).astype(np.float64), GROUPS)


def test_the_first_stands_when_nobody_is_better_beyond_chance() -> None:
    first = candidate("prediction/multiply")
    hardly = replace(first, name="feature/concat", nll=first.nll + 0.3 * RNG.standard_normal(400))
    choice = choose([first, hardly])
    assert choice.chosen == "prediction/multiply"
    assert list(choice.against_first) == ["feature/concat"]


def test_the_best_of_those_that_beat_the_first_is_chosen() -> None:
    candidates = [
        candidate("a"),
        candidate("b", better=0.1),
        candidate("c", better=0.2),
        candidate("d", -0.2),
    ]
    choice = choose(candidates)
    assert choice.chosen == "c"
    assert choice.against_first["b"].challenger_wins
    assert not choice.against_first["d"].challenger_wins


def test_one_candidate_is_chosen() -> None:
    assert choose([candidate("a")]).chosen == "a"


@pytest.mark.parametrize("fusion", [("prediction", "multiply"), ("feature", "low_rank")])
def test_trained_candidates_are_judged_on_validation_rows(
    recipe: Recipe, dataset: Dataset, fusion: tuple[str, str]
) -> None:
    fused = recipe.with_fusion(*fusion)  # type: ignore[arg-type]
    judged = judge(train(fused, dataset, seed=0, stage=silent), fused, dataset)
    assert judged.name == "/".join(fusion)
    assert len(judged.nll) == len(dataset.validation.pairing.rows(0))
    assert np.isfinite(judged.nll).all()


def test_candidates_of_several_labels_a_row_are_judged_too(tmp_path: Path) -> None:
    told = OwnRows(
        manifest=str(write_rows(tmp_path, task="multilabel")),
        encoders={"image": "plain", "text": "ngrams"},
        task="multilabel",
    )
    made = finetune(told)
    one = replace(made, schedule=replace(made.schedule, epochs=1, batch_size=8, threads=1))
    rows = one.load(Home(tmp_path), Cache(tmp_path / "cache"))
    judged = judge(train(one, rows, seed=0, stage=silent), one, rows)
    assert np.isfinite(judged.nll).all()
    assert ((judged.right >= 0) & (judged.right <= 1)).all()
