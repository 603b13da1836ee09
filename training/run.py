"""One training run from data to checkpoint: load, fit, calibrate, measure. Publishing is export.py's."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from app.bundle.prepare import TextPreparer
from training.calibrate.temperature import fit_temperatures
from training.checkpoint import Checkpoint, vocabulary_size
from training.data.corpus import Clips, Corpus
from training.data.pairs import draw_pairs
from training.evaluate import PAIR_SEED, encode_pairs, evaluate, independent_rows
from training.fit import accuracy_on_strangers, fit, make_repeatable
from training.model import Model, count_parameters
from training.progress import Stage
from training.recipe import Recipe
from training.rows import Rows
from training.tokenizer import train_tokenizer

_MOST_TOKENS = 2_048  # far above what the characters of the texts need


def train(recipe: Recipe, corpus: Corpus, *, seed: int, stage: Stage) -> Checkpoint:
    """A fitted, calibrated and measured model. `stage` opens a progress bar."""
    spec = recipe.inputs.text
    assert spec is not None
    started = time.monotonic()
    make_repeatable(recipe.schedule, seed=seed)
    tokenizer_json = train_tokenizer(corpus.train.texts.strings, most_tokens=_MOST_TOKENS)
    tokenize = TextPreparer(tokenizer_json, spec)
    model = Model(recipe, vocabulary=vocabulary_size(tokenizer_json))
    rows = Rows.of(corpus.train, tokenize, pad_id=spec.pad_id)
    with stage("train") as report:
        fit(model, rows, corpus.train, recipe, seed=seed, report=report)
    temperatures = _calibrate(model, corpus, tokenize, pad_id=spec.pad_id)
    train_s = time.monotonic() - started
    with stage("unseen speakers") as report:
        strangers = accuracy_on_strangers(_all_clips(corpus), recipe, seed=seed, report=report)
    metrics = evaluate(model, corpus.test, tokenize, recipe, unseen_speakers=strangers)
    run: dict[str, Any] = {
        "recipe": recipe.name,
        "seed": seed,
        "parameters": count_parameters(model),
        "schedule": asdict(recipe.schedule),
        "widths": asdict(recipe.widths),
        "image_augmentation": asdict(recipe.image_augmentation),
        "audio_augmentation": asdict(recipe.audio_augmentation),
        "degradation": asdict(recipe.degradation),
        "train_s": round(train_s, 1),
        "modality_temperatures": [round(value, 4) for value in model.modality_temperatures.tolist()],
        "data": corpus.provenance,
    }
    return Checkpoint(model, tokenizer_json, temperatures, run, metrics.as_json())


def _calibrate(model: Model, corpus: Corpus, tokenize: TextPreparer, *, pad_id: int) -> dict[str, float]:
    """On validation rows, never on test rows."""
    pairs = draw_pairs(corpus.validation, seed=PAIR_SEED)
    features = encode_pairs(model, Rows.of(corpus.validation, tokenize, pad_id=pad_id), pairs)
    units = independent_rows(pairs, corpus.validation)
    return fit_temperatures(model, features, torch.from_numpy(pairs.labels), units=units)


def _all_clips(corpus: Corpus) -> Clips:
    """Of all splits: a speaker who is left out is unseen in every recording."""
    parts = [corpus.train.clips, corpus.validation.clips, corpus.test.clips]
    return Clips(
        samples=tuple(samples for part in parts for samples in part.samples),
        labels=np.concatenate([part.labels for part in parts]),
        speakers=np.concatenate([part.speakers for part in parts]),
    )
