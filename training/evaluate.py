"""What a model is worth: accuracy, likelihood and calibration for every subset, on clean and spoiled rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.bundle.prepare import TextPreparer
from training.data.corpus import Split
from training.data.pairs import Pairs, draw_pairs
from training.degrade import degrade_images, degrade_sounds, degrade_texts
from training.measure.bootstrap import wilson
from training.model import SUBSETS, Model, mask_of, modalities_of
from training.recipe import Recipe
from training.rows import Rows, Sounds, as_rgb, token_rows

PAIR_SEED: Final = 7  # who is paired with whom in evaluation, whatever the training seed
_BINS: Final = 15  # of the calibration error, as in Guo et al. 2017
_CHUNK: Final = 1_000


@dataclass(frozen=True, slots=True)
class Features:
    """What the encoders say about rows that belong together, [rows, features] each."""

    each: tuple[Tensor, Tensor, Tensor]  # image, text, audio

    @property
    def rows(self) -> int:
        return len(self.each[0])


@dataclass(frozen=True, slots=True)
class Score:
    """`interval` is Wilson's at 95 %, counted over `units`: how many of the rows are independent."""

    accuracy: float
    interval: tuple[float, float]
    nll: float  # nats
    ece: float
    units: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """`texts` and `inverted_images` tell apart what the clean table mixes or leaves out."""

    rows: int
    clean: dict[str, Score]  # by subset
    degraded: dict[str, Score]
    known_texts: Score
    unseen_misspellings: Score
    inverted_images: Score
    unseen_speakers: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    model: Model, split: Split, tokenize: TextPreparer, recipe: Recipe, *, unseen_speakers: dict[str, float]
) -> Metrics:
    """On all images of the split, each with one text and one recording of its class."""
    spec = recipe.inputs.text
    assert spec is not None
    rows = Rows.of(split, tokenize, pad_id=spec.pad_id)
    pairs = draw_pairs(split, seed=PAIR_SEED)
    clean = encode_pairs(model, rows, pairs)
    texts = encode_texts(model, rows.text)
    return Metrics(
        rows=len(pairs.labels),
        clean=score_subsets(model, clean, pairs, split),
        degraded=score_subsets(
            model, encode_degraded(model, rows, pairs, split, tokenize, recipe), pairs, split
        ),
        known_texts=_score_texts(model, texts, split, ~split.texts.is_misspelt),
        unseen_misspellings=_score_texts(model, texts, split, split.texts.is_misspelt),
        inverted_images=_score_images(model, 255 - rows.grey, split),
        unseen_speakers=unseen_speakers,
    )


# --- features ---------------------------------------------------------------------------------


def encode_pairs(model: Model, rows: Rows, pairs: Pairs) -> Features:
    """Each text and recording is encoded once, however many rows it is in."""
    audio = encode_sounds(model, rows.sounds)
    text = encode_texts(model, rows.text)
    return Features(
        (encode_images(model, rows.grey[pairs.image]), text[pairs.text], audio[pairs.audio]),
    )


def encode_degraded(
    model: Model, rows: Rows, pairs: Pairs, split: Split, tokenize: TextPreparer, recipe: Recipe
) -> Features:
    """Damage is drawn for every row, not for every recording or text."""
    spec, how = recipe.inputs.text, recipe.degradation
    assert spec is not None
    strings = degrade_texts(tuple(split.texts.strings[row] for row in pairs.text), how, seed=PAIR_SEED)
    audio = [
        encode_sounds(model, degrade_sounds(rows.sounds.take(chosen), how, seed=PAIR_SEED + at))
        for at, chosen in enumerate(torch.from_numpy(pairs.audio).split(_CHUNK))  # type: ignore[no-untyped-call]
    ]
    return Features(
        (
            encode_images(model, degrade_images(rows.grey[pairs.image], how, seed=PAIR_SEED)),
            encode_texts(model, token_rows(strings, tokenize, pad_id=spec.pad_id)),
            torch.cat(audio),
        )
    )


@torch.inference_mode()
def encode_images(model: Model, grey: Tensor) -> Tensor:
    return torch.cat([model.image(as_rgb(part)) for part in torch.split(grey, _CHUNK)])


@torch.inference_mode()
def encode_texts(model: Model, text: Tensor) -> Tensor:
    return torch.cat([model.text(part) for part in torch.split(text, _CHUNK)])


@torch.inference_mode()
def encode_sounds(model: Model, sounds: Sounds) -> Tensor:
    parts = [sounds.take(rows) for rows in torch.split(torch.arange(len(sounds.length)), _CHUNK)]
    return torch.cat([model.audio(part.samples, part.length) for part in parts])


# --- scores -----------------------------------------------------------------------------------


def score_subsets(model: Model, features: Features, pairs: Pairs, split: Split) -> dict[str, Score]:
    units = independent_rows(pairs, split)
    return {
        subset: score(probabilities(model, features, subset), pairs.labels, units=units[subset])
        for subset in SUBSETS
    }


def independent_rows(pairs: Pairs, split: Split) -> dict[str, int]:
    """For each subset the number of distinct images, strings or recordings, whichever are fewest."""
    distinct = {
        "image": len(np.unique(pairs.image)),
        "text": len({split.texts.strings[row] for row in pairs.text}),
        "audio": len(np.unique(pairs.audio)),
    }
    return {subset: min(distinct[name] for name in modalities_of(subset)) for subset in SUBSETS}


@torch.inference_mode()
def probabilities(model: Model, features: Features, subset: str) -> NDArray[np.float64]:
    """Calibrated, float64 [rows, labels], as if only these modalities had been sent."""
    present = torch.tensor([mask_of(subset)]).expand(features.rows, -1)
    answered: NDArray[np.float64] = model.answer(features.each, present).probabilities.double().numpy()
    return answered


def score(answers: NDArray[np.float64], labels: NDArray[np.int64], *, units: int) -> Score:
    right = answers.argmax(axis=1) == labels
    likelihood = answers[np.arange(len(labels)), labels]
    accuracy = float(right.mean())
    return Score(
        accuracy=accuracy,
        interval=wilson(accuracy, units),
        nll=float(-np.log(np.maximum(likelihood, 1e-12)).mean()),
        ece=calibration_error(answers.max(axis=1), right),
        units=units,
    )


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over equal-width bins."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(right))


def _score_texts(model: Model, encoded: Tensor, split: Split, chosen: NDArray[np.bool_]) -> Score:
    texts = split.texts
    strings = {texts.strings[row] for row in np.flatnonzero(chosen)}
    return _score_alone(model, encoded[chosen], texts.labels[chosen], at=1, units=len(strings))


def _score_images(model: Model, grey: Tensor, split: Split) -> Score:
    labels = split.images.labels
    return _score_alone(model, encode_images(model, grey), labels, at=0, units=len(labels))


def _score_alone(model: Model, encoded: Tensor, labels: NDArray[np.int64], *, at: int, units: int) -> Score:
    """One modality only, `at` its place; the others' features are never looked at."""
    features = [encoded.new_zeros(len(encoded), width) for width in model.fusion.features]
    features[at] = encoded
    subset = SUBSETS[at]
    return score(
        probabilities(model, Features((features[0], features[1], features[2])), subset), labels, units=units
    )
