"""The laws that every fusion keeps, whatever its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.evaluate import Features
from training.fit import draw_presence, fused_loss
from training.model import SUBSETS, Answers, Fusing, Model, mask_number, mask_of
from training.recipe import Recipe

ROWS = 6


@pytest.fixture
def model(recipe: Recipe) -> Model:
    torch.manual_seed(1)
    model = Model(recipe, vocabulary=300).eval()
    model.temperatures.copy_(torch.linspace(0.5, 1.2, 8))
    return model


@pytest.fixture
def features(recipe: Recipe) -> Features:
    widths = [recipe.inputs.encoder(name).features for name in recipe.inputs.names]
    image, text, audio = (torch.randn(ROWS, width) for width in widths)
    return Features((image, text, audio))


def masks(subset: str, rows: int = ROWS) -> Tensor:
    return torch.tensor([mask_of(subset)] * rows)


def ask(model: Model, features: Features, present: Tensor) -> Answers:
    with torch.inference_mode():
        answers: Answers = Fusing(model)(*features.each, present)
    return answers


def assert_same(one: Answers, other: Answers) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("content", [0.0, 1e6, float("nan"), float("inf")])
def test_absent_content_never_matters(model: Model, features: Features, subset: str, content: float) -> None:
    present = masks(subset)
    spoiled = [
        torch.where(present[:, at : at + 1], values, content) for at, values in enumerate(features.each)
    ]
    answers = ask(model, Features((spoiled[0], spoiled[1], spoiled[2])), present)
    assert all(values.isfinite().all() for values in answers)
    assert_same(answers, ask(model, features, present))


@pytest.mark.parametrize("subset", SUBSETS)
def test_present_content_does_matter(model: Model, features: Features, subset: str) -> None:
    here = masks(subset)[0].tolist()
    answers = ask(model, features, masks(subset))
    for at in np.flatnonzero(here):
        other = list(features.each)
        other[at] = other[at].flip(0)
        moved = ask(model, Features((other[0], other[1], other[2])), masks(subset))
        assert (moved.logits - answers.logits).abs().max() > 1e-6


def test_rows_answer_in_any_order_and_alone_as_together(model: Model, features: Features) -> None:
    present = torch.tensor([mask_of(subset) for subset in SUBSETS[:ROWS]])
    answers = ask(model, features, present)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    image, text, audio = (values[order] for values in features.each)
    shuffled = ask(model, Features((image, text, audio)), present[order])
    assert_same(shuffled, Answers(*(values[order] for values in answers)))
    for row in range(ROWS):
        image, text, audio = (values[row : row + 1] for values in features.each)
        alone = ask(model, Features((image, text, audio)), present[row : row + 1])
        assert_same(alone, Answers(*(values[row : row + 1] for values in answers)))


@pytest.mark.parametrize("subset", SUBSETS)
def test_logits_are_divided_by_the_temperature_of_the_subset(
    model: Model, features: Features, subset: str
) -> None:
    number = int(mask_number(masks(subset, 1)))
    before = ask(model, features, masks(subset)).logits
    model.temperatures[number] *= 2
    torch.testing.assert_close(ask(model, features, masks(subset)).logits, before / 2)


def test_what_an_absent_modality_says_is_even_odds(model: Model, features: Features) -> None:
    said = ask(model, features, masks("image+audio")).modality_probabilities
    torch.testing.assert_close(said[:, 1], torch.full((ROWS, 10), 0.1))
    torch.testing.assert_close(said.sum(dim=2), torch.ones(ROWS, 3))
    assert (said[:, 0] - 0.1).abs().max() > 1e-4


def test_every_parameter_is_trained(recipe: Recipe) -> None:
    model = Model(recipe, vocabulary=300).train()
    rows = 32
    present = draw_presence(rows, drop=0.3, generator=torch.Generator().manual_seed(0))
    fused = model(
        torch.randint(256, (rows, 28, 28, 3), dtype=torch.uint8),
        torch.randint(1, 300, (rows, 6), dtype=torch.int32),
        torch.randn(rows, 4_000),
        torch.full((rows,), 4_000, dtype=torch.int32),
        present,
    )
    labels = torch.randint(10, (rows,))
    loss = fused_loss(fused.logits, fused.modality_logits, present, labels, recipe.schedule)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    assert parameters.keys() <= model.state_dict().keys()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_no_row_loses_all_modalities() -> None:
    present = draw_presence(5_000, drop=0.6, generator=torch.Generator().manual_seed(0))
    assert present.any(dim=1).all()
    assert not present.all(dim=1).all()


def test_what_is_dropped_costs_nothing_in_the_loss(recipe: Recipe) -> None:
    labels, present = torch.tensor([3, 4]), torch.tensor([[True, False, False], [True, True, False]])
    said = torch.randn(2, 3, 10)
    other = torch.where(present.unsqueeze(2), said, 50 * torch.randn(2, 3, 10))
    joint = torch.randn(2, 10)
    one, two = (fused_loss(joint, s, present, labels, recipe.schedule) for s in (said, other))
    torch.testing.assert_close(one, two)
