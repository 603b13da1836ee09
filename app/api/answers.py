"""What the engine answered, as it travels on the wire. The same for one row, a batch and a stream."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from fastapi import Response
from numpy.typing import NDArray

from app.api import schemas
from app.bundle.attribution import Explanation
from app.bundle.interpret import ClassProbability, Opinion, PredictionSet
from app.rows.row import Row
from app.runtime.errors import NonFiniteOutput
from app.serving.engine import Answer
from app.serving.model import LiveModel


def prediction(answer: Answer, model: LiveModel, *, request_id: str, started_s: float) -> schemas.Prediction:
    """The answer to a request of one row, which began at `started_s`."""
    return schemas.Prediction(
        request_id=request_id, model=model_ref(model), **_predicted(answer), **_ran(answer, started_s)
    )


def embedding(
    answer: Answer, model: LiveModel, *, as_base64: bool, request_id: str, started_s: float
) -> schemas.Embedding:
    """The same row as vectors. Raises NonFiniteOutput: JSON has no NaN."""
    features = answer.outputs.named_features(model.manifest)
    by_modality = {name: features[name] for name in answer.prediction.used}
    if not all(np.isfinite(vector).all() for vector in (answer.outputs.embedding, *by_modality.values())):
        raise NonFiniteOutput
    wire = _base64 if as_base64 else _numbers
    return schemas.Embedding(
        request_id=request_id,
        model=model_ref(model),
        embedding=wire(answer.outputs.embedding),
        by_modality={name: wire(vector) for name, vector in by_modality.items()},
        **_ran(answer, started_s),
    )


def row_prediction(
    answer: Answer, *, index: int, row_id: str | None, started_s: float, model: schemas.ModelRef | None
) -> schemas.RowPrediction:
    """The answer to one of many rows."""
    return schemas.RowPrediction(
        index=index, id=row_id, status=200, model=model, **_predicted(answer), **_ran(answer, started_s)
    )


def job_result(answer: Answer, model: LiveModel, row: Row, started_s: float) -> str:
    """The answer to a row of a job, as a line."""
    result = schemas.JobResult(
        index=row.position,
        position=row.position,
        id=row.id,
        status=200,
        model=model_ref(model),
        **_predicted(answer),
        **_ran(answer, started_s),
    )
    return result.model_dump_json(exclude_none=True)


def response(body: schemas.Prediction | schemas.Embedding) -> Response:
    """The answer as JSON, and its timings as a header that browsers' developer tools show."""
    timings = body.timings_ms.model_dump()
    said = ", ".join(f"{name};dur={milliseconds:.3f}" for name, milliseconds in timings.items())
    content = body.model_dump_json(exclude_none=True)
    return Response(content, headers={"Server-Timing": said}, media_type="application/json")


def model_ref(model: LiveModel) -> schemas.ModelRef:
    manifest = model.manifest
    return schemas.ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)


def _predicted(answer: Answer) -> dict[str, Any]:
    """Plain entries: pydantic checks all of a row at once in a third of the time of one by one."""
    prediction = answer.prediction
    within = prediction.prediction_set
    return {
        "label": prediction.best.label,
        "probability": prediction.best.probability,
        "labels": _classes(prediction.labels),
        "prediction_set": within and {"level": within.level, "labels": list(within.labels)},
        "top": _classes(prediction.top),
        "by_modality": {name: _opinion(one) for name, one in prediction.by_modality.items()},
        "explanation": prediction.explanation and _explanation(prediction.explanation),
    }


def _ran(answer: Answer, started_s: float) -> dict[str, Any]:
    prediction, timings = answer.prediction, answer.timings
    return {
        "modalities": {"used": list(prediction.used), "missing": list(prediction.missing)},
        "warnings": [asdict(warning) for warning in answer.warnings],
        "timings_ms": {
            "decode": _ms(timings.decode_s),
            "queue": _ms(timings.queue_s),
            "run": _ms(timings.run_s),
            "total": _ms(time.perf_counter() - started_s),
        },
        "batch_size": answer.batch_size,
    }


def _numbers(vector: NDArray[np.float32]) -> list[float]:
    return [float(number) for number in vector]


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _opinion(one: Opinion) -> dict[str, Any]:
    return {"label": one.label, "probability": one.probability, "labels": _classes(one.labels)}


def _explanation(one: Explanation) -> schemas.Explanation:
    return schemas.Explanation(
        label=one.label,
        base=one.base,
        prior="even" if one.is_base_even else "calibration",
        contributions=one.contributions,
        subsets={name: schemas.SubsetAnswer(**asdict(said)) for name, said in one.subsets.items()},
    )


def wire_set(one: PredictionSet | None) -> schemas.PredictionSet | None:
    return None if one is None else schemas.PredictionSet(level=one.level, labels=list(one.labels))


def _classes(several: Sequence[ClassProbability] | None) -> list[dict[str, Any]] | None:
    if several is None:
        return None
    return [{"label": one.label, "probability": one.probability} for one in several]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
