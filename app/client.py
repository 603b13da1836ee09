"""A client for a Trichord server, sync and async. You may copy this one file: all that it needs is httpx2.

    with Client("http://localhost:8000") as client:
        print(client.predict(image="cat.jpg", text="a cat", audio="meow.wav").label)

Inputs are paths, bytes, files open for reading bytes, or what programs already hold: pictures of Pillow,
arrays, samples with their rate. Results are frozen dataclasses; what a newer server adds is left out.

Every call has a deadline. The server is told what is left of it, and the client keeps it, too, retries
included. Predictions change nothing, so whatever may pass is asked again: 408, 429, 502, 503 and connections
that fail. That happens after a random wait, no sooner than `Retry-After`, and only while the client's budget
of retries lasts, so that many clients do not keep a server down that is trying to get up.

    TrichordError
      RequestError       4xx: the caller must act; a class for each code, such as InvalidImage
      ServiceError       5xx: the server or its operator must act; likewise, such as Overloaded
      ConnectionFailed   no answer, or half of one
      DeadlinePassed     the client's own clock
      InputUnreadable    a file that cannot be read, or changed while it was sent
      UnreadableAnswer   whatever answered does not speak this protocol
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import email.utils
import functools
import io
import json
import operator
import os
import queue
import random
import re
import secrets
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import uuid
import zlib
from array import array
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar, Concatenate, Final, Generic, Literal, ParamSpec, Protocol, Self, TypeVar

import httpx2 as httpx  # the fork that is maintained; the only line to change for another

P = ParamSpec("P")
T = TypeVar("T")

# --- errors -----------------------------------------------------------------------------------


class TrichordError(Exception):
    """What every error of this client is.

    `code`, `title`, `detail` and `part` are the server's own words; `request_id` finds the request in the
    server's log, also when no answer came; `retry_after_s` is how long the server asked to wait; `is_sent` is
    False if it cannot have seen the request.
    """

    code: str = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        title: str = "",
        detail: str = "",
        part: str | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
        is_sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.code = self.code if code is None else code
        self.status = status
        self.title = title
        self.detail = detail
        self.part = part
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.is_sent = is_sent


class RequestError(TrichordError):
    """4xx. The same request will fail again, but for 408 and 429."""


class ServiceError(TrichordError):
    """5xx."""


class ConnectionFailed(TrichordError):
    """There was no connection, or it ended before the answer did."""


class DeadlinePassed(TrichordError):
    """The time for this call was over before there was an answer."""


class InputUnreadable(TrichordError):
    """A file to be sent cannot be read, or became shorter while it was sent."""


class UnreadableAnswer(TrichordError):
    """The answer is none of a Trichord server. Is the URL right?"""


# fmt: off
# One class for each code of the catalogue, in its order, named for it: invalid_image raises InvalidImage.
class BadRequest(RequestError): "The request cannot be understood."
class BadMultipart(RequestError): "The form is malformed."
class TruncatedBody(RequestError): "The form ends before its closing boundary."
class Unauthorized(RequestError): "There is no valid key."
class Forbidden(RequestError): "The key may not do this."
class NotFound(RequestError): "There is nothing at this path."
class ModelNotFound(RequestError): "No such model or version is served."
class JobNotFound(RequestError): "There is no such job."
class JobsOff(RequestError): "The server takes no jobs."
class MethodNotAllowed(RequestError): "The path does not answer this method."
class RequestTimeout(RequestError): "The request arrived too slowly."
class LoadFailed(RequestError): "The change of what is served could not be made."
class BodyTooLarge(RequestError): "The body is too large."
class PartTooLarge(RequestError): "A part of the form is too large."
class ImageTooLarge(RequestError): "The image has too many pixels."
class AudioTooLong(RequestError): "The recording is too long."
class TextTooLong(RequestError): "The text is too long."
class UnsupportedMediaType(RequestError): "The media type is not supported."
class NoModality(RequestError): "There is nothing to predict from."
class InvalidImage(RequestError): "The image cannot be decoded."
class InvalidAudio(RequestError): "The recording cannot be decoded."
class InvalidText(RequestError): "The text cannot be read."
class InvalidParameter(RequestError): "A parameter is wrong."
class RateLimited(RequestError): "The key is used too often."
class HeadersTooLarge(RequestError): "The request has too many or too large headers."
class Internal(ServiceError): "The server failed."
class ModelNonfinite(ServiceError): "The model gave no number for this row."
class Overloaded(ServiceError): "Too much is waiting."
class JobsUnavailable(ServiceError): "Jobs cannot be kept at present."
class Draining(ServiceError): "The server is stopping."
class NotReady(ServiceError): "The server is not ready."
class DeadlineExceeded(ServiceError): "The server says that the time to answer is over."
# fmt: on

ERRORS: Final[Mapping[str, type[TrichordError]]] = {
    re.sub(r"\B(?=[A-Z])", "_", kind.__name__).lower(): kind
    for base in (RequestError, ServiceError)
    for kind in base.__subclasses__()
}
for _code, _kind in ERRORS.items():
    _kind.code = _code


# --- results ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClassProbability:
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one modality says on its own. `labels` only of a multilabel model."""

    label: str
    probability: float
    labels: tuple[ClassProbability, ...] | None = None


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """Labels, best first, that hold the right one in `level` of all cases."""

    level: float
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubsetAnswer:
    """What the model answers from some modalities alone; `log_probability` is that of the explained label."""

    label: str
    probability: float
    log_probability: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each used modality contributes, in nats: `base` and the contributions add up to log(probability).

    `base` is the log of the label's share before anything is seen; `prior` says whether the model told it
    ("calibration") or every label counts alike ("even"). `subsets` by names such as "image+text".
    """

    label: str
    base: float
    prior: str
    contributions: Mapping[str, float]
    subsets: Mapping[str, SubsetAnswer]


@dataclass(frozen=True, slots=True)
class InputWarning:
    """Something about an accepted input that its sender should know."""

    part: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds that the server spent, as in its Server-Timing header."""

    decode_ms: float
    queue_ms: float
    run_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an answer comes from. `retries` is how often this client had to ask again for it."""

    model: str
    version: int
    digest: str
    request_id: str
    used: tuple[str, ...]
    missing: tuple[str, ...]
    warnings: tuple[InputWarning, ...]
    timings: Timings
    batch_size: int
    retries: int


@dataclass(frozen=True, slots=True)
class Prediction(Provenance):
    """One fused prediction.

    `probability` is calibrated for the modalities `used`. `labels` (of a multilabel model) are those that
    reach their thresholds; `prediction_set` is None of a model without conformal sets. `explanation` is None
    unless it was asked for.
    """

    label: str
    probability: float
    top: tuple[ClassProbability, ...]
    by_modality: Mapping[str, Opinion]
    labels: tuple[ClassProbability, ...] | None = None
    prediction_set: PredictionSet | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Embedding(Provenance):
    """One row as vectors of float32; `numpy.asarray(embedding.vector)` copies nothing."""

    vector: array[float]
    by_modality: Mapping[str, array[float]]


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What became of one of many rows: a prediction or an error, never both.

    `digest` is of the model that was asked; None for a row of a stream that no model was asked for.
    """

    index: int
    id: str | None = None
    prediction: Prediction | None = None
    error: TrichordError | None = None
    digest: str | None = None

    def result(self) -> Prediction:
        """The prediction. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        assert self.prediction is not None, "a row has one of the two"
        return self.prediction


@dataclass(frozen=True, slots=True)
class Model:
    """A live model. `limits` says by modality what one input may hold."""

    name: str
    version: int
    digest: str
    task: str
    labels: tuple[str, ...]
    limits: Mapping[str, Mapping[str, Any]]
    fusion: str
    device: str
    created: str
    thresholds: tuple[float, ...] | None = None
    prediction_set_level: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    status: str


@dataclass(frozen=True, slots=True)
class Job:
    """Rows that the server answers on its own time. `expires_at` is when it is deleted, once it has ended.

    `state` is queued, running, completed, failed or cancelled; `reason` says why one failed as a whole. Of
    `total` rows, `scored` are among its results and `failed` among its errors. Times are RFC 3339's.
    """

    id: str
    state: str
    model: str
    version: int
    digest: str
    top_k: int
    total: int
    scored: int
    failed: int
    created_at: str
    name: str | None = None
    manifest: str | None = None
    reason: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    expires_at: str | None = None

    @property
    def is_over(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass(frozen=True, slots=True)
class Jobs:
    """Some jobs, newest first. `next` asks for those before them; None if there are none."""

    jobs: tuple[Job, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row of a job that has no answer: what failed, and the `row` as it came, to be sent again."""

    id: str
    position: int
    stage: str
    code: str
    reason: str
    attempts: int
    row: Any


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a client did so far: calls, retries, and retries that its budget refused.

    A group of a stream's rows counts as a call, a probe does not.
    """

    calls: int = 0
    retries: int = 0
    refused_retries: int = 0


# --- inputs -----------------------------------------------------------------------------------


class Picture(Protocol):
    """A picture of Pillow's. It is sent as PNG."""

    @property
    def mode(self) -> str: ...
    def save(self, fp: Any, format: str | None = None) -> None: ...  # noqa: A002 - Pillow's own name


class Array(Protocol):
    """An array of numpy's, or anything else with a buffer and a shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def tobytes(self) -> bytes: ...


File = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
ImageInput = File | Picture | Array
AudioInput = File | tuple[Any, int]
Priority = Literal["interactive", "batch"]
Version = int | Literal["stable", "canary"]


@dataclass(frozen=True, slots=True)
class Row:
    """One of many rows: at least one of the three. Its `id` comes back with its answer."""

    image: ImageInput | None = None
    text: str | None = None
    audio: AudioInput | None = None
    id: str | None = None


_CHUNK_BYTES: Final = 256 * 1024
_PNG_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_NOT_SAMPLES: Final = "Samples are int16, float32 or float64, [samples] or [samples, channels], with a rate."
_WAV_SAMPLES: Final = {"h": (1, 16), "f": (3, 32), "d": (3, 64)}  # format code: WAV's tag and bits


@dataclass(frozen=True, slots=True)
class _InFile:
    """Bytes that stay in their file until they are sent, and are found again there for a retry."""

    file: Path | IO[bytes]
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    def pieces(self) -> Iterator[bytes]:
        """Raises InputUnreadable."""
        left = self.size
        with _reading(self.file), contextlib.ExitStack() as stack:
            file = stack.enter_context(self.file.open("rb")) if isinstance(self.file, Path) else self.file
            file.seek(self.start)
            while left:
                piece = file.read(min(left, _CHUNK_BYTES))
                if not piece:
                    raise InputUnreadable(f"{_name(self.file)} became shorter while it was sent.")
                left -= len(piece)
                yield piece


_Content = bytes | _InFile


@contextlib.contextmanager
def _reading(file: Path | IO[bytes]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputUnreadable(f"{_name(file)} cannot be read: {error.strerror or error}.") from error


def _name(file: Path | IO[bytes]) -> str:
    return str(file) if isinstance(file, Path) else str(getattr(file, "name", "The open file"))


def _image(value: Any) -> _Content:
    if hasattr(value, "save") and hasattr(value, "mode"):
        return _png_of_picture(value)
    if hasattr(value, "shape") and not isinstance(value, memoryview):
        return _png_of_array(value)
    return _file(
        value, "An image is a path, bytes, a file open in mode 'rb', a Pillow image or a uint8 array."
    )


def _audio(value: Any) -> _Content:
    if isinstance(value, tuple):
        samples, rate_hz = value if len(value) == 2 else (None, None)
        return _wav(samples, rate_hz)
    return _file(value, "A recording is a path, bytes, a file open in mode 'rb', or (samples, rate_hz).")


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"A text is a str, not {type(value).__name__}.")
    return value.encode(errors="surrogatepass")  # the server refuses it as it refuses any other bad text


def _id(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"An id is a str, not {type(value).__name__}.")
    return value


def _file(value: Any, otherwise: str) -> _Content:
    match value:
        case bytes():
            return value
        case bytearray() | memoryview():
            return bytes(value)
        case str() | os.PathLike():
            return _on_disk(Path(value))
    if not hasattr(value, "read") or isinstance(value, io.TextIOBase):
        raise TypeError(f"{otherwise} This is {type(value).__name__}.")
    return _from_here_on(value)


def _on_disk(path: Path) -> _Content:
    with _reading(path):
        return _InFile(path, start=0, size=path.stat().st_size) if path.is_file() else path.read_bytes()


def _from_here_on(file: IO[bytes]) -> _Content:
    """From a file's position to its end; what cannot be read twice is read now, for a retry."""
    with _reading(file):
        if not file.seekable():
            return file.read()
        start = file.tell()
        end = file.seek(0, io.SEEK_END)
        file.seek(start)
    return _InFile(file, start=start, size=end - start)


def _png_of_picture(picture: Any) -> bytes:
    """With its EXIF data, so that a photo is turned upright as its file would be."""
    body = io.BytesIO()
    drawn = picture if picture.mode in _PNG_MODES else picture.convert("RGB")
    exif = picture.getexif() if hasattr(picture, "getexif") else None
    drawn.save(body, format="PNG", **({"exif": exif} if exif else {}))
    return body.getvalue()


def _png_of_array(pixels: Any) -> bytes:
    """uint8 [height, width, 3] as PNG, by RFC 2083: rows unfiltered, compressed as fast as it goes."""
    view = memoryview(pixels)
    height, width, depth = view.shape if view.shape is not None and view.ndim == 3 else (0, 0, 0)
    if view.format != "B" or depth != 3 or not view.nbytes:
        raise TypeError(f"An image array is uint8 [height, width, 3], not {view.format} {view.shape}.")
    flat, step = view.tobytes(), 3 * width
    rows = b"".join(b"\0" + flat[start : start + step] for start in range(0, len(flat), step))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows, 1),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


def _wav(samples: Any, rate_hz: Any) -> bytes:
    """int16, float32 or float64, [samples] or [samples, channels], as a WAV file."""
    try:
        view, rate_hz = memoryview(samples), operator.index(rate_hz)
        tag, bits = _WAV_SAMPLES[view.format]
    except (TypeError, KeyError):
        raise TypeError(_NOT_SAMPLES) from None
    if view.ndim not in (1, 2) or rate_hz < 1:
        raise TypeError(_NOT_SAMPLES)
    channels = view.shape[1] if view.shape is not None and view.ndim == 2 else 1
    frame = bits // 8 * channels
    data = _little_endian(array(view.format, view.tobytes())).tobytes()
    head = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * frame, frame, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(chunks) + len(data)) + chunks + data


def _little_endian(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


# --- bodies -----------------------------------------------------------------------------------

_JSON_ROW_BYTES: Final = 8 * 1024  # in larger rows base64 costs more than the headers of a form's parts

_Value = str | int  # of a field; True is said as "true" where there is no JSON


@dataclass(frozen=True, slots=True)
class _Body:
    """What a request carries: bytes, or pieces some of which are still in files."""

    media_type: str
    contents: tuple[_Content, ...]

    @property
    def size(self) -> int:
        return sum(len(content) for content in self.contents)

    @property
    def whole(self) -> bytes | None:
        """The body as one piece, unless some of it is still in a file."""
        there = [content for content in self.contents if isinstance(content, bytes)]
        return b"".join(there) if len(there) == len(self.contents) else None

    def chunks(self) -> Iterator[bytes]:
        """Large pieces as they are, small ones joined. Raises InputUnreadable."""
        held: list[bytes] = []
        held_bytes = 0
        for content in self.contents:
            for piece in [content] if isinstance(content, bytes) else content.pieces():
                held.append(piece)
                held_bytes += len(piece)
                if held_bytes >= _CHUNK_BYTES:
                    yield b"".join(held)
                    held.clear()
                    held_bytes = 0
        if held:
            yield b"".join(held)


def _fields(**said: _Value | None) -> dict[str, _Value]:
    """Those that say something."""
    return {name: value for name, value in said.items() if value is not None and value is not False}


def _texts(fields: Mapping[str, _Value]) -> dict[str, str]:
    return {name: "true" if value is True else str(value) for name, value in fields.items()}


def _form(fields: Mapping[str, _Value], parts: Sequence[tuple[str, _Content]]) -> _Body:
    boundary = secrets.token_hex(16)  # of 128 random bits: no content has them
    contents: list[_Content] = []
    for name, content in [*((name, text.encode()) for name, text in _texts(fields).items()), *parts]:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        contents += [head.encode(), content, b"\r\n"]
    contents.append(f"--{boundary}--\r\n".encode())
    return _Body(f"multipart/form-data; boundary={boundary}", tuple(contents))


def _media(image: Any, text: Any, audio: Any) -> dict[str, _Content]:
    """Raises TypeError for what is no such input, and InputUnreadable."""
    prepared = [("image", image, _image), ("text", text, _text), ("audio", audio, _audio)]
    return {name: prepare(value) for name, value, prepare in prepared if value is not None}


def _is_at_hand(*media: Any) -> bool:
    """Whether to prepare them takes neither a file nor time."""
    return all(one is None or isinstance(one, bytes) for one in media)


def _rows_body(rows: Sequence[Row], fields: Mapping[str, _Value]) -> _Body:
    """JSON if all rows are small and in memory, else a form. An empty row is there, too: as an error."""
    media = [_media(row.image, row.text, row.audio) for row in rows]
    contents = [content for row in media for content in row.values()]
    is_small = sum(map(len, contents)) <= _JSON_ROW_BYTES * len(rows)
    if is_small and all(isinstance(content, bytes) for content in contents):
        said = [_json_row(there, row.id) for there, row in zip(media, rows, strict=True)]
        return _Body("application/json", (json.dumps({**fields, "rows": said}).encode(),))
    parts: list[tuple[str, _Content]] = []
    for index, (row, there) in enumerate(zip(rows, media, strict=True)):
        if row.id is not None or not there:
            there["id"] = _id(row.id or "").encode()
        parts += [(f"rows[{index}].{name}", content) for name, content in there.items()]
    return _form(fields, parts)


def _lines_body(rows: Any) -> _Body:
    """A job's rows: JSONL as it is, in a file or in memory, or rows that become some. Raises TypeError."""
    if isinstance(rows, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(rows, "read"):
        return _Body("application/x-ndjson", (_file(rows, "Rows are a path, bytes or a file of JSONL."),))
    said = (_json_row(_media(row.image, row.text, row.audio), row.id) for row in rows)
    return _Body("application/x-ndjson", tuple(json.dumps(one).encode() + b"\n" for one in said))


def _json_row(media: Mapping[str, _Content], row_id: str | None) -> dict[str, str]:
    """Raises InputUnreadable."""
    said = {} if row_id is None else {"id": _id(row_id)}
    for name, content in media.items():
        body = content if isinstance(content, bytes) else b"".join(content.pieces())
        is_text = name == "text"
        said[name] = body.decode(errors="surrogatepass") if is_text else base64.b64encode(body).decode()
    return said


# --- time and retries -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retries:
    """How often to ask again.

    At most `most` times for a call, and over all calls of a client at most `share` of them and `burst` more.
    Before retry n (from 0) comes a wait of random length up to `base_s` * 2**n, or `cap_s` if that is less.
    """

    most: int = 3
    share: float = 0.1
    burst: float = 10.0
    base_s: float = 0.1
    cap_s: float = 5.0


class _Budget:
    """A bucket of tokens: a call brings `share` of one, a retry takes one. For threads."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._tokens = retries.burst
        self._lock = threading.Lock()
        self.statistics = Statistics()

    def call(self) -> None:
        with self._lock:
            self._tokens = min(self._retries.burst, self._tokens + self._retries.share)
            self._count(calls=1)

    def retry(self) -> bool:
        """Whether there may be one."""
        with self._lock:
            may = self._tokens >= 1
            self._tokens -= may
            self._count(retries=int(may), refused_retries=int(not may))
            return may

    def _count(self, **more: int) -> None:
        was = self.statistics
        self.statistics = replace(was, **{name: getattr(was, name) + count for name, count in more.items()})


@dataclass(frozen=True, slots=True)
class _Deadline:
    """When a call is over. `grace_s` later than the server is told, so that its own word comes first."""

    until_s: float
    clock: Callable[[], float] = time.monotonic
    grace_s: float = 0.0

    @property
    def left_s(self) -> float:
        return min(self.until_s - self.clock(), _LONGEST_S)

    @property
    def header(self) -> str:
        """Whole milliseconds, rounded down, as the server reads them."""
        return str(max(1, int((self.left_s - self.grace_s) * 1000)))

    def check(self) -> None:
        """Raises DeadlinePassed."""
        if self.left_s <= 0:
            raise DeadlinePassed("The time for this call is over.")


class _Tries:
    """How often one call was made, and when it may be made again."""

    def __init__(
        self, retries: Retries, budget: _Budget, deadline: _Deadline, *, chance: Callable[[], float]
    ) -> None:
        self._retries = retries
        self._budget = budget
        self._chance = chance
        self.deadline = deadline
        self.retries = 0

    def wait_s(self, error: TrichordError) -> float:
        """How long to wait before the next try; raises `error` if there is to be none."""
        ceiling_s = min(self._retries.cap_s, self._retries.base_s * 2.0**self.retries)
        wait_s = (error.retry_after_s or 0.0) + self._chance() * ceiling_s
        if not _may_pass(error) or self.retries >= self._retries.most or wait_s >= self.deadline.left_s:
            raise error
        if not self._budget.retry():
            raise error
        self.retries += 1
        return wait_s


def _may_pass(error: TrichordError) -> bool:
    return isinstance(error, ConnectionFailed) or error.status in (408, 429, 502, 503)


class _Timeouts(dict[str, float]):
    """What is left of the time at each moment when the transport asks; connecting has a bound of its own."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline
        super().__init__({name: self.get(name) for name in ("connect", "read", "write", "pool")})

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - a dict's
        left_s = max(self._deadline.left_s, 0.001)
        return min(left_s, _CONNECT_S) if name == "connect" else left_s


_CONNECT_S: Final = 5.0  # a host that does not answer by then is down; there may be another behind the name
_IDLE_S: Final = 4.0  # a server closes connections after 5: never to send on one that is being closed
_POLL_S: Final = 0.1  # between two looks at a server that starts
_LONG_S: Final = 3600.0  # for what has as many bytes as the caller wants
_LONGEST_S: Final = (
    999_999.0  # eleven days, for whoever waits forever: neither sockets nor headers know infinity
)
_PAGE_ROWS: Final = 1024  # of a job's results, in memory at once


# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer before its body."""

    status: int
    headers: Mapping[str, str]
    request_id: str
    retries: int = 0


def _refused(reply: _Reply, body: bytes) -> TrichordError:
    """The error that an answer tells of. One without a catalogued code is known by its status alone."""
    if not 400 <= reply.status < 600:
        said = f"Status {reply.status} is none of this protocol."
        return UnreadableAnswer(said, status=reply.status, request_id=reply.request_id)
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    return _error(
        problem,
        status=reply.status,
        request_id=str(problem.get("request_id", reply.request_id)),
        retry_after_s=_retry_after_s(reply.headers.get("retry-after")),
    )


def _error(
    problem: Mapping[str, Any], *, status: int, request_id: str, retry_after_s: float | None = None
) -> TrichordError:
    code = str(problem.get("code", "unknown"))
    kind = ERRORS.get(code, RequestError if status < 500 else ServiceError)
    title, detail = (str(problem.get(name, "")) for name in ("title", "detail"))
    part = problem.get("part")
    said = " ".join(filter(None, [f"{title}." if title else "", detail]))
    return kind(
        f"{status} {code}: {said or 'The answer says no more.'} (request {request_id})",
        code=code,
        status=status,
        title=title,
        detail=detail,
        part=None if part is None else str(part),
        request_id=request_id,
        retry_after_s=retry_after_s,
    )


def _retry_after_s(said: str | None) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date."""
    if said is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(int(said)))
    try:
        when = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return None
    wait_s: float = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, wait_s)


def _made(kind: type[T], said: Mapping[str, Any], **read: Any) -> T:
    """A result from the entries of an answer that have a place in it, but for those that are `read` already.

    What a newer server adds is left out. Raises TypeError for what is missing.
    """
    names = {one.name for one in fields(kind)} - read.keys()  # type: ignore[arg-type]
    there = {name: value for name, value in said.items() if name in names}
    return kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in there.items()}, **read
    )


def _classes(said: Sequence[Mapping[str, Any]] | None) -> tuple[ClassProbability, ...] | None:
    return None if said is None else tuple(ClassProbability(one["label"], one["probability"]) for one in said)


def _provenance(said: Mapping[str, Any], model: Mapping[str, Any], reply: _Reply) -> dict[str, Any]:
    timings = said["timings_ms"]
    return {
        "model": model["name"],
        "version": model["version"],
        "digest": model["digest"],
        "request_id": reply.request_id,
        "used": tuple(said["modalities"]["used"]),
        "missing": tuple(said["modalities"]["missing"]),
        "warnings": tuple(_made(InputWarning, one) for one in said["warnings"]),
        "timings": Timings(timings["decode"], timings["queue"], timings["run"], timings["total"]),
        "batch_size": said["batch_size"],
        "retries": reply.retries,
    }


def _to_prediction(said: Mapping[str, Any], model: Mapping[str, Any], reply: _Reply) -> Prediction:
    within, explained = said.get("prediction_set"), said.get("explanation")
    return Prediction(
        **_provenance(said, model, reply),
        label=said["label"],
        probability=said["probability"],
        top=_classes(said["top"]) or (),
        by_modality={
            name: Opinion(one["label"], one["probability"], _classes(one.get("labels")))
            for name, one in said["by_modality"].items()
        },
        labels=_classes(said.get("labels")),
        prediction_set=within and PredictionSet(within["level"], tuple(within["labels"])),
        explanation=explained and _explanation(explained),
    )


def _explanation(said: Mapping[str, Any]) -> Explanation:
    subsets = {name: _made(SubsetAnswer, one) for name, one in said["subsets"].items()}
    return _made(Explanation, said, subsets=subsets)


def _prediction(said: Any, reply: _Reply) -> Prediction:
    return _to_prediction(said, said["model"], reply)


def _embedding(said: Any, reply: _Reply) -> Embedding:
    return Embedding(
        **_provenance(said, said["model"], reply),
        vector=_vector(said["embedding"]),
        by_modality={name: _vector(one) for name, one in said["by_modality"].items()},
    )


def _vector(said: str) -> array[float]:
    return _little_endian(array("f", binascii.a2b_base64(said)))


def _row_answer(
    said: Mapping[str, Any], model: Mapping[str, Any], reply: _Reply, *, index: int, row_id: str | None
) -> RowAnswer:
    digest = model.get("digest")
    if said["status"] != 200:
        error = _error(said["error"], status=said["status"], request_id=reply.request_id)
        return RowAnswer(index, row_id, error=error, digest=digest)
    return RowAnswer(index, row_id, prediction=_to_prediction(said, model, reply), digest=digest)


def _batch(rows: Sequence[Row], said: Any, reply: _Reply) -> tuple[RowAnswer, ...]:
    return tuple(
        _row_answer(one, said["model"], reply, index=index, row_id=row.id)
        for index, (row, one) in enumerate(zip(rows, said["rows"], strict=True))
    )


def _models(said: Any, _: _Reply) -> tuple[Model, ...]:
    return tuple(_made(Model, one) for one in said["models"])


def _health(said: Any, _: _Reply) -> Health:
    return _made(Health, said)


def _job(said: Any, _: _Reply) -> Job:
    model, rows = said["model"], said["rows"]
    of_model = {"model": model["name"], "version": model["version"], "digest": model["digest"]}
    counts = {name: rows[name] for name in ("total", "scored", "failed")}
    return _made(Job, said, **of_model, **counts)


def _jobs(said: Any, reply: _Reply) -> Jobs:
    return Jobs(tuple(_job(one, reply) for one in said["jobs"]), said.get("next"))


def _job_answers(lines: Any, reply: _Reply) -> list[RowAnswer]:
    return [
        _row_answer(said, said["model"], reply, index=said["position"], row_id=said["id"]) for said in lines
    ]


def _letters(lines: Any, _: _Reply) -> list[DeadLetter]:
    return [_made(DeadLetter, said) for said in lines]


def _nothing(_said: Any, _reply: _Reply) -> None:
    return None


# --- requests ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ask(Generic[T]):
    """A request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[Any, _Reply], T]
    deadline_s: float
    body: _Body | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    priority: str | None = None
    is_retried: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    is_lines: bool = False  # the answer is a line of JSON for each of many
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def sent(self, deadline: _Deadline) -> dict[str, Any]:
        """What httpx is told, but for the content."""
        told = {"X-Request-Id": self.request_id, "X-Request-Deadline-Ms": deadline.header}
        headers = {**self.headers, **told}
        if self.priority is not None:
            headers["X-Request-Priority"] = self.priority
        if self.body is not None:
            headers |= {"Content-Type": self.body.media_type, "Content-Length": str(self.body.size)}
        return {
            "method": self.method,
            "url": self.path,
            "params": self.query,
            "headers": headers,
            "extensions": {"timeout": _Timeouts(deadline)},
        }

    def result(self, reply: _Reply, body: bytes) -> T:
        """Raises the error that the answer tells of, or UnreadableAnswer."""
        if not 200 <= reply.status < 300:
            raise _refused(reply, body)
        with _reading_answer(reply):
            if self.is_lines:
                return self.read([json.loads(line) for line in body.splitlines()], reply)
            return self.read(None if reply.status == 204 else json.loads(body), reply)


@contextlib.contextmanager
def _reading_answer(reply: _Reply) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableAnswer(
            "The answer is not what a Trichord server says.", status=reply.status, request_id=reply.request_id
        ) from error


@contextlib.contextmanager
def _connected(request_id: str, deadline: _Deadline) -> Iterator[None]:
    """What goes wrong on the way, in this file's own errors."""
    late = f"The time for this call is over (request {request_id})."
    try:
        yield
    except httpx.RequestError as error:
        is_connecting = isinstance(error, httpx.ConnectTimeout) and deadline.left_s > 0
        is_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        if isinstance(error, httpx.TimeoutException) and not is_connecting:
            raise DeadlinePassed(late, request_id=request_id, is_sent=is_sent) from error
        said = f"No answer: {str(error) or type(error).__name__} (request {request_id})"
        raise ConnectionFailed(said, request_id=request_id, is_sent=is_sent) from error
    except DeadlinePassed:
        raise DeadlinePassed(late, request_id=request_id) from None


# --- streams ----------------------------------------------------------------------------------

_GROUP_ROWS: Final = 32
_GROUP_BYTES: Final = 256 * 1024
_ANSWERS_BYTES: Final = 64 * 1024  # what sockets hold while a group is still being sent


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of a stream, ready to be sent."""

    index: int
    id: str | None
    body: bytes


def _line(index: int, row: Row) -> _Line | RowAnswer:
    """A row that cannot be read has its answer already. Raises TypeError."""
    try:
        said = _json_row(_media(row.image, row.text, row.audio), row.id)
    except InputUnreadable as error:
        return RowAnswer(index, row.id, error=error)
    return _Line(index, row.id, json.dumps(said).encode() + b"\n")


class _Gathered:
    """Rows that wait to be sent together.

    HTTP libraries read no answer before a request is sent to its end, and a server reads no further than its
    answers are read. So a stream is sent as groups that are small enough for both to be on the way, several
    at a time. Whatever waits when a connection is free becomes the next group.
    """

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._bytes = 0
        self._most_rows = _GROUP_ROWS

    def __bool__(self) -> bool:
        return bool(self._lines)

    @property
    def is_full(self) -> bool:
        return len(self._lines) >= self._most_rows or self._bytes >= _GROUP_BYTES

    def add(self, line: _Line) -> None:
        self._lines.append(line)
        self._bytes += len(line.body)

    def take(self) -> tuple[_Line, ...]:
        """The next group. The first ones have one row: how long answers are is known before larger ones."""
        taken, self._lines = self._lines[: self._most_rows], self._lines[self._most_rows :]
        self._bytes = sum(len(line.body) for line in self._lines)
        return tuple(taken)

    def heed(self, answer_bytes: int) -> None:
        """The longer the answers, the fewer rows at a time."""
        self._most_rows = min(self._most_rows, max(1, _ANSWERS_BYTES // answer_bytes))


class _Group:
    """Rows sent together, until each has its answer; those that have none yet are sent again."""

    def __init__(
        self, lines: tuple[_Line, ...], query: Mapping[str, str], tries: _Tries, heed: Callable[[int], None]
    ) -> None:
        self._waiting = dict(enumerate(lines))
        self._sent: list[int] = []
        self._query = query
        self._heed = heed
        self._passing: TrichordError | None = None
        self._rest = b""
        self.tries = tries

    @property
    def is_answered(self) -> bool:
        return not self._waiting

    def ask(self) -> _Ask[None]:
        """For what is not answered yet."""
        self._sent, self._rest, self._passing = list(self._waiting), b"", None
        body = _Body("application/x-ndjson", tuple(self._waiting[place].body for place in self._sent))
        path, left_s = "/v1/predict/stream", self.tries.deadline.left_s
        return _Ask("POST", path, lambda *_: None, left_s, body, self._query)

    def answers(self, chunk: bytes, reply: _Reply) -> list[RowAnswer]:
        """Those that this chunk completes. Raises UnreadableAnswer."""
        *ended, self._rest = (self._rest + chunk).split(b"\n")
        found = []
        for line in filter(None, ended):
            self._heed(len(line))
            with _reading_answer(reply):
                answer = self._answer(json.loads(line), reply)
            if answer is not None:
                found.append(answer)
        return found

    def _answer(self, said: Any, reply: _Reply) -> RowAnswer | None:
        place = self._sent[said["index"]]
        line = self._waiting[place]
        answer = _row_answer(said, said.get("model") or {}, reply, index=line.index, row_id=line.id)
        if answer.error is not None and _may_pass(answer.error):
            self._passing = answer.error
            return None
        del self._waiting[place]
        return answer

    def check(self, request_id: str) -> None:
        """When the answer has ended. Raises the reason why rows are left."""
        if self._waiting:
            message = f"The stream ended before its rows did (request {request_id})."
            raise self._passing or ConnectionFailed(message, request_id=request_id)

    def give_up(self, error: TrichordError) -> list[RowAnswer]:
        """The rows that are left fail alone if time or the server's load is the reason. Else raises it."""
        if error is not self._passing and not isinstance(error, DeadlinePassed):
            raise error
        left = [RowAnswer(line.index, line.id, error=error) for line in self._waiting.values()]
        self._waiting.clear()
        return left


class _Said:
    """What the threads of a stream tell its reader: answers, and that a group is done."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[RowAnswer | Future[None]] = queue.SimpleQueue()
        self.is_closed = False

    def put(self, *said: RowAnswer | Future[None]) -> None:
        for one in said:
            self._queue.put(one)

    def take(self, *, must_wait: bool) -> Iterator[RowAnswer | Future[None]]:
        """What is there now; at least one, if told to wait for it."""
        if must_wait:
            yield self._queue.get()
        while not self._queue.empty():
            yield self._queue.get()


class _Flow:
    """The same for the tasks of an asynchronous stream, of which one brings the rows."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[_Line | RowAnswer | asyncio.Task[None]] = asyncio.Queue()
        self._wanted = asyncio.Event()
        self.is_closed = False

    def put(self, *said: _Line | RowAnswer | asyncio.Task[None]) -> None:
        for one in said:
            self._queue.put_nowait(one)

    def want_row(self) -> None:
        self._wanted.set()

    async def take(self) -> _Line | RowAnswer | asyncio.Task[None]:
        return await self._queue.get()

    async def feed(self, rows: Iterable[Row] | AsyncIterable[Row]) -> None:
        """Read each row when it is wanted."""
        index = 0
        source = aiter(rows if isinstance(rows, AsyncIterable) else _each(rows))
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                row = await anext(source)
            except StopAsyncIteration:
                return
            is_at_hand = _is_at_hand(row.image, row.audio)
            self.put(_line(index, row) if is_at_hand else await asyncio.to_thread(_line, index, row))
            index += 1


async def _each(several: Iterable[T]) -> AsyncGenerator[T, None]:
    for one in several:
        yield one


# --- the way to the server --------------------------------------------------------------------

_Opened = tuple[httpx.Response, AsyncIterator[bytes]]


class _Way(Protocol):
    """What differs between the two clients: how to send, to wait, and to do what takes long."""

    def open(self, ask: _Ask[Any], deadline: _Deadline) -> contextlib.AbstractAsyncContextManager[_Opened]:
        """An answer and the pieces of its body. Raises DeadlinePassed, InputUnreadable or httpx's errors."""
        ...

    async def sleep(self, seconds: float) -> None: ...
    async def aside(self, function: Callable[[], T]) -> T: ...
    async def close(self) -> None: ...


class _Waiting:
    """For asyncio. Files are read in threads."""

    def __init__(self, **settings: Any) -> None:
        self._http = httpx.AsyncClient(**settings)

    @contextlib.asynccontextmanager
    async def open(self, ask: _Ask[Any], deadline: _Deadline) -> AsyncIterator[_Opened]:
        try:
            async with (
                asyncio.timeout(deadline.left_s),
                self._http.stream(**ask.sent(deadline), content=self._content(ask.body)) as response,
            ):
                yield response, response.aiter_bytes()
        except TimeoutError as error:
            raise DeadlinePassed("The time for this call is over.") from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aside(self, function: Callable[[], T]) -> T:
        return await asyncio.to_thread(function)

    async def close(self) -> None:
        await self._http.aclose()

    def _content(self, body: _Body | None) -> bytes | AsyncIterator[bytes] | None:
        """In one piece if it can be: each piece goes through all layers to the socket on its own."""
        if body is None:
            return None
        whole = body.whole
        return self._read(body.chunks()) if whole is None else whole

    async def _read(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk


class _Blocking:
    """For threads: nothing here ever waits for an event loop, see _finished."""

    def __init__(self, **settings: Any) -> None:
        self._http = httpx.Client(**settings)

    @contextlib.asynccontextmanager
    async def open(self, ask: _Ask[Any], deadline: _Deadline) -> AsyncIterator[_Opened]:
        content = self._in_time(ask.body.chunks(), deadline) if ask.body else None
        with self._http.stream(**ask.sent(deadline), content=content) as response:
            yield response, _each(self._in_time(response.iter_bytes(), deadline))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop to block

    async def aside(self, function: Callable[[], T]) -> T:
        return function()

    async def close(self) -> None:
        self._http.close()

    def _in_time(self, chunks: Iterable[bytes], deadline: _Deadline) -> Iterator[bytes]:
        """Raises DeadlinePassed between two of them."""
        for chunk in chunks:
            deadline.check()
            yield chunk


# --- clients ----------------------------------------------------------------------------------


class AsyncClient:
    """Asks one server, in one event loop. Files are read in threads.

    `url` may have a path, if a proxy serves under one. `api_key` goes out as a bearer token. `deadline_s` is
    for calls that give none; `grace_s` is how much longer than the server is told the client itself waits for
    what the server has to say. `verify` is False to trust anybody, or a context with your own authorities.

    Every method but health and ready asks again as `retries` allows. All raise TrichordError; those that take
    inputs raise TypeError for one of a kind that is not listed there.

        async with AsyncClient("https://models.example.org", api_key="...") as client:
            one, other = await asyncio.gather(client.predict(text="one"), client.predict(text="two"))
    """

    _way_kind: ClassVar[Callable[..., _Way]] = _Waiting

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        deadline_s: float = 30.0,
        retries: Retries = Retries(),
        verify: ssl.SSLContext | bool = True,
        connections: int = 100,
        grace_s: float = 0.0,
    ) -> None:
        if not (url.startswith(("http://", "https://")) and _has_host(url)):
            raise ValueError("The URL of a server begins with http:// or https:// and names its host.")
        _check_header(api_key)
        self._deadline_s = deadline_s
        self._grace_s = grace_s
        self._retries = retries
        self._budget = _Budget(retries)
        self._way = self._way_kind(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            verify=verify if url.startswith("https://") else False,  # 40 ms to read all authorities
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_S
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._way.close()

    @property
    def statistics(self) -> Statistics:
        """Calls and retries so far."""
        return self._budget.statistics

    async def predict(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: Version | None = None,
        top_k: int | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Prediction:
        """Predict for one row: any of an image, a text and a recording.

        An image is a path, bytes, an open file, a Pillow image or uint8 [height, width, 3]; a recording is a
        path, bytes, an open file or (samples, rate_hz) with int16, float32 or float64 [samples] or
        [samples, channels]. Files are sent from where they stand and not read into memory.

            client.predict(image="cat.jpg", audio=(samples, 16_000), top_k=3).probability
        """
        fields = _fields(model=model, version=version, top_k=top_k, cache=cache)
        media = (image, text, audio)
        return await self._row("/v1/predict", _prediction, media, fields, priority, deadline_s)

    async def explain(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: Version | None = None,
        top_k: int | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Prediction:
        """Predict, and say what each modality contributes and what each subset of them would answer.

        client.explain(image="cat.jpg", text="a cat").explanation.contributions
        """
        fields = _fields(model=model, version=version, top_k=top_k, cache=cache, explain=True)
        media = (image, text, audio)
        return await self._row("/v1/predict", _prediction, media, fields, priority, deadline_s)

    async def embed(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: Version | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Embedding:
        """Turn one row into vectors; inputs as for `predict`.

        numpy.asarray(client.embed(text="a cat").vector)
        """
        fields = _fields(model=model, version=version, cache=cache, encoding="base64")
        return await self._row("/v1/embed", _embedding, (image, text, audio), fields, priority, deadline_s)

    async def predict_batch(
        self,
        rows: Iterable[Row],
        *,
        model: str | None = None,
        version: Version | None = None,
        top_k: int | None = None,
        cache: bool = False,
        explain: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> tuple[RowAnswer, ...]:
        """Predict for up to 1,024 rows of up to 32 MiB in one request; answers in the order of the rows.

        A bad row harms no other. All rows have one deadline, and one model answers them.

            [one.result().label for one in client.predict_batch([Row(text="seven"), Row(image="7.png")])]
        """
        fields = _fields(model=model, version=version, top_k=top_k, cache=cache, explain=explain)
        several = tuple(rows)
        body = await self._way.aside(functools.partial(_rows_body, several, fields))
        read = functools.partial(_batch, several)
        time_s = self._time_s(deadline_s)
        return await self._call(_Ask("POST", "/v1/predict/batch", read, time_s, body, priority=priority))

    async def stream(
        self,
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        model: str | None = None,
        version: Version | None = None,
        top_k: int | None = None,
        cache: bool = False,
        explain: bool = False,
        deadline_s: float | None = None,
        connections: int = 4,
    ) -> AsyncGenerator[RowAnswer, None]:
        """Predict for any number of rows: answers as they are done, so not always in order.

        Rows are taken from `rows` only as far ahead of the answers that were taken as `connections` groups of
        at most 32 rows hold. Each row has `deadline_s` from when it is sent. A row that fails, for want of
        time or of room in the server, too, comes back with its error; an error that concerns all rows, or a
        server that is gone, is raised. A row is never answered twice. `rows` may be asynchronous. To leave
        early, close it: `async with contextlib.aclosing(client.stream(rows)) as answers`.

            async for answer in client.stream(Row(image=path, id=path.name) for path in folder.glob("*.png")):
                print(answer.id, answer.result().label)
        """
        query = _texts(_fields(model=model, version=version, top_k=top_k, cache=cache, explain=explain))
        time_s = self._time_s(deadline_s)
        gathered, flow = _Gathered(), _Flow()
        feeding = asyncio.create_task(flow.feed(rows))
        running = {feeding}
        feeding.add_done_callback(flow.put)
        try:
            while running or gathered:
                if gathered and len(running - {feeding}) < connections:
                    group = self._send_group(gathered.take(), query, time_s, gathered.heed, flow)
                    task = asyncio.create_task(group)
                    task.add_done_callback(flow.put)
                    running.add(task)
                    continue
                if not gathered.is_full:
                    flow.want_row()
                one = await flow.take()
                if isinstance(one, asyncio.Task):
                    running.discard(one)
                    one.result()
                elif isinstance(one, _Line):
                    gathered.add(one)
                else:
                    yield one
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def models(self) -> tuple[Model, ...]:
        """The models that are served, with what their inputs may hold.

        {model.name: model.labels for model in client.models()}
        """
        return await self._call(_Ask("GET", "/v1/models", _models, self._deadline_s))

    async def create_job(
        self,
        rows: File | Iterable[Row] | None = None,
        *,
        manifest: str | None = None,
        model: str | None = None,
        version: Version | None = None,
        top_k: int | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        deadline_s: float = _LONG_S,
    ) -> Job:
        """Hand rows over, to be answered on the server's own time: JSONL, or rows, or a manifest of its own.

        JSONL is a path, bytes or an open file, and sent from where it stands; rows are turned into it in
        memory. A job is made once, however often it is asked for again on the way; with an
        `idempotency_key` of yours, also when you ask again.

            client.create_job([Row(text="seven", id="a"), Row(image="7.png", id="b")], name="monday").id
        """
        if (rows is None) == (manifest is None):
            raise TypeError("A job is of rows or of a manifest.")
        _check_header(idempotency_key)
        fields = _fields(model=model, version=version, top_k=top_k, name=name)
        query: dict[str, str] = {}
        if manifest is not None:
            body = _Body("application/json", (json.dumps({**fields, "manifest": manifest}).encode(),))
        else:
            body = await self._way.aside(functools.partial(_lines_body, rows))
            query = _texts(fields)
        key = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._call(_Ask("POST", "/v1/jobs", _job, deadline_s, body, query, headers=key))

    async def job(self, job_id: str) -> Job:
        """How far a job is.

        client.job("job_17adff9f40cbb3ea2e4c6075").state
        """
        return await self._call(_Ask("GET", _job_path(job_id), _job, self._deadline_s))

    async def jobs(self, *, limit: int = 20, before: str | None = None) -> Jobs:
        """Your jobs, newest first; those before the one that `next` of an earlier answer named.

        [job.id for job in client.jobs().jobs]
        """
        query = _texts(_fields(limit=limit, before=before))
        return await self._call(_Ask("GET", "/v1/jobs", _jobs, self._deadline_s, query=query))

    async def wait_job(self, job_id: str, timeout_s: float, *, every_s: float = 1.0) -> Job:
        """The job when it is over, however it ended. Raises DeadlinePassed after `timeout_s`.

        client.wait_job(job.id, 3600).scored
        """
        deadline = _Deadline(time.monotonic() + timeout_s)
        while not (job := await self.job(job_id)).is_over:
            if deadline.left_s <= every_s:
                raise DeadlinePassed(f"The job is not over: {job.scored + job.failed} of {job.total} rows.")
            await self._way.sleep(every_s)
        return job

    async def job_results(self, job_id: str) -> AsyncGenerator[RowAnswer, None]:
        """What is answered of a job so far, in the order of its rows; `index` is a row's position.

        for answer in client.job_results(job.id):
            print(answer.id, answer.result().label)
        """
        after = -1
        while answers := await self._page(job_id, "results", _job_answers, after=after):
            for answer in answers:
                yield answer
            after = answers[-1].index

    async def job_errors(self, job_id: str) -> AsyncGenerator[DeadLetter, None]:
        """The rows of a job that failed so far, with the reason and the row itself.

        [letter.code for letter in client.job_errors(job.id)]
        """
        after = -1
        while letters := await self._page(job_id, "errors", _letters, after=after):
            for letter in letters:
                yield letter
            after = letters[-1].position

    async def cancel_job(self, job_id: str) -> Job:
        """End a job, and keep what is finished of it.

        client.cancel_job(job.id).state
        """
        return await self._call(_Ask("POST", f"{_job_path(job_id)}/cancel", _job, self._deadline_s))

    async def delete_job(self, job_id: str) -> None:
        """End a job if it has not ended, and delete it with its results. Is not asked again by itself.

        client.delete_job(job.id)
        """
        path = _job_path(job_id)
        await self._call(_Ask("DELETE", path, _nothing, self._deadline_s, is_retried=False))

    async def _page(
        self, job_id: str, what: str, read: Callable[[Any, _Reply], list[T]], *, after: int
    ) -> list[T]:
        query = {"after": str(after), "limit": str(_PAGE_ROWS)}
        path = f"{_job_path(job_id)}/{what}"
        return await self._call(_Ask("GET", path, read, self._deadline_s, query=query, is_lines=True))

    async def health(self) -> Health:
        """Whether the process is alive. Raises NotReady if it says no, ConnectionFailed if it is gone.

        client.health().status
        """
        return await self._probe("/healthz", self._deadline_s)

    async def ready(self) -> bool:
        """Whether the server would answer a prediction now.

        client.ready()
        """
        return await self._unready(self._deadline_s) is None

    async def wait_ready(self, timeout_s: float) -> None:
        """Return when the server is ready. Raises DeadlinePassed after `timeout_s`.

        client.wait_ready(30)
        """
        deadline = _Deadline(time.monotonic() + timeout_s)
        while (error := await self._unready(deadline.left_s)) is not None:
            if deadline.left_s <= _POLL_S:
                message = f"The server is not ready: {error}"
                raise DeadlinePassed(message, request_id=error.request_id) from error
            await self._way.sleep(_POLL_S)

    async def _unready(self, deadline_s: float) -> TrichordError | None:
        """Why the server answers no prediction at present. Raises what will not pass."""
        try:
            await self._probe("/readyz", deadline_s)
        except TrichordError as error:
            if not _may_pass(error) and not isinstance(error, DeadlinePassed):
                raise
            return error
        return None

    async def _probe(self, path: str, deadline_s: float) -> Health:
        return await self._call(_Ask("GET", path, _health, deadline_s, is_retried=False))

    async def _row(
        self,
        path: str,
        read: Callable[[Any, _Reply], T],
        media: tuple[ImageInput | None, str | None, AudioInput | None],
        fields: Mapping[str, _Value],
        priority: Priority | None,
        deadline_s: float | None,
    ) -> T:
        image, _, audio = media
        is_at_hand = _is_at_hand(image, audio)
        parts = _media(*media) if is_at_hand else await self._way.aside(functools.partial(_media, *media))
        body = _form(fields, [*parts.items()])
        return await self._call(_Ask("POST", path, read, self._time_s(deadline_s), body, priority=priority))

    async def _call(self, ask: _Ask[T]) -> T:
        tries = self._tries(ask.deadline_s, is_counted=ask.is_retried)
        while True:
            try:
                async with self._opened(ask, tries) as (reply, chunks):
                    body = b"".join([chunk async for chunk in chunks])
                return ask.result(reply, body)
            except TrichordError as error:
                if not ask.is_retried:
                    raise
                wait_s = tries.wait_s(error)
            await self._way.sleep(wait_s)

    @contextlib.asynccontextmanager
    async def _opened(
        self, ask: _Ask[Any], tries: _Tries
    ) -> AsyncIterator[tuple[_Reply, AsyncIterator[bytes]]]:
        """An answer of which the body is still to be read.

        Raises ConnectionFailed, DeadlinePassed or InputUnreadable.
        """
        with _connected(ask.request_id, tries.deadline):
            tries.deadline.check()
            async with self._way.open(ask, tries.deadline) as (response, chunks):
                request_id = response.headers.get("x-request-id", ask.request_id)
                yield _Reply(response.status_code, response.headers, request_id, tries.retries), chunks

    async def _send_group(
        self,
        lines: tuple[_Line, ...],
        query: Mapping[str, str],
        time_s: float,
        heed: Callable[[int], None],
        said: _Said | _Flow,
    ) -> None:
        """Tell what these rows are answered, asking again while that may help."""
        group = _Group(lines, query, self._tries(time_s), heed)
        while not (group.is_answered or said.is_closed):
            try:
                ask = group.ask()
                async with self._opened(ask, group.tries) as (reply, chunks):
                    if reply.status != 200:
                        raise _refused(reply, b"".join([chunk async for chunk in chunks]))
                    async for chunk in chunks:
                        said.put(*group.answers(chunk, reply))
                        if said.is_closed:
                            return
                group.check(ask.request_id)
            except TrichordError as error:
                try:
                    wait_s = group.tries.wait_s(error)
                except TrichordError:
                    said.put(*group.give_up(error))
                else:
                    await self._way.sleep(wait_s)

    def _tries(self, deadline_s: float, *, is_counted: bool = True) -> _Tries:
        if is_counted:
            self._budget.call()
        deadline = _Deadline(time.monotonic() + deadline_s + self._grace_s, grace_s=self._grace_s)
        return _Tries(self._retries, self._budget, deadline, chance=random.random)

    def _time_s(self, deadline_s: float | None) -> float:
        return self._deadline_s if deadline_s is None else deadline_s


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{urllib.parse.quote(job_id, safe='')}"


def _check_header(key: str | None) -> None:
    """Raises ValueError, which does not tell the key."""
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError("A key is printable ASCII.")


def _has_host(url: str) -> bool:
    with contextlib.suppress(httpx.InvalidURL):
        return bool(httpx.URL(url).host)
    return False


class _BlockingClient(AsyncClient):
    """Its coroutines end without ever waiting for an event loop."""

    _way_kind = _Blocking


def _finished(work: Awaitable[T]) -> T:
    """The result of a coroutine that blocks where another would wait."""
    try:
        next(work.__await__())
    except StopIteration as done:
        found: T = done.value
        return found
    raise AssertionError("a coroutine of a blocking client waits for nothing")


def _stepped(several: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """What an asynchronous generator of a blocking client yields."""
    try:
        while True:
            yield _finished(anext(several))
    except StopAsyncIteration:
        return
    finally:
        _finished(several.aclose())


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _finished(method(self._client, *args, **kwargs))

    return call


class Client:
    """What AsyncClient is, for threads: the same arguments, methods, results and errors, without `await`.

    Any number of threads may share one: it holds nothing of a call but its connections.

        with Client("https://models.example.org", api_key="...") as client:
            client.wait_ready(30)
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        deadline_s: float = 30.0,
        retries: Retries = Retries(),
        verify: ssl.SSLContext | bool = True,
        connections: int = 100,
        grace_s: float = 0.0,
    ) -> None:
        self._client = _BlockingClient(
            url,
            api_key=api_key,
            deadline_s=deadline_s,
            retries=retries,
            verify=verify,
            connections=connections,
            grace_s=grace_s,
        )

    close = _blocking(AsyncClient.close)
    predict = _blocking(AsyncClient.predict)
    explain = _blocking(AsyncClient.explain)
    embed = _blocking(AsyncClient.embed)
    predict_batch = _blocking(AsyncClient.predict_batch)
    models = _blocking(AsyncClient.models)
    create_job = _blocking(AsyncClient.create_job)
    job = _blocking(AsyncClient.job)
    jobs = _blocking(AsyncClient.jobs)
    wait_job = _blocking(AsyncClient.wait_job)
    cancel_job = _blocking(AsyncClient.cancel_job)
    delete_job = _blocking(AsyncClient.delete_job)
    health = _blocking(AsyncClient.health)
    ready = _blocking(AsyncClient.ready)
    wait_ready = _blocking(AsyncClient.wait_ready)
    _send_group = _blocking(AsyncClient._send_group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def statistics(self) -> Statistics:
        """Calls and retries so far."""
        return self._client.statistics

    def job_results(self, job_id: str) -> Generator[RowAnswer, None, None]:
        """As AsyncClient.job_results.

        for answer in client.job_results(job.id):
            print(answer.id, answer.result().label)
        """
        return _stepped(self._client.job_results(job_id))

    def job_errors(self, job_id: str) -> Generator[DeadLetter, None, None]:
        """As AsyncClient.job_errors.

        [letter.code for letter in client.job_errors(job.id)]
        """
        return _stepped(self._client.job_errors(job_id))

    def stream(
        self,
        rows: Iterable[Row],
        *,
        model: str | None = None,
        version: Version | None = None,
        top_k: int | None = None,
        cache: bool = False,
        explain: bool = False,
        deadline_s: float | None = None,
        connections: int = 4,
    ) -> Generator[RowAnswer, None, None]:
        """As AsyncClient.stream; rows are read in the caller's thread.

        for answer in client.stream(Row(image=path, id=path.name) for path in folder.glob("*.png")):
            print(answer.id, answer.result().label)
        """
        query = _texts(_fields(model=model, version=version, top_k=top_k, cache=cache, explain=explain))
        time_s = self._client._time_s(deadline_s)
        gathered, said = _Gathered(), _Said()
        lines = (_line(index, row) for index, row in enumerate(rows))
        is_at_end, sending = False, 0
        pool = ThreadPoolExecutor(connections, thread_name_prefix="trichord-stream")
        try:
            while not (is_at_end and not gathered and not sending):
                if gathered and sending < connections:
                    group = (gathered.take(), query, time_s, gathered.heed, said)
                    pool.submit(self._send_group, *group).add_done_callback(said.put)
                    sending += 1
                    continue
                must_wait = is_at_end or gathered.is_full
                for one in said.take(must_wait=must_wait):
                    if isinstance(one, Future):
                        sending -= 1
                        one.result()
                    else:
                        yield one
                line = None if must_wait else next(lines, None)
                if isinstance(line, _Line):
                    gathered.add(line)
                elif line is not None:
                    yield line
                is_at_end = is_at_end or not (must_wait or line)
        finally:
            said.is_closed = True
            pool.shutdown(wait=False, cancel_futures=True)
