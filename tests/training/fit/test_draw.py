from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.batch import Stock
from training.data.dataset import Dataset, Split
from training.fit.distributed import World
from training.fit.draw import Draw, Drawer
from training.fit.folds import WithoutFold
from training.fit.presence import draw_presence
from training.recipe import Recipe
from training.run import preparer_of, tokenizer_of


def drawer(recipe: Recipe, dataset: Dataset, world: World | None = None, *, seed: int = 5) -> Drawer:
    tokenize = preparer_of(recipe, tokenizer_of(recipe, dataset))
    stock = Stock(dataset.train.items, recipe.inputs, tokenize)
    return Drawer(dataset.train, stock, recipe, seed=seed, world=world or World())


def same(one: Draw, other: Draw) -> bool:
    parts = zip(one.batch.parts.values(), other.batch.parts.values(), strict=True)
    return torch.equal(one.targets, other.targets) and all(
        torch.equal(mine, theirs)
        for a, b in parts
        for mine, theirs in zip((a.rows, *a.inputs), (b.rows, *b.inputs), strict=True)
    )


@given(
    rows=st.integers(1, 40), modalities=st.integers(1, 4), drop=st.floats(0, 0.95), seed=st.integers(0, 99)
)
def test_no_row_loses_all_or_gains_any(rows: int, modalities: int, drop: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    brought = torch.rand(rows, modalities, generator=generator) < 0.7
    brought[torch.arange(rows), torch.arange(rows) % modalities] = True
    present = draw_presence(brought, drop=drop, generator=generator)
    assert present.any(dim=1).all()
    assert not (present & ~brought).any()


def test_nothing_is_dropped_at_a_chance_of_zero() -> None:
    brought = torch.rand(50, 3) < 0.5
    brought[:, 1] = True
    assert torch.equal(draw_presence(brought, drop=0.0, generator=torch.Generator()), brought)


def test_a_step_is_drawn_the_same_whatever_came_before(recipe: Recipe, dataset: Dataset) -> None:
    one, other = drawer(recipe, dataset), drawer(recipe, dataset)
    for step in range(6):
        one(step, drop=0.3)
    assert same(one(6, drop=0.3), other(6, drop=0.3))
    assert not same(one(6, drop=0.3), one(7, drop=0.3))


def test_an_epoch_shows_every_row_once_and_pairs_anew(recipe: Recipe, dataset: Dataset) -> None:
    draw = drawer(recipe, dataset)
    steps = range(draw.steps_per_epoch)
    targets = torch.cat([draw(step, drop=0.3).targets for step in steps])
    expected = torch.from_numpy(dataset.train.pairing.rows(0).targets)
    assert torch.equal(targets.sort().values, expected.sort().values)


@pytest.mark.parametrize("size", [7, 11])
def test_no_step_is_without_rows_where_a_fold_hides_some(recipe: Recipe, dataset: Dataset, size: int) -> None:
    """How many rows keep something depends on the pairs of the epoch."""
    split = Split(dataset.train.items, WithoutFold(dataset.train.pairing, 0, 2))
    small = replace(recipe, schedule=replace(recipe.schedule, batch_size=size))
    draw = drawer(small, replace(dataset, train=split))
    for epoch in range(12):
        assert len(draw((epoch + 1) * draw.steps_per_epoch - 1, drop=0.3).targets) > 0


def test_processes_share_a_batch_between_them(recipe: Recipe, dataset: Dataset) -> None:
    whole = drawer(recipe, dataset)(2, drop=0.3)
    shares = [drawer(recipe, dataset, World(rank, 3))(2, drop=0.3) for rank in range(3)]
    assert torch.equal(torch.cat([share.targets for share in shares]), whole.targets)
    assert torch.equal(torch.cat([share.batch.present for share in shares]), whole.batch.present)
    assert {(share.rows, share.heard) for share in shares} == {(whole.rows, whole.heard)}
