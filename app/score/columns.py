"""What a row of the output holds: its columns, their types, and what fills them. The same for every engine.

| column | in JSONL | in Parquet |
|---|---|---|
| id | text | string |
| label, probability | the most probable class | string, float32 |
| labels | of a multilabel model, those that hold | list of struct of label and probability |
| prediction_set | of a model with conformal sets | list of string |
| top | the most probable classes, best first | list of struct of label and probability |
| modalities | those that were used | list of string |
| by_modality | what each of them says on its own | struct of image, text, audio: struct as above or null |
| warnings | list of part, code, message | list of struct |
| embedding | list of numbers, if asked for | list of float32 |
| contribution_image, … | with `--explain`, of each modality that was used, in nats | double |
| model, version, digest, scored_at | who answered, and when (UTC) | string, int64, string, timestamp in ms |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from app.bundle import interpret, sample
from app.bundle.manifest import MODALITIES
from app.score.engine import Model
from app.score.errors import NotAsked

if TYPE_CHECKING:
    from app import client

CONTRIBUTIONS: Final = {name: f"contribution_{name}" for name in MODALITIES}
COLUMNS: Final = (
    "id", "label", "probability", "labels", "prediction_set", "top", "modalities", "by_modality", "warnings",
    "embedding", *CONTRIBUTIONS.values(), "model", "version", "digest", "scored_at",
)  # fmt: skip


def columns_for(
    model: Model, asked: Sequence[str] | None, *, embeddings: bool, explanations: bool = False
) -> tuple[str, ...]:
    """The columns of a run: all that the model fills, or those asked for, with the id in any case.

    Raises NotAsked.
    """
    absent = {
        "labels": not model.is_multilabel,
        "prediction_set": not model.has_sets,
        "embedding": not embeddings,
        **{column: not (explanations and name in model.most_bytes) for name, column in CONTRIBUTIONS.items()},
    }
    filled = [name for name in COLUMNS if not absent.get(name, False)]
    for name in asked or ():
        if name not in filled:
            raise NotAsked(f"There is no column '{name}'. Choose from {', '.join(filled)}.")
    return tuple(name for name in filled if not asked or name in asked or name == "id")


def answer(
    prediction: interpret.Prediction | client.Prediction,
    warnings: Sequence[sample.InputWarning | client.InputWarning],
    embedding: Sequence[float] | None,
) -> dict[str, Any]:
    """What a bundle in this process said, or a server: they call all of it the same."""
    best = prediction.top[0]
    said: dict[str, Any] = {
        "label": best.label,
        "probability": best.probability,
        "top": _classes(prediction.top),
        "modalities": list(prediction.used),
        "by_modality": {
            name: {"label": one.label, "probability": one.probability}
            | ({} if one.labels is None else {"labels": _classes(one.labels)})
            for name, one in prediction.by_modality.items()
        },
        "warnings": [asdict(warning) for warning in warnings],
    }
    if prediction.labels is not None:
        said["labels"] = _classes(prediction.labels)
    if prediction.prediction_set is not None:
        said["prediction_set"] = list(prediction.prediction_set.labels)
    if prediction.explanation is not None:
        said |= _contributions(prediction.explanation.contributions)
    if embedding is not None:
        said["embedding"] = embedding
    return said


def _classes(several: Sequence[interpret.ClassProbability | client.ClassProbability]) -> list[dict[str, Any]]:
    return [{"label": one.label, "probability": one.probability} for one in several]


def _contributions(by_modality: Mapping[Any, float]) -> dict[str, float]:
    return {column: by_modality[name] for name, column in CONTRIBUTIONS.items() if name in by_modality}


def output_row(
    row_id: str, answer: Mapping[str, Any], model: Model, columns: Sequence[str], *, at: datetime
) -> dict[str, Any] | None:
    """The columns, in order; None where a number is NaN or infinite, which JSON cannot say."""
    numbers = [answer["probability"], *(said["probability"] for said in answer["by_modality"].values())]
    if not all(map(math.isfinite, (*numbers, *(answer.get("embedding") or ())))):
        return None
    whole = {
        "id": row_id,
        **answer,
        "model": model.name,
        "version": model.version,
        "digest": model.digest,
        "scored_at": at,
    }
    return {name: whole.get(name) for name in columns}


def arrow_schema(pyarrow: Any, columns: Sequence[str], *, is_multilabel: bool) -> Any:
    """The types of these columns in Parquet."""
    text, number = pyarrow.string(), pyarrow.float32()
    named = [("label", text), ("probability", number)]
    classes = pyarrow.list_(pyarrow.struct(named))
    opinion = pyarrow.struct([*named, ("labels", classes)] if is_multilabel else named)
    warning = pyarrow.struct([("part", text), ("code", text), ("message", text)])
    types = {
        "probability": number,
        "labels": classes,
        "prediction_set": pyarrow.list_(text),
        "top": classes,
        "modalities": pyarrow.list_(text),
        "by_modality": pyarrow.struct([(name, opinion) for name in MODALITIES]),
        "warnings": pyarrow.list_(warning),
        "embedding": pyarrow.list_(number),
        **dict.fromkeys(CONTRIBUTIONS.values(), pyarrow.float64()),
        "version": pyarrow.int64(),
        "scored_at": pyarrow.timestamp("ms", tz="UTC"),
    }
    return pyarrow.schema([pyarrow.field(name, types.get(name, text), name != "id") for name in columns])
