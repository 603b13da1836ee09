"""Fusions by themselves: encoders are trained once, and then a fusion on what they say, in seconds.

The encoders learn each from its own head alone, whatever the fusion, so fusions are compared on the very same
features. They are not what a fusion would get that has its encoders learn along with it; where no modality
says anything alone there is nothing to freeze.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.bundle.manifest import Modality
from training.batch import Said, Stock
from training.calibrate.model import calibrate, settle
from training.data.dataset import Dataset, Split
from training.encoders.given import as_given
from training.encoders.specs import Given
from training.encodings import Encodings, encode
from training.fit.chance import make_repeatable
from training.fit.distributed import World
from training.fit.draw import Drawer
from training.fit.loop import fit
from training.model import Model
from training.progress import Stage
from training.recipe import Augmentation, Recipe
from training.run import Where, evaluation_rows, preparer_of, train

SplitName = Literal["train", "validation", "test"]
_SPLITS: Final[tuple[SplitName, ...]] = ("train", "validation", "test")
_ITEMS: Final = 256  # encoded at once
_EPOCHS: Final = 5  # of a fusion on features


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Of every item of each split: float32 [items, (1 + tokens) * width], see GivenEncoder.

    Training items are `unseen` if every encoder says of them what it would if it had not learnt from them.
    """

    splits: dict[SplitName, dict[Modality, Tensor]]
    unseen: bool

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {f"{split}.{name}": said for split, held in self.splits.items() for name, said in held.items()}
        save_file(said | {"unseen": torch.tensor(self.unseen)}, path)

    @classmethod
    def load(cls, path: Path, names: tuple[Modality, ...]) -> Features:
        held = load_file(path)
        splits = {split: {name: held[f"{split}.{name}"] for name in names} for split in _SPLITS}
        return cls(splits, unseen=bool(held["unseen"]))


def features_of(
    recipe: Recipe, dataset: Dataset, *, seed: int, stage: Stage, where: Where | None = None
) -> Features:
    """By the recipe's encoders, trained through the heads that hear one modality each."""
    trained = train(recipe.with_fusion("prediction", "mean"), dataset, seed=seed, stage=stage, where=where)
    tokenize = preparer_of(recipe, trained.tokenizer_json)

    model, names = trained.model, recipe.inputs.names

    def of(split: Split) -> dict[Modality, Tensor]:
        stock = Stock(split.items, recipe.inputs, tokenize)
        return {name: _said(model, stock, name, split.items.count(name)) for name in names}

    for name in names:  # of training items, what is not learnt by heart
        model.encoder(name).train(model.encoder(name).leaves_out)
    learnt = of(dataset.train)
    model.eval()
    splits: dict[SplitName, dict[Modality, Tensor]] = {"train": learnt}
    splits |= {"validation": of(dataset.validation), "test": of(dataset.test)}
    return Features(splits, unseen=all(model.encoder(name).leaves_out for name in names))


def train_fusion(
    recipe: Recipe, features: Features, dataset: Dataset, *, seed: int, stage: Stage
) -> Encodings:
    """The recipe's fusion, trained on features and calibrated; with what it needs to answer test rows.

    Where encoders saw the training rows, answers are joined by what validation rows tell in every method.
    """
    frozen = on_features(recipe)
    make_repeatable(seed=seed, threads=frozen.schedule.threads)
    model = Model(frozen, vocabulary=1)
    drawer = Drawer(dataset.train, Said(features.splits["train"]), frozen, seed=seed, world=World())
    with stage(f"{recipe.fusion.level}/{recipe.fusion.method}") as report:
        fit(model, drawer, frozen, seed=seed, device=torch.device("cpu"), report=report)
    counts = dataset.validation.items.counts
    validation = encode(model, Said(features.splits["validation"]), counts)
    rows = evaluation_rows(dataset.validation)
    if features.unseen:
        learnt = encode(model, Said(features.splits["train"]), dataset.train.items.counts)
        settle(learnt, evaluation_rows(dataset.train), seed=seed)
    else:
        settle(validation, rows, seed=seed)
    calibrate(validation, rows)
    return encode(model, Said(features.splits["test"]), dataset.test.items.counts)


def on_features(recipe: Recipe) -> Recipe:
    """The same fusion and rows, with features for inputs."""
    encoders = {name: Given(width=spec.width, tokens=spec.tokens) for name, spec in recipe.encoders.items()}
    schedule = replace(
        recipe.schedule, epochs=_EPOCHS, tower_epochs=0, modulation=0.0, patience=None, is_bfloat16=False
    )
    return replace(recipe, encoders=dict(encoders), augmentation=Augmentation(), schedule=schedule)


@torch.inference_mode()
def _said(model: Model, stock: Stock, name: Modality, count: int) -> Tensor:
    """[items, (1 + tokens) * width], one row of zeros where the split has no items."""
    encoder = model.encoder(name)
    if count == 0:
        return torch.zeros(1, (1 + encoder.tokens) * encoder.width)
    parts = [
        as_given(encoder(*stock.gather(name, np.arange(start, min(start + _ITEMS, count)))))
        for start in range(0, count, _ITEMS)
    ]
    return torch.cat(parts)
