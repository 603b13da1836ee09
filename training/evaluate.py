"""What a model is worth on test rows: for every subset, spoiled or not, by slices, and on strangers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Modality, subset_name
from training.batch import Stock
from training.calibrate.conformal import Conformal, fewest_groups
from training.calibrate.model import known_rows
from training.checkpoint import Checkpoint
from training.data.dataset import Dataset, Rows, Split
from training.data.items import Items
from training.degrade import degraded
from training.encodings import Encodings, encode, encode_items
from training.measure.multilabel import MultilabelScore
from training.measure.report import Report, Training
from training.measure.robustness import (
    AUDIO_SNR_DB,
    IMAGE_NOISE,
    TEXT_DAMAGE,
    Curve,
    damaged_texts,
    noisy_clips,
    noisy_images,
    robustness,
)
from training.measure.scores import Score, confusion
from training.measure.sets import SetsMeasured, measure_sets
from training.measure.subsets import Measurements, groups_of, measure_slices, measure_subsets
from training.model import Model
from training.progress import Stage
from training.recipe import Recipe
from training.run import Trained, evaluation_rows, preparer_of
from training.strangers import accuracy_on_strangers

_SEED: Final = 7  # of the damage
_CURVE_ROWS: Final = 2_000  # spread over the test rows
_MOST_VALUES: Final = 30  # of a column that is reported by slices


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """`sets` is None for models without them; `degraded` for recipes that do not say how."""

    rows: int
    test: Measurements
    degraded: Measurements | None
    sets: SetsMeasured | None
    confusion: list[list[int]] | None
    curves: tuple[Curve, ...]
    slices: dict[str, dict[str, Score | MultilabelScore]]
    strangers: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """What the manifest and the card tell: JSON."""
        return {
            "rows": self.rows,
            "test": _scores(self.test),
            "degraded": _scores(self.degraded) if self.degraded else None,
            "counter_intuitive_rate": _rate(self.test),
            "coverage": _coverage(self.sets) if self.sets else None,
            "slices": {
                column: {value: asdict(scored) for value, scored in values.items()}
                for column, values in self.slices.items()
            },
            "strangers": self.strangers or None,
        }


def evaluate(
    trained: Trained, recipe: Recipe, dataset: Dataset, *, seed: int, stage: Stage
) -> tuple[Checkpoint, Evaluation]:
    """On the test rows, which nothing was fitted on."""
    tokenize = preparer_of(recipe, trained.tokenizer_json)
    rows, items = evaluation_rows(dataset.test), dataset.test.items
    stock = Stock(items, recipe.inputs, tokenize)
    encodings = encode(trained.model, stock, items.counts)
    strangers = (
        accuracy_on_strangers(
            recipe, recipe.strangers, dataset, trained.tokenizer_json, seed=seed, stage=stage
        )
        if recipe.strangers
        else {}
    )
    conformal = trained.calibrated.conformal
    is_single = recipe.task == "classification"
    found = Evaluation(
        rows=len(rows),
        test=_measured(encodings, rows),
        degraded=_degraded(encodings, rows, items, recipe, tokenize) if recipe.degradation else None,
        sets=_sets(conformal, encodings, rows) if conformal else None,
        confusion=_confusion(encodings, rows) if is_single else None,
        curves=_curves(encodings, rows, items, recipe, tokenize) if is_single else (),
        slices=_slices(encodings, rows),
        strangers=strangers,
    )
    checkpoint = Checkpoint(
        model=trained.model,
        labels=recipe.labels,
        tokenizer_json=trained.tokenizer_json,
        calibrated=trained.calibrated,
        run=trained.run,
        metrics=found.summary(),
    )
    return checkpoint, found


def measure_answers(
    model: Model, *, recipe: Recipe, split: Split, tokenizer_json: bytes | None, conformal: Conformal | None
) -> tuple[Encodings, Evaluation]:
    """Of a model as it is, on one split: without curves, and without training anything again."""
    tokenize = preparer_of(recipe, tokenizer_json)
    rows, items = evaluation_rows(split), split.items
    encodings = encode(model, Stock(items, recipe.inputs, tokenize), items.counts)
    return encodings, Evaluation(
        rows=len(rows),
        test=_measured(encodings, rows),
        degraded=_degraded(encodings, rows, items, recipe, tokenize) if recipe.degradation else None,
        sets=_sets(conformal, encodings, rows) if conformal else None,
        confusion=None,
        curves=(),
        slices=_slices(encodings, rows),
        strangers={},
    )


def report_of(found: Evaluation, recipe: Recipe, trained: Trained) -> Report:
    """The page that people read."""
    run = trained.run
    return Report(
        title=recipe.about.title,
        summary=f"{recipe.about.rows} {recipe.about.data}",
        labels=recipe.labels,
        provenance={
            "recipe": run["recipe"],
            "fusion": f"{recipe.fusion.level}/{recipe.fusion.method}",
            "parameters": run["parameters"],
            "seed": run["seed"],
            "training, seconds": run["train_s"],
            "test rows": found.rows,
        },
        by_subset=found.test.by_subset,
        counter_intuitive=found.test.counter_intuitive,
        confusion=None if found.confusion is None else np.array(found.confusion),
        sets=found.sets,
        robustness=found.curves,
        slices=found.slices,
        training=Training(loss=tuple(trained.history.losses)),
    )


def _measured(encodings: Encodings, rows: Rows) -> Measurements:
    names = encodings.model.names
    columns = [at for at, name in enumerate(("image", "text", "audio")) if name in names]
    return measure_subsets(
        lambda subset: encodings.likelihood(encodings.logits(rows, subset)),
        rows.targets,
        rows.present[:, columns],
        rows.groups[:, columns],
        modalities=names,
    )


def _sets(conformal: Conformal, encodings: Encodings, rows: Rows) -> SetsMeasured | None:
    """None where all rows of a subset are of one group: nothing says how far its coverage strays."""
    known = known_rows(encodings, rows)
    if any(fewest_groups(one.groups) < 2 for one in known.values()):
        return None
    return measure_sets(conformal, known)


def _degraded(encodings: Encodings, rows: Rows, items: Items, recipe: Recipe, tokenize: Any) -> Measurements:
    assert recipe.degradation is not None
    own, spoiled = degraded(rows, items, recipe.degradation, seed=_SEED)
    stock = Stock(spoiled, recipe.inputs, tokenize)
    return _measured(encode(encodings.model, stock, spoiled.counts), own)


def _everything(encodings: Encodings) -> str:
    return subset_name(encodings.model.names)


def _confusion(encodings: Encodings, rows: Rows) -> list[list[int]]:
    answered = encodings.answers(rows, _everything(encodings))
    table: list[list[int]] = confusion(
        answered.probabilities, answered.rows.targets.astype(np.int64)
    ).tolist()
    return table


def _slices(encodings: Encodings, rows: Rows) -> dict[str, dict[str, Score | MultilabelScore]]:
    """Of all modalities together, by every column that has few values."""
    answered = encodings.answers(rows, _everything(encodings))
    columns = {
        name: values
        for name, values in answered.rows.columns.items()
        if 1 < len(np.unique(values)) <= _MOST_VALUES
    }
    return {
        name: measure_slices(answered.probabilities, answered.rows.targets, answered.groups, values)
        for name, values in columns.items()
    }


def _curves(
    encodings: Encodings, rows: Rows, items: Items, recipe: Recipe, tokenize: Any
) -> tuple[Curve, ...]:
    """For each modality: alone, and beside the others that are sound. Spoils what some rows hold, no more."""
    spread = np.linspace(0, len(rows) - 1, min(_CURVE_ROWS, len(rows))).astype(np.int64)
    chosen = rows.take(spread)
    curves = []
    for name in encodings.model.names:
        at = MODALITIES.index(name)
        used = np.unique(chosen.items[chosen.present[:, at], at])
        spoil, levels = _spoiling(name, items, used)
        spoiled: dict[float, Encodings] = {}
        for level in levels:
            stock = Stock(spoil(level), recipe.inputs, tokenize)
            features = encodings.features[name].clone()
            features[torch.from_numpy(used)] = encode_items(encodings.model, stock, name, len(used))
            spoiled[level] = encodings.with_features(name, features)
        subsets = dict.fromkeys((name, _everything(encodings)))
        curves += [_curve(spoiled, chosen, name, subset) for subset in subsets]
    return tuple(curves)


def _curve(spoiled: dict[float, Encodings], rows: Rows, name: Modality, subset: str) -> Curve:
    some = next(iter(spoiled.values())).answers(rows, subset)
    return robustness(
        lambda level: spoiled[level].answers(rows, subset).probabilities,
        list(spoiled),
        some.rows.targets.astype(np.int64),
        groups_of(some.rows.groups, subset),
        spoiled=name,
        subset=subset,
    )


def _spoiling(
    name: Modality, items: Items, used: NDArray[np.int64]
) -> tuple[Callable[[float], Items], tuple[float, ...]]:
    """Level to the used items, spoiled."""
    if name == "image":
        assert items.images is not None
        images = items.images.take(used)
        return lambda level: Items(images=noisy_images(images, deviation=level, seed=_SEED)), IMAGE_NOISE
    if name == "text":
        assert items.texts is not None
        texts = items.texts.take(used)
        return lambda level: Items(texts=damaged_texts(texts, rate=level, seed=_SEED)), TEXT_DAMAGE
    assert items.clips is not None
    clips = items.clips.take(used)
    return lambda level: Items(clips=noisy_clips(clips, snr_db=level, seed=_SEED)), AUDIO_SNR_DB


def _scores(measured: Measurements) -> dict[str, Any]:
    return {subset: asdict(result.score) for subset, result in measured.by_subset.items()}


def _rate(measured: Measurements) -> float | None:
    return measured.counter_intuitive.rate if measured.counter_intuitive else None


def _coverage(sets: SetsMeasured) -> dict[str, Any]:
    """By method and subset: of the sets that the level is promised for, and of those that people see."""
    return {
        "level": sets.level,
        "mean": {"lac": sets.mean_coverage("lac"), "aps": sets.mean_coverage("aps")},
        **{
            method: {
                subset: {
                    "share": result.held.share,
                    "standard_error": result.held.standard_error,
                    "groups": result.held.groups,
                    "mean_size": result.held.mean_size,
                    "deviation": result.deviation,
                    "seen_share": result.seen.share,
                    "seen_size": result.seen.mean_size,
                }
                for subset, result in results.items()
            }
            for method, results in (("lac", sets.lac), ("aps", sets.aps))
        },
    }
