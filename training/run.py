"""One training run from rows to a calibrated model: tokenize, fit, settle, calibrate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from app.bundle.manifest import MODALITIES, Task, subsets
from app.bundle.prepare import TextPreparer
from training.alone import Taught, recipe_alone, teach
from training.batch import Stock
from training.calibrate.model import Calibrated, calibrate, settle
from training.checkpoint import vocabulary_size
from training.data.dataset import Dataset, Rows, Split
from training.encoders.specs import PretrainedText
from training.encodings import Encodings, encode, presence_of, rows_with
from training.fit.chance import make_repeatable, seed_of
from training.fit.constant import keep_constants
from training.fit.distributed import World
from training.fit.draw import Drawer
from training.fit.folds import WithoutFold, in_fold
from training.fit.loop import History, Report, Saving, Validate, fit
from training.fit.objective import mean_loss
from training.model import Model, count_parameters
from training.progress import Stage
from training.recipe import Alone, Recipe
from training.tokenizer import train_tokenizer

EVALUATION_SEED: Final = 7  # who is paired with whom in validation and test, whatever the training seed
_FOLDS: Final = 3  # of the training rows, for fusions that are fitted on predictions


Watch = Callable[[int, float], None]  # the epoch, and the loss of validation rows


@dataclass(frozen=True, slots=True)
class Trained:
    model: Model
    tokenizer_json: bytes | None
    calibrated: Calibrated
    history: History
    run: dict[str, Any]
    validation_nll: float  # calibrated, mean over the subsets of modalities: lower is better


@dataclass(frozen=True, slots=True)
class Where:
    """What a run runs on, and where its state is kept."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    world: World = field(default_factory=World)
    state_folder: Path | None = None
    save_every_s: float = 20.0


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    seed: int,
    stage: Stage,
    where: Where | None = None,
    watch: Watch | None = None,
) -> Trained:
    """A fitted and calibrated model. `stage` opens a progress bar.

    A state that an earlier run of the same recipe, data and seed left in `where` is gone on from. `watch`
    hears of every epoch of this process after which validation rows were looked at; what it raises ends the
    run. Raises Diverged.
    """
    where = where or Where()
    tokenizer_json = tokenizer_of(recipe, dataset)
    make_repeatable(seed=seed, threads=recipe.schedule.threads)
    model = Model(recipe, vocabulary=vocabulary_size(tokenizer_json))
    course = _Course(recipe, dataset, tokenizer_json, seed=seed, where=where)
    taught = course.teach_alone(recipe.alone, stage) if recipe.alone else None
    if taught:
        taught.lend(model)
    with stage("train") as report:
        history = course.fit(model, dataset.train, report, state="state", watch=watch)
    left_out = course.left_out(model)
    if model.fusion.needs_out_of_fold and left_out is None:
        course.settle_out_of_fold(model, stage)
    encodings, rows = course.encodings(model, dataset.validation), evaluation_rows(dataset.validation)
    known = encodings, rows
    if taught:
        taught.lend(model)
        known = (
            taught.crossed(encodings, dataset, seed=EVALUATION_SEED) if taught.unseen is not None else known
        )
    if left_out is not None or not model.fusion.needs_out_of_fold:
        settle(*(left_out or known), seed=seed)
    calibrated = calibrate(*known)
    validation_nll = _calibrated_loss(encodings, rows, recipe.task)
    run: dict[str, Any] = {
        **recipe.settings(),
        "seed": seed,
        "parameters": count_parameters(model),
        "train_s": round(history.seconds, 1),
        "epochs": history.epochs,
        "device": where.device.type,
        "modality_temperatures": calibrated.modality_temperatures,
        "validation_nll": round(validation_nll, 6),
        "data": dataset.provenance,
    }
    return Trained(model.cpu(), tokenizer_json, calibrated, history, run, validation_nll)


def tokenizer_of(recipe: Recipe, dataset: Dataset) -> bytes | None:
    """Trained on the training texts, or the one that pretrained weights were trained with."""
    if recipe.inputs.text is None:
        return None
    spec = recipe.encoders["text"]
    if isinstance(spec, PretrainedText):
        # Importing transformers takes seconds, and most recipes need none of it.
        from training.encoders.pretrained import pretrained_tokenizer

        return pretrained_tokenizer(spec.source, revision=spec.revision)[0]
    texts = dataset.train.items.texts
    assert texts is not None, "a recipe that reads texts has some to learn from"
    return train_tokenizer(texts.strings, most_tokens=recipe.most_tokens, is_by_sound=recipe.is_by_sound)


def preparer_of(recipe: Recipe, tokenizer_json: bytes | None) -> TextPreparer | None:
    """Tokenizes as serving does."""
    if tokenizer_json is None or recipe.inputs.text is None:
        return None
    return TextPreparer(tokenizer_json, recipe.inputs.text)


def evaluation_rows(split: Split) -> Rows:
    return split.pairing.rows(EVALUATION_SEED)


def _calibrated_loss(encodings: Encodings, rows: Rows, task: Task) -> float:
    """Nats, of the rows that bring a subset, mean over the subsets."""
    losses = []
    for subset in subsets(encodings.model.names):
        chosen = rows_with(rows, subset)
        logits = torch.from_numpy(encodings.logits(chosen, subset)).float()
        targets = torch.from_numpy(chosen.targets)
        losses.append(mean_loss(logits, targets, task))
    return sum(losses) / len(losses)


class _Course:
    """The fits of one run: the model itself, and where its fusion asks for them, those of the folds."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, tokenizer_json: bytes | None, *, seed: int, where: Where
    ) -> None:
        self._recipe, self._dataset, self._seed, self._where = recipe, dataset, seed, where
        self._tokenizer_json = tokenizer_json
        self._vocabulary = vocabulary_size(tokenizer_json)
        # Texts are tokenized once a run, not once an epoch.
        self._stocks = [
            (split.items, Stock(split.items, recipe.inputs, preparer_of(recipe, tokenizer_json)))
            for split in (dataset.train, dataset.validation)
        ]

    def fit(
        self, model: Model, split: Split, report: Report, *, state: str, watch: Watch | None = None
    ) -> History:
        where = self._where
        drawer = Drawer(split, self._stock_of(split), self._recipe, seed=self._seed, world=where.world)
        folder = where.state_folder
        saving = Saving(folder / state, self._identity(state), where.save_every_s) if folder else None
        validate = self._validating(watch) if self._recipe.schedule.patience is not None else None
        return fit(
            model,
            drawer,
            self._recipe,
            seed=self._seed,
            device=where.device,
            world=where.world,
            report=report,
            validate=validate,
            saving=saving,
        )

    def encodings(self, model: Model, split: Split) -> Encodings:
        stock = self._stock_of(split)
        changed = self._recipe.augmentation.modalities if split.items is self._dataset.train.items else ()
        keep_constants(model, stock, split.items.counts, changed=changed)
        return encode(model, stock, split.items.counts)

    def _stock_of(self, split: Split) -> Stock:
        """Of training or of validation items, whatever rows they stand in."""
        return next(stock for items, stock in self._stocks if items is split.items)

    def left_out(self, model: Model) -> tuple[Encodings, Rows] | None:
        """Training rows, answered as if their groups had not been seen, where every encoder can.

        They are many times those of validation, which is left to calibrate on.
        """
        if not all(model.encoder(name).leaves_out for name in model.names):
            return None
        train = self._dataset.train
        encodings = encode(model.train(), self._stock_of(train), train.items.counts)
        model.eval()
        return encodings, evaluation_rows(train)

    def teach_alone(self, alone: Alone, stage: Stage) -> Taught:
        recipe = recipe_alone(self._recipe, alone)
        lone = _Course(recipe, self._dataset, self._tokenizer_json, seed=self._seed, where=self._where)

        def fitted(split: Split, state: str) -> Model:
            make_repeatable(seed=self._seed, threads=recipe.schedule.threads)
            model = Model(recipe, vocabulary=self._vocabulary)
            with stage(f"{alone.modality}, {state}") as report:
                lone.fit(model, split, report, state=state)
            return model

        return teach(alone, self._dataset, fitted, lone.encodings, seed=EVALUATION_SEED)

    def settle_out_of_fold(self, model: Model, stage: Stage) -> None:
        """Fit the fusion on predictions of training items by towers that did not see their fold."""
        train = self._dataset.train
        rows = train.pairing.rows(seed_of(self._seed, "folds", 0))
        columns = [MODALITIES.index(name) for name in model.names]
        said: torch.Tensor | None = None
        for fold in range(_FOLDS):
            make_repeatable(seed=self._seed, threads=self._recipe.schedule.threads)
            towers = Model(self._recipe, vocabulary=self._vocabulary)
            with stage(f"fold {fold + 1} of {_FOLDS}") as report:
                split = Split(train.items, WithoutFold(train.pairing, fold, _FOLDS))
                self.fit(towers, split, report, state=f"fold{fold}")
            available = torch.from_numpy(rows.present[:, columns])
            found = self.encodings(towers, train).raw(rows, available).modality_logits
            unseen = torch.from_numpy(in_fold(rows, fold, _FOLDS)[:, columns]).unsqueeze(2)
            said = torch.where(unseen, found, torch.zeros_like(found) if said is None else said)
        assert said is not None
        available = torch.from_numpy(rows.present[:, columns])
        model.fusion.settle(said, available, torch.from_numpy(rows.targets), seed=self._seed)

    def _validating(self, watch: Watch | None) -> Validate:
        def validate(model: Model, epoch: int) -> float:
            loss = self._validation_loss(model)
            if watch is not None:
                watch(epoch, loss)
            return loss

        return validate

    def _validation_loss(self, model: Model) -> float:
        """Mean over the subsets of modalities, before any calibration."""
        encodings, rows = (
            self.encodings(model, self._dataset.validation),
            evaluation_rows(self._dataset.validation),
        )
        losses = []
        for subset in subsets(model.names):
            chosen = rows_with(rows, subset)
            raw = encodings.raw(chosen, presence_of(model.names, subset, len(chosen)))
            losses.append(mean_loss(raw.logits, torch.from_numpy(chosen.targets), self._recipe.task))
        return sum(losses) / len(losses)

    def _identity(self, state: str) -> str:
        """Of all that decides the weights: a run goes on only from its own state."""
        told = {
            "settings": self._recipe.settings(),
            "data": self._dataset.provenance,
            "seed": self._seed,
            "state": state,
            "world": self._where.world.size,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
