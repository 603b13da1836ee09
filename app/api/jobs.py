"""/v1/jobs: many rows that are answered on the server's own time, and outlive a restart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.api import schemas
from app.api.bodies import announced_bytes, chunks, read_body, refuse_packed
from app.api.documented import inlined, problems
from app.api.engine_metrics import count_answer
from app.api.errors import Refusal
from app.api.forms import FormCaps, read_form
from app.api.parameters import (
    FIELDS,
    PARAMETER_BYTES,
    Parameters,
    TopK,
    Version,
    read_parameters,
    read_query,
)
from app.api.rows import RowBody
from app.api.service import Service
from app.api.strict_json import parse_json, validate
from app.jobs.job import Job, Outcome, Source, State, Wanted
from app.jobs.jobs import Jobs, Receipt
from app.jobs.store import Backlog, Kind, Store
from app.metrics import Metrics
from app.serving.engine import Answer
from app.serving.model import LiveModel

_LINES: Final = ("application/x-ndjson", "application/jsonl")
_NAME_BYTES: Final = 128
_BODY_BYTES: Final = 16 * 1024  # of a body that names a manifest
_KEY: Final = re.compile(r"[!-~]{1,128}")
_OFF: Final = (
    "This server takes no jobs until whoever runs it sets TRICHORD_JOBS_DIR. Send rows to /v1/predict/stream."
)
_NAMED: Final[dict[str, Any]] = {
    "type": "string",
    "maxLength": _NAME_BYTES,
    "description": "What you call the job.",
}
_FIELDS: Final = {name: FIELDS[name] for name in ("model", "version", "top_k")} | {"name": _NAMED}
_IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again, the same key gives the job that it made.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
}


Before = Annotated[
    int | None, Query(ge=1, le=2**53, description="Only jobs before the one that `next` named.")
]
After = Annotated[int, Query(ge=-1, le=2**53, description="Only rows behind this position.")]
Limit = Annotated[int | None, Query(ge=1, le=2**53, description="Most lines; all, if left out.")]


class ManifestBody(BaseModel):
    """A job over a manifest that the server has."""

    model_config = Parameters.model_config

    model: str | None = Field(None, max_length=PARAMETER_BYTES)
    version: Version | None = None
    top_k: TopK | None = None
    manifest: str = Field(
        min_length=1, max_length=4096, description="Its path below the folder of manifests."
    )
    name: str | None = Field(None, max_length=_NAME_BYTES, description="What you call the job.")


def _body() -> dict[str, Any]:
    form = {
        "type": "object",
        "properties": {"rows": {"type": "string", "format": "binary", "description": "JSONL."}, **_FIELDS},
        "required": ["rows"],
        "additionalProperties": False,
    }
    lines = {kind: {"schema": inlined(RowBody)} for kind in _LINES}
    return {
        "required": True,
        "description": "Rows as lines of JSON, or the name of a manifest.",
        "content": {
            **lines,
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": inlined(ManifestBody)},
        },
    }


class JobMetrics:
    """What workers tell, as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def answered(self, model: LiveModel, answer: Answer) -> None:
        count_answer(self._metrics, model, answer)

    def finished(self, outcome: Outcome) -> None:
        self._metrics.job_rows.labels("scored").inc(outcome.scored)
        self._metrics.job_rows.labels("failed").inc(outcome.failed)

    def ended(self, state: State) -> None:
        self._metrics.jobs.labels(state.value).inc()

    def waiting(self, backlog: Backlog) -> None:
        self._metrics.jobs_unfinished.set(backlog.jobs)
        self._metrics.job_rows_waiting.set(backlog.rows)


def jobs_router(service: Service, jobs: Jobs | None) -> APIRouter:
    """The routes. Without jobs they say how to have some."""
    router = APIRouter(tags=["jobs"])
    desk = _Desk(service, jobs)
    _add_changes(router, desk)
    _add_outputs(router, desk)

    @router.post(
        "/v1/jobs",
        operation_id="create_job",
        summary="Make a job of many rows",
        status_code=202,
        response_model_exclude_none=True,
        responses=problems(
            "bad_request", "bad_multipart", "jobs_off", "model_not_found", "body_too_large",
            "unsupported_media_type", "invalid_parameter", "overloaded", "jobs_unavailable",
        ),
        openapi_extra={
            "requestBody": _body(),
            "parameters": [
                _IDEMPOTENCY,
                *(
                    {"name": name, "in": "query", "required": False, "schema": schema}
                    for name, schema in _FIELDS.items()
                ),
            ],
        },
    )  # fmt: skip
    async def create_job(request: Request, response: Response) -> schemas.Job:
        job = await desk.create(request)
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return job

    @router.get(
        "/v1/jobs",
        operation_id="list_jobs",
        summary="Your jobs, newest first",
        response_model_exclude_none=True,
        responses=problems("jobs_off", "invalid_parameter", "jobs_unavailable"),
    )
    async def list_jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        before: Before = None,
    ) -> schemas.Jobs:
        found = await desk.jobs.ask(Store.latest, owner=_owner(request), before=before, most=limit + 1)
        return schemas.Jobs(
            jobs=[desk.wire(job) for job in found[:limit]],
            next=str(found[limit - 1].number) if len(found) > limit else None,
        )

    @router.get(
        "/v1/jobs/{job_id}",
        operation_id="get_job",
        summary="How far a job is",
        response_model_exclude_none=True,
        responses=problems("job_not_found", "jobs_unavailable"),
    )
    async def get_job(request: Request, job_id: str) -> schemas.Job:
        return desk.wire(await desk.find(request, job_id))

    return router


def _add_changes(router: APIRouter, desk: _Desk) -> None:
    @router.post(
        "/v1/jobs/{job_id}/cancel",
        operation_id="cancel_job",
        summary="End a job, and keep what is finished of it",
        response_model_exclude_none=True,
        responses=problems("job_not_found", "jobs_unavailable"),
    )
    async def cancel_job(request: Request, job_id: str) -> schemas.Job:
        return await desk.cancel(request, job_id)

    @router.delete(
        "/v1/jobs/{job_id}",
        operation_id="delete_job",
        summary="End a job if it has not ended, and delete it with its results",
        status_code=204,
        responses=problems("job_not_found", "jobs_unavailable"),
    )
    async def delete_job(request: Request, job_id: str) -> None:
        await desk.find(request, job_id)
        await desk.jobs.forget(job_id)


def _add_outputs(router: APIRouter, desk: _Desk) -> None:
    @router.get(
        "/v1/jobs/{job_id}/results",
        operation_id="job_results",
        summary="The rows that are answered so far, in order",
        response_class=Response,
        responses=_output(schemas.JobResult),
    )
    async def job_results(request: Request, job_id: str, after: After = -1, limit: Limit = None) -> Response:
        return await desk.output(request, job_id, "results", after=after, most=limit)

    @router.get(
        "/v1/jobs/{job_id}/errors",
        operation_id="job_errors",
        summary="The rows that failed so far, in order, each as a row that can be sent again",
        response_class=Response,
        responses=_output(schemas.JobLetter),
    )
    async def job_errors(request: Request, job_id: str, after: After = -1, limit: Limit = None) -> Response:
        return await desk.output(request, job_id, "letters", after=after, most=limit)


class _Desk:
    """What the routes share."""

    def __init__(self, service: Service, jobs: Jobs | None) -> None:
        self._service = service
        self._jobs = jobs

    @property
    def jobs(self) -> Jobs:
        """Raises Refusal jobs_off."""
        if self._jobs is None:
            raise Refusal("jobs_off", _OFF)
        return self._jobs

    async def find(self, request: Request, job_id: str) -> Job:
        """Raises JobNotFound."""
        return await self.jobs.ask(Store.get, job_id, owner=_owner(request))

    async def create(self, request: Request) -> schemas.Job:
        jobs, owner, key = self.jobs, _owner(request), _idempotency_key(request)
        if key is not None:
            known = await jobs.ask(Store.of_key, key, owner=owner)
            if known is not None:
                return self.wire(known)
        await jobs.room()
        async with jobs.receiving() as receipt:
            asked = await self._read(request, receipt)
            source = Source(owner, asked.name, asked.manifest, asked.base, key)
            job = await receipt.submit(source, asked.wanted)
        self._service.metrics.jobs.labels("submitted").inc()
        return self.wire(job)

    async def cancel(self, request: Request, job_id: str) -> schemas.Job:
        """Of a job that has ended nothing changes. Raises JobNotFound."""
        await self.find(request, job_id)
        if await self.jobs.cancel(job_id):
            self._service.metrics.jobs.labels(State.CANCELLED.value).inc()
        return self.wire(await self.find(request, job_id))

    async def output(
        self, request: Request, job_id: str, kind: Kind, *, after: int, most: int | None
    ) -> Response:
        """Line by line, at the client's pace; what is finished while it is read comes, too."""
        await self.find(request, job_id)
        lines = self.jobs.lines(job_id, kind, after=after, most=most)
        return StreamingResponse(lines, media_type=_LINES[0])

    def wire(self, job: Job) -> schemas.Job:
        done, wanted = job.scored + job.failed, job.wanted
        keep_s = self.jobs.limits.keep_s
        return schemas.Job(
            id=job.id,
            name=job.source.name,
            state=schemas.JobState(job.state.value),
            reason=job.reason,
            model=schemas.ModelRef(name=wanted.model, version=wanted.version, digest=wanted.digest),
            top_k=wanted.top_k,
            manifest=job.source.manifest,
            rows=schemas.JobRows(total=job.total, scored=job.scored, failed=job.failed),
            progress=done / job.total if job.total else 1.0,
            created_at=_time(job.created_s),
            started_at=None if job.started_s is None else _time(job.started_s),
            finished_at=None if job.finished_s is None else _time(job.finished_s),
            expires_at=None if job.finished_s is None else _time(job.finished_s + keep_s),
        )

    async def _read(self, request: Request, receipt: Receipt) -> _Asked:
        """The rows go to the disk as they come. Raises Refusal, or what the receipt raises."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _LINES:
            return await self._read_lines(request, receipt)
        if kind == "multipart/form-data":
            return await self._read_form(request, receipt)
        if kind == "application/json":
            return await self._read_manifest(request, receipt)
        kinds = ", ".join((*_LINES, "multipart/form-data", "application/json"))
        raise Refusal("unsupported_media_type", f"Send the rows, or the name of a manifest, as {kinds}.")

    async def _read_lines(self, request: Request, receipt: Receipt) -> _Asked:
        refuse_packed(request)
        fields = read_query(request, allowed=_FIELDS)
        asked = self._asked(read_parameters(fields), _name(fields))
        most = self.jobs.limits.caps.bytes
        announced_bytes(request, most=most)
        async for piece in chunks(request, most=most):
            await receipt.write(piece)
        return asked

    async def _read_form(self, request: Request, receipt: Receipt) -> _Asked:
        read_query(request, allowed=())
        most = self.jobs.limits.caps.bytes
        caps = FormCaps(
            {"rows": most, **dict.fromkeys(_FIELDS, PARAMETER_BYTES), "name": _NAME_BYTES}, handed_on="rows"
        )
        announced_bytes(request, most=caps.total)
        form = await read_form(request, caps, hand_on=receipt.write)
        if "rows" not in form:
            raise Refusal("invalid_parameter", "The form has no part named rows.", part="rows")
        return self._asked(read_parameters(form), _name(form))

    async def _read_manifest(self, request: Request, receipt: Receipt) -> _Asked:
        read_query(request, allowed=())
        body = validate(ManifestBody, parse_json(await read_body(request, most=_BODY_BYTES)))
        wanted = Parameters(model=body.model, version=body.version, top_k=body.top_k)
        asked = self._asked(wanted, body.name)
        return replace(asked, manifest=body.manifest, base=await receipt.copy(body.manifest))

    def _asked(self, parameters: Parameters, name: str | None) -> _Asked:
        """Raises ModelNotFound, ModelAmbiguous or Refusal."""
        question = self._service.question(parameters)
        manifest = question.model.manifest
        wanted = Wanted(manifest.name, manifest.version, manifest.digest, question.top_k)
        return _Asked(wanted, name)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request for a job says beside its rows."""

    wanted: Wanted
    name: str | None
    manifest: str | None = None
    base: str | None = None


def _owner(request: Request) -> str:
    return getattr(request.state, "key", "")


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Refusal(
            "invalid_parameter", "The key has 1 to 128 visible ASCII characters.", part="idempotency-key"
        )
    return key


def _name(fields: Mapping[str, bytes]) -> str | None:
    name = fields.get("name")
    if name is None:
        return None
    if len(name) > _NAME_BYTES:
        raise Refusal("invalid_parameter", f"The name has more than {_NAME_BYTES} bytes.", part="name")
    return name.decode(errors="replace")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _output(row: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return problems("job_not_found", "invalid_parameter", "jobs_unavailable") | {
        200: {
            "description": "A line of JSON for each row.",
            "content": {_LINES[0]: {"schema": inlined(row)}},
        }
    }
