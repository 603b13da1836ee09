"""What travels on the wire."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.serving.plan import Plan


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


Probability = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0)]


class ModelRef(_Wire):
    """The bundle that answered."""

    name: str
    version: int
    digest: str = Field(description="sha256 that identifies the bundle, as in its manifest.")


class ClassProbability(_Wire):
    label: str
    probability: Probability


class Opinion(ClassProbability):
    """The most probable class and, of a multilabel model, the labels that hold."""

    labels: list[ClassProbability] | None = None


class PredictionSet(_Wire):
    """Classes that hold the right one in a stated share of cases. Never empty."""

    level: Probability = Field(description="The share, counted over rows like those of validation.")
    labels: list[str] = Field(description="Best first.")


Nats = Annotated[float, Field(description="Natural logarithm of a probability, or a difference of such.")]


class SubsetAnswer(ClassProbability):
    """What the model answers from these modalities alone."""

    log_probability: Nats = Field(description="Of the explained label, given these modalities alone.")


class Explanation(_Wire):
    """What each used modality contributes to the answer: exact Shapley values, in nats.

    `base` and the contributions add up to the logarithm of the label's probability. They tell what the model
    makes of its inputs, not why the world is as it is.
    """

    label: str = Field(description="The label that is explained: the answer's.")
    base: Nats = Field(description="Logarithm of the label's share before any modality is seen.")
    prior: Literal["calibration", "even"] = Field(
        description="Where the share is from: the bundle, or, if it has none, every label alike."
    )
    contributions: dict[str, Nats] = Field(description="Of each used modality; below 0 if it speaks against.")
    subsets: dict[str, SubsetAnswer] = Field(
        description="By the names of all subsets of the used modalities, such as image+text."
    )


class Modalities(_Wire):
    used: list[str]
    missing: list[str] = Field(description="Modalities that the model reads and the request did not bring.")


class InputWarning(_Wire):
    """Something about an accepted input that its sender should know."""

    part: str
    code: str
    message: str


class Timings(_Wire):
    """Milliseconds."""

    decode: Milliseconds = Field(description="From bytes to arrays.")
    queue: Milliseconds = Field(description="Waiting for the executor.")
    run: Milliseconds = Field(description="The run of the batch that this row was in.")
    total: Milliseconds = Field(description="From the request's headers to this answer.")


class _FromOneModel(_Wire):
    request_id: str
    model: ModelRef


class _Ran(_Wire):
    modalities: Modalities
    warnings: list[InputWarning]
    timings_ms: Timings
    batch_size: int = Field(description="Rows answered by the same run.")


class _Predicted(_Wire):
    label: str
    probability: Probability = Field(description="Calibrated for the subset of modalities that was used.")
    labels: list[ClassProbability] | None = Field(
        default=None, description="Of a multilabel model: every label that reaches its threshold, best first."
    )
    prediction_set: PredictionSet | None = Field(
        default=None,
        description="Of a model with conformal sets, for the subset of modalities that was used.",
    )
    top: list[ClassProbability] = Field(description="The most probable classes, best first.")
    by_modality: dict[str, Opinion] = Field(description="What each used modality says on its own.")
    explanation: Explanation | None = Field(default=None, description="With explain=true.")


class Prediction(_Ran, _Predicted, _FromOneModel):  # entries stand in the reverse order of these bases
    """One fused prediction."""


Vector = list[float] | str


class _Embedded(_Wire):
    embedding: Vector = Field(description="Of all modalities together, as the fusion's last layers see them.")
    by_modality: dict[str, Vector] = Field(description="What each used modality's encoder makes of it.")


class Embedding(_Ran, _Embedded, _FromOneModel):
    """One row as vectors: lists of numbers, or base64 of little-endian float32."""


class RowProblem(_Wire):
    """Why one row has no answer: RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable name of the error, for programs.")
    part: str | None = Field(default=None, description="The form part or parameter that is at fault.")


class _OfRow(_Wire):
    index: int = Field(ge=0, description="The row's place in the request, from 0.")
    id: str | None = Field(default=None, description="The row's id, if it came with one.")
    status: int = Field(description="The HTTP status that the row would have had on its own.")


class RowPrediction(_Ran, _Predicted, _OfRow):
    """A row that was answered."""

    model: ModelRef | None = Field(default=None, description="In a stream, which may outlive a version.")


class RowFailure(_OfRow):
    """A row that was not answered. It harms no other."""

    error: RowProblem


class BatchPrediction(_FromOneModel):
    """One entry for each row, in the request's order."""

    rows: list[RowPrediction | RowFailure]


class JobState(StrEnum):
    """`failed` is a job that could not go on; that rows failed does not make it so."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobRows(_Wire):
    """How many rows there are, and what became of them so far."""

    total: int
    scored: int
    failed: int = Field(description="They are dead letters, in the job's errors.")


class Job(_Wire):
    """Rows that are answered on the server's own time."""

    id: str
    name: str | None = None
    state: JobState
    reason: str | None = Field(default=None, description="Why a failed job could not go on.")
    model: ModelRef = Field(description="The bundle that answers every row, as it was when the job was made.")
    top_k: int
    manifest: str | None = Field(default=None, description="Where the rows came from, if not uploaded.")
    rows: JobRows
    progress: Probability = Field(description="The share of rows that is done.")
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(
        default=None, description="When a job that has ended is deleted with its results."
    )


class Jobs(_Wire):
    """Newest first."""

    jobs: list[Job]
    next: str | None = Field(default=None, description="There are more: ask again with this as `before`.")


class JobResult(RowPrediction):
    """A row of a job that was answered."""

    position: int = Field(ge=0, description="The row's place among the job's rows, from 0; as `index`.")


class JobLetter(_Wire):
    """A row of a job that was not: as `trichord score` writes it, and readable as a row."""

    id: str
    position: int
    stage: str = Field(description="What failed: read, decode or predict.")
    code: str
    reason: str
    attempts: int
    at: datetime
    base: str = Field(description="The folder in which the row names files, below that of manifests.")
    row: Any = Field(description="The row as it came.")


class ImageLimits(_Wire):
    formats: list[str] = ["JPEG", "PNG", "WebP"]
    max_bytes: int
    max_pixels: int


class TextLimits(_Wire):
    max_bytes: int
    max_characters: int
    max_tokens: int


class AudioLimits(_Wire):
    formats: list[str] = ["WAV", "FLAC", "OGG", "MP3"]
    max_bytes: int
    max_seconds: float


class Limits(_Wire):
    """What one part may hold. A modality that the model does not read is absent."""

    image: ImageLimits | None = None
    text: TextLimits | None = None
    audio: AudioLimits | None = None


class Model(_Wire):
    """A live bundle."""

    name: str
    version: int
    digest: str
    task: str
    labels: list[str]
    thresholds: list[float] | None = Field(
        default=None, description="Of a multilabel model: the least probability of each label that holds."
    )
    prediction_set_level: Probability | None = Field(
        default=None, description="Of a model with conformal sets: the share of cases that they are right in."
    )
    limits: Limits
    fusion: str = Field(description="How features are joined.")
    device: str
    created: str


class RefusedModel(_Wire):
    """A bundle in the models folder that does not serve. The server's log says why."""

    name: str
    version: int


class Models(_Wire):
    models: list[Model]
    refused: list[RefusedModel]


class Version(_Wire):
    """One version in the models folder."""

    name: str
    version: int
    state: str = Field(description="READY, LOADING, UNLOADING or UNAVAILABLE.")
    reason: str = Field(description="Why it does not serve; empty if it does.")


class Serving(_Wire):
    """A model's plan, and what came of it."""

    plan: Plan
    versions: list[Version]


class Health(_Wire):
    status: str


class Problem(RowProblem):
    """RFC 9457 problem details."""

    request_id: str
