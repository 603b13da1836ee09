"""What frozen encoders see of an item is seen once a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.bundle.manifest import Modality
from tests.training.encoders.saved_models import save_model
from tests.training.recipes.own_rows import write_rows
from training.data.cache import Cache
from training.data.home import Home
from training.encoders import pretrained, pretrained_audio
from training.fit import constant
from training.progress import silent
from training.recipe import Augmentation, ImageAugmentation, Recipe
from training.recipes.finetune import OwnRows, finetune
from training.run import Trained, train

KINDS: dict[Modality, str] = {"image": "vit", "text": "bert", "audio": "ast"}
EPOCHS = 3


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rows that backbones were run on, by the encoder's class."""
    counted: Counter[str] = Counter()
    for kind in (
        pretrained.PretrainedImageEncoder,
        pretrained.PretrainedTextEncoder,
        pretrained_audio.SpectrogramEncoder,
    ):
        see: Callable[..., Tensor] = kind.see

        def counting(self: object, *inputs: Tensor, see: Callable[..., Tensor] = see) -> Tensor:
            counted[type(self).__name__] += len(inputs[0])
            return see(self, *inputs)

        monkeypatch.setattr(kind, "see", counting)
    return counted


def recipe_of(folder: Path, *, tune: tuple[Modality, ...] = ()) -> Recipe:
    encoders = {name: save_model(folder / kind, kind) for name, kind in KINDS.items()}
    recipe = finetune(OwnRows(manifest=str(write_rows(folder)), encoders=encoders, tune=tune))
    return replace(recipe, schedule=replace(recipe.schedule, epochs=EPOCHS, batch_size=8, threads=1))


def trained(recipe: Recipe, folder: Path) -> Trained:
    dataset = recipe.load(Home(folder), Cache(folder / "cache"))
    return train(recipe, dataset, seed=0, stage=silent)


def test_a_frozen_backbone_sees_each_item_once_and_the_model_is_the_same(
    tmp_path: Path, seen: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path)
    seen.clear()
    kept = trained(recipe, tmp_path)
    built, probes = 2, 2  # when the model is built, and one item of each split to know how much it takes
    items = {"PretrainedImageEncoder": 28, "PretrainedTextEncoder": 28, "SpectrogramEncoder": 24}
    assert all(seen[kind] <= count + built + probes for kind, count in items.items()), seen
    monkeypatch.setattr(constant, "_MOST_BYTES", 0)
    seen.clear()
    again = trained(recipe, tmp_path)
    assert seen["PretrainedImageEncoder"] > 2 * 28
    for name, weights in kept.model.state_dict().items():
        torch.testing.assert_close(weights, again.model.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_what_is_tuned_or_changed_is_seen_in_every_epoch(tmp_path: Path, seen: Counter[str]) -> None:
    recipe = recipe_of(tmp_path, tune=("text",))
    recipe = replace(recipe, augmentation=Augmentation(image=ImageAugmentation()))
    seen.clear()
    trained(recipe, tmp_path)
    assert seen["PretrainedTextEncoder"] > 2 * 28
    assert seen["PretrainedImageEncoder"] > 16 + 12
    assert seen["SpectrogramEncoder"] <= 24 + 4
