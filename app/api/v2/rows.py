"""The rows of a request: from tensors to samples, through the engine, to answers.

All rows are prepared before the first one runs. A row that cannot be read fails the whole request, because
the protocol has no answer for part of one, and then nothing was run in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from app.api.v2.requests import LENGTH_INPUT
from app.api.v2.tensors import Tensor
from app.bundle.errors import InputError, NoModality
from app.bundle.prepared import check_audio, check_image, check_tokens
from app.bundle.sample import RawInputs, Sample
from app.serving.engine import Answer, Place, Timings
from app.serving.model import LiveModel

_DECODING: Final = 4  # rows of one request at a time, so that a large one leaves threads to others

_NOTHING: Final = Sample()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """What one row brought: media still to be decoded, and arrays that its sender prepared."""

    raw: RawInputs
    prepared: Sample = _NOTHING


def rows_of(tensors: Mapping[str, Tensor], rows: int, model: LiveModel) -> list[Row]:
    """Raises InputError, naming the row."""
    found = []
    for index in range(rows):
        with _naming(index):
            found.append(_row({name: tensor[index, ...] for name, tensor in tensors.items()}, model))
    return found


async def answer_rows(places: Sequence[Place], model: LiveModel, rows: Sequence[Row]) -> list[Answer]:
    """Answers in the order of the rows.

    Raises the first failure: InputError naming the row, DeadlineExceeded, NonFiniteOutput.
    """
    started_s = time.perf_counter()
    gate = asyncio.Semaphore(_DECODING)
    samples = await _all(
        _prepare(place, model, row, index, gate)
        for index, (place, row) in enumerate(zip(places, rows, strict=True))
    )
    decode_s = time.perf_counter() - started_s
    return await _all(
        _run(place, model, sample, decode_s=decode_s) for place, sample in zip(places, samples, strict=True)
    )


def _row(values: Mapping[str, Any], model: LiveModel) -> Row:
    media = {name: value.item() for name, value in values.items() if value.dtype == object}
    arrays = {name: value for name, value in values.items() if value.dtype != object}
    raw = RawInputs(**{name: body for name, body in media.items() if body})
    return Row(raw, _sample(arrays, model))


def _sample(arrays: Mapping[str, Tensor], model: LiveModel) -> Sample:
    """The prepared arrays of one row, checked."""
    inputs = model.manifest.inputs
    image = text = audio = None
    if inputs.image and "image" in arrays:
        image = check_image(arrays["image"], inputs.image)
    if inputs.text and "text" in arrays:
        text = check_tokens(arrays["text"], inputs.text, vocabulary=model.predictor.prepare.vocabulary)
    if inputs.audio and "audio" in arrays:
        samples = arrays["audio"]
        length = arrays[LENGTH_INPUT].item() if LENGTH_INPUT in arrays else len(samples)
        audio = check_audio(samples, inputs.audio, length=length)
    return Sample(image=image, text=text, audio=audio)


async def _prepare(place: Place, model: LiveModel, row: Row, index: int, gate: asyncio.Semaphore) -> Sample:
    prepared = row.prepared
    if not row.raw.present:
        if not prepared.present:
            raise NoModality(f"Row {index}: it holds nothing to predict from.")
        return prepared
    async with gate:
        with _naming(index):
            decoded = await place.prepare(model, row.raw)
    return replace(decoded, **{name: getattr(prepared, name) for name in prepared.present})


async def _run(place: Place, model: LiveModel, sample: Sample, *, decode_s: float) -> Answer:
    batched = await place.run(model, sample)
    prediction = model.predictor.interpret(batched.value, sample, top_k=1)
    timings = Timings(decode_s=decode_s, queue_s=batched.queue_s, run_s=batched.run_s)
    return Answer(prediction, batched.value, sample.warnings, timings, batched.batch_size)


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order. The first failure cancels the rest and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


@contextmanager
def _naming(index: int) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(f"Row {index}: {error.message}", part=error.part) from error
