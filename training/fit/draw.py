"""Training batches: a pure function of the seed and the number of the step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from app.bundle.manifest import MODALITIES, Inputs, Modality
from training.batch import Batch, Change, Stock
from training.data.dataset import Rows, Split
from training.fit.augment import augment_images, augment_sounds, augment_texts
from training.fit.chance import generator_of, seed_of
from training.fit.constant import keep_constants
from training.fit.distributed import World
from training.fit.presence import draw_presence
from training.fit.study import study
from training.model import Model
from training.recipe import Augmentation, Recipe


@dataclass(frozen=True, slots=True)
class Draw:
    """This process's share of one step's batch, and what the whole of it counts.

    `rows` and `heard` are sums of weights over the whole batch, of its rows and of its present modalities:
    losses are divided by them, so that the shares of several processes add up to the loss of one.
    """

    batch: Batch
    targets: Tensor
    weights: Tensor  # float32 [rows]
    rows: float
    heard: float

    def to(self, device: torch.device) -> Draw:
        return replace(
            self,
            batch=self.batch.to(device),
            targets=self.targets.to(device),
            weights=self.weights.to(device),
        )


class Drawer:
    """Calls with the same step give the same batch, in any process."""

    def __init__(self, split: Split, stock: Stock, recipe: Recipe, *, seed: int, world: World) -> None:
        self._split, self._stock, self._recipe, self._seed, self._world = split, stock, recipe, seed, world
        self._columns = [MODALITIES.index(name) for name in recipe.inputs.names]
        self._epoch = -1
        self._rows = split.pairing.rows(seed_of(seed, "pairs", 0))
        self._class_weights = _class_weights(self._rows, recipe)
        self.steps_per_epoch = -(-len(self._rows) // recipe.schedule.batch_size)

    def __call__(self, step: int, *, drop: float) -> Draw:
        """Of step 0 and on; `drop` is the chance that a row loses a modality."""
        self._turn_to(step // self.steps_per_epoch)
        size = self._recipe.schedule.batch_size
        at = step % self.steps_per_epoch * size
        chosen = self._rows.take(self._order[at : at + size])
        generator = generator_of(self._seed, "step", step)
        brought = torch.from_numpy(chosen.present[:, self._columns])
        present = draw_presence(brought, drop=drop, generator=generator)
        targets = torch.from_numpy(chosen.targets)
        weights = self._weights(targets)
        mine = self._world.share(len(chosen))
        if not self._world.is_first:  # each process changes other rows, hence in other ways
            generator.manual_seed(seed_of(self._seed, "step", step) + self._world.rank)
        changes = changes_of(self._recipe.augmentation, self._recipe.inputs, generator)
        return Draw(
            batch=self._stock.batch(chosen.items[:, self._columns], present, changes, share=mine),
            targets=targets[mine],
            weights=weights[mine],
            rows=float(weights.sum()),
            heard=float((present * weights.unsqueeze(1)).sum()),
        )

    def teach(self, model: Model) -> None:
        """Show encoders that study the items of all rows, before the first step. Raises EncoderUnfit."""
        study(model, self._split, self._stock, labels=len(self._recipe.labels), seed=self._seed)

    def keep_constants(self, model: Model) -> None:
        """Let frozen encoders see the items once, and not in every epoch."""
        changed = self._recipe.augmentation.modalities
        keep_constants(model, self._stock, self._split.items.counts, changed=changed)

    def _turn_to(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._epoch = epoch
        self._rows = self._split.pairing.rows(seed_of(self._seed, "pairs", epoch))
        order = torch.randperm(len(self._rows), generator=generator_of(self._seed, "order", epoch))
        # Where a fold is hidden there may be fewer rows than in the epoch that steps were counted in: some
        # come twice then, and no step is left without any.
        least = (self.steps_per_epoch - 1) * self._recipe.schedule.batch_size + 1
        self._order = np.resize(order.numpy(), max(len(order), least))

    def _weights(self, targets: Tensor) -> Tensor:
        if self._class_weights is None:
            return torch.ones(len(targets))
        return self._class_weights[targets]


def changes_of(
    augmentation: Augmentation, inputs: Inputs, generator: torch.Generator
) -> dict[Modality, Change]:
    changes: dict[Modality, Change] = {}
    if augmentation.image is not None:
        changes["image"] = partial(augment_images, how=augmentation.image, generator=generator)
    if augmentation.text is not None and inputs.text is not None:
        pad_id = inputs.text.pad_id
        changes["text"] = partial(augment_texts, how=augmentation.text, generator=generator, pad_id=pad_id)
    if augmentation.audio is not None and inputs.audio is not None:
        rate_hz = inputs.audio.sample_rate
        changes["audio"] = partial(
            augment_sounds, how=augmentation.audio, generator=generator, rate_hz=rate_hz
        )
    return changes


def _class_weights(rows: Rows, recipe: Recipe) -> Tensor | None:
    """float32 [labels], mean 1 over the rows: the inverse of each class's share."""
    if not recipe.schedule.is_balanced or recipe.task == "multilabel":
        return None
    counts = np.bincount(rows.targets.astype(np.int64), minlength=len(recipe.labels)).clip(min=1)
    return torch.from_numpy((len(rows) / (len(recipe.labels) * counts)).astype(np.float32))
