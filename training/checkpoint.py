"""What training leaves for export: weights (safetensors), the tokenizer, and what is known about the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from training.calibrate.conformal import Conformal
from training.calibrate.model import METHOD, Calibrated
from training.calibrate.sets import SetsOf
from training.model import Model
from training.recipe import Recipe

WEIGHTS_FILE: Final = "checkpoint.safetensors"
TOKENIZER_FILE: Final = "tokenizer.json"
RUN_FILE: Final = "run.json"
METRICS_FILE: Final = "metrics.json"


class CheckpointInvalid(Exception):
    """The folder holds no checkpoint of this recipe."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained and calibrated model. `run` and `metrics` become the manifest's `training` and `metrics`."""

    model: Model
    labels: tuple[str, ...]  # in the order of its logits
    tokenizer_json: bytes | None  # None of a model that reads no texts
    calibrated: Calibrated
    run: dict[str, Any]
    metrics: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """All of it is written aside first, so that a kill leaves the one that was there."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix="checkpoint-") as name:
        aside = Path(name)
        save_file(checkpoint.model.state_dict(), aside / WEIGHTS_FILE)
        if checkpoint.tokenizer_json is not None:
            (aside / TOKENIZER_FILE).write_bytes(checkpoint.tokenizer_json)
        run = {
            "labels": checkpoint.labels,
            "calibrated": asdict(checkpoint.calibrated),
            "run": checkpoint.run,
        }
        (aside / RUN_FILE).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        (aside / METRICS_FILE).write_text(json.dumps(checkpoint.metrics, indent=1) + "\n", encoding="utf-8")
        for path in list(aside.iterdir()):
            path.replace(folder / path.name)


def load_checkpoint(folder: Path, recipe: Recipe) -> Checkpoint:
    """Raises CheckpointInvalid: not there, damaged, of another shape than the recipe, or for other labels.

    Raises EncoderUnfit where pretrained weights are no longer to be had.
    """
    with _refusing(folder, recipe):
        tokenizer_json = (folder / TOKENIZER_FILE).read_bytes() if recipe.inputs.text else None
        vocabulary = vocabulary_size(tokenizer_json)
        record = json.loads((folder / RUN_FILE).read_bytes())
        metrics = json.loads((folder / METRICS_FILE).read_bytes())
        _check_labels(record, recipe, folder)
        calibrated, run = _calibrated(record["calibrated"]), record["run"]
        weights = load_file(folder / WEIGHTS_FILE)
    model = Model(recipe, vocabulary=vocabulary)
    with _refusing(folder, recipe):
        if calibrated.conformal is not None:
            thresholds = calibrated.conformal.thresholds(METHOD)
            model.sets = SetsOf(thresholds, method=METHOD, modalities=model.names)
        model.load_state_dict(weights)
    return Checkpoint(
        model=model.eval(),
        labels=recipe.labels,
        tokenizer_json=tokenizer_json,
        calibrated=calibrated,
        run=run,
        metrics=metrics,
    )


@contextmanager
def _refusing(folder: Path, recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointInvalid(
            f"{folder} holds no checkpoint of recipe {recipe.name}. Train it there first."
        ) from error


def _check_labels(record: dict[str, Any], recipe: Recipe, folder: Path) -> None:
    """A recipe may take its labels from rows, which may have changed since. Files from before say none."""
    trained = tuple(record.get("labels", recipe.labels))
    if trained != recipe.labels:
        raise CheckpointInvalid(
            f"{folder} was trained for the labels {', '.join(trained)}; the rows of {recipe.name} now have "
            f"{', '.join(recipe.labels)}. Restore them, or train again."
        )


def vocabulary_size(tokenizer_json: bytes | None) -> int | None:
    if tokenizer_json is None:
        return None
    return Tokenizer.from_buffer(tokenizer_json).get_vocab_size()


def _calibrated(record: dict[str, Any]) -> Calibrated:
    conformal = record["conformal"]
    return Calibrated(
        temperatures=record["temperatures"],
        modality_temperatures=record["modality_temperatures"],
        prior=tuple(record["prior"]),
        conformal=Conformal(**conformal) if conformal is not None else None,
    )
