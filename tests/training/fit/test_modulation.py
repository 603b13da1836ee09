from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from training.batch import Batch
from training.fit.distributed import World
from training.fit.draw import Draw
from training.fit.modulation import MODALITY, factors, slowed
from training.fusion.contract import Fused
from training.recipe import Recipe

NAMES = ("image", "text", "audio")


def moved_by(factor: float) -> tuple[torch.Tensor, torch.Tensor, torch.optim.Optimizer]:
    """What the second of two steps moves the image encoder and the rest."""
    torch.manual_seed(0)
    image, rest = (torch.nn.Parameter(torch.randn(4)) for _ in range(2))
    optimiser = torch.optim.AdamW(
        [{"params": [image], MODALITY: "image"}, {"params": [rest], MODALITY: None}], lr=0.1
    )
    for by in ({}, {"image": factor, "text": 0.5}):
        before = image.detach().clone(), rest.detach().clone()
        optimiser.zero_grad()
        (image.square().sum() + rest.square().sum()).backward()  # type: ignore[no-untyped-call]
        with slowed(optimiser, by):  # type: ignore[arg-type]
            optimiser.step()
    return image.detach() - before[0], rest.detach() - before[1], optimiser


def test_an_encoder_that_is_slowed_to_a_tenth_moves_by_a_tenth() -> None:
    (whole, rest, _), (tenth, same, optimiser) = moved_by(1.0), moved_by(0.1)
    torch.testing.assert_close(tenth, 0.1 * whole)
    assert torch.equal(rest, same)
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 0.1]


def test_only_who_is_ahead_of_the_others_is_slowed() -> None:
    said = torch.zeros(4, 3, 2)
    said[:, 0, 1] = 2.0  # the picture knows
    present = torch.ones(4, 3, dtype=torch.bool)
    draw = Draw(Batch({}, present), torch.ones(4, dtype=torch.int64), torch.ones(4), rows=4.0, heard=12.0)
    fused = Fused(logits=said[:, 0], embedding=said[:, 0], modality_logits=said)
    found = factors(NAMES, fused, draw, strength=0.5, world=World())  # type: ignore[arg-type]
    assert found["image"] < 0.5
    assert found["text"] == found["audio"] == 1.0


def test_modulation_is_refused_where_no_head_can_tell_who_is_ahead(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="with auxiliary_weight 0 none learns"):
        replace(recipe.schedule, modulation=0.5, auxiliary_weight=0.0)
    modulated = replace(recipe, schedule=replace(recipe.schedule, modulation=0.5))
    with pytest.raises(ValueError, match="leave it out"):
        replace(modulated, task="multilabel")
