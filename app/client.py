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
import io
import json
import operator
import os
import queue
import random
import secrets
import ssl
import struct
import sys
import threading
import time
import uuid
import zlib
from array import array
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Generic, Literal, Protocol, TypeVar

import httpx2 as httpx  # the fork that is maintained; the only line to change for another

T = TypeVar("T")

# --- errors -----------------------------------------------------------------------------------


class TrichordError(Exception):
    """What every error of this client is.

    `code`, `title`, `detail` and `part` are the server's own words; `request_id` finds the request in the
    server's log, also when no answer came; `retry_after_s` is how long the server asked to wait.
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
    ) -> None:
        super().__init__(message)
        self.code = self.code if code is None else code
        self.status = status
        self.title = title
        self.detail = detail
        self.part = part
        self.request_id = request_id
        self.retry_after_s = retry_after_s


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


class BadRequest(RequestError):
    """The request cannot be understood."""

    code = "bad_request"


class BadMultipart(RequestError):
    """The form is malformed."""

    code = "bad_multipart"


class TruncatedBody(RequestError):
    """The form ends before its closing boundary."""

    code = "truncated_body"


class Unauthorized(RequestError):
    """There is no valid key."""

    code = "unauthorized"


class Forbidden(RequestError):
    """The key may not do this."""

    code = "forbidden"


class NotFound(RequestError):
    """There is nothing at this path."""

    code = "not_found"


class ModelNotFound(RequestError):
    """No such model or version is served."""

    code = "model_not_found"


class MethodNotAllowed(RequestError):
    """The path does not answer this method."""

    code = "method_not_allowed"


class RequestTimeout(RequestError):
    """The request arrived too slowly."""

    code = "request_timeout"


class LoadFailed(RequestError):
    """The change of what is served could not be made."""

    code = "load_failed"


class BodyTooLarge(RequestError):
    """The body is too large."""

    code = "body_too_large"


class PartTooLarge(RequestError):
    """A part of the form is too large."""

    code = "part_too_large"


class ImageTooLarge(RequestError):
    """The image has too many pixels."""

    code = "image_too_large"


class AudioTooLong(RequestError):
    """The recording is too long."""

    code = "audio_too_long"


class TextTooLong(RequestError):
    """The text is too long."""

    code = "text_too_long"


class UnsupportedMediaType(RequestError):
    """The media type is not supported."""

    code = "unsupported_media_type"


class NoModality(RequestError):
    """There is nothing to predict from."""

    code = "no_modality"


class InvalidImage(RequestError):
    """The image cannot be decoded."""

    code = "invalid_image"


class InvalidAudio(RequestError):
    """The recording cannot be decoded."""

    code = "invalid_audio"


class InvalidText(RequestError):
    """The text cannot be read."""

    code = "invalid_text"


class InvalidParameter(RequestError):
    """A parameter is wrong."""

    code = "invalid_parameter"


class RateLimited(RequestError):
    """The key is used too often."""

    code = "rate_limited"


class HeadersTooLarge(RequestError):
    """The request has too many or too large headers."""

    code = "headers_too_large"


class Internal(ServiceError):
    """The server failed."""

    code = "internal"


class ModelNonfinite(ServiceError):
    """The model gave no number for this row."""

    code = "model_nonfinite"


class Overloaded(ServiceError):
    """Too much is waiting."""

    code = "overloaded"


class Draining(ServiceError):
    """The server is stopping."""

    code = "draining"


class NotReady(ServiceError):
    """The server is not ready."""

    code = "not_ready"


class DeadlineExceeded(ServiceError):
    """The server says that the time to answer is over."""

    code = "deadline_exceeded"


ERRORS: Final[Mapping[str, type[TrichordError]]] = {
    kind.code: kind for base in (RequestError, ServiceError) for kind in base.__subclasses__()
}


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
    """What became of one of many rows: a prediction or an error, never both."""

    index: int
    id: str | None = None
    prediction: Prediction | None = None
    error: TrichordError | None = None

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


@dataclass(frozen=True, slots=True)
class _Body:
    """What a request carries: bytes, or pieces some of which are still in files."""

    media_type: str
    contents: tuple[_Content, ...]

    @property
    def size(self) -> int:
        return sum(len(content) for content in self.contents)

    @property
    def is_in_memory(self) -> bool:
        return all(isinstance(content, bytes) for content in self.contents)

    def chunks(self) -> Iterator[bytes]:
        """Large pieces as they are, small ones joined. Raises InputUnreadable."""
        held: list[bytes] = []
        for content in self.contents:
            for piece in [content] if isinstance(content, bytes) else content.pieces():
                held.append(piece)
                if sum(map(len, held)) >= _CHUNK_BYTES:
                    yield b"".join(held)
                    held.clear()
        if held:
            yield b"".join(held)


def _form(parts: Sequence[tuple[str, _Content]]) -> _Body:
    boundary = secrets.token_hex(16)  # of 128 random bits: no content has them
    contents: list[_Content] = []
    for name, content in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        contents += [head.encode(), content, b"\r\n"]
    contents.append(f"--{boundary}--\r\n".encode())
    return _Body(f"multipart/form-data; boundary={boundary}", tuple(contents))


def _media(image: Any, text: Any, audio: Any) -> list[tuple[str, _Content]]:
    """Raises TypeError for what is no such input, and InputUnreadable."""
    prepared = [("image", image, _image), ("text", text, _text), ("audio", audio, _audio)]
    return [(name, prepare(value)) for name, value, prepare in prepared if value is not None]


def _is_at_hand(*media: Any) -> bool:
    """Whether to prepare them takes neither a file nor time."""
    return all(one is None or isinstance(one, bytes) for one in media)


async def _media_off_loop(image: Any, text: Any, audio: Any) -> list[tuple[str, _Content]]:
    """The same, in a thread if it takes long."""
    if _is_at_hand(image, audio):
        return _media(image, text, audio)
    return await asyncio.to_thread(_media, image, text, audio)


def _row_parts(rows: Iterable[Row]) -> list[tuple[str, _Content]]:
    """Rows as parts of a form. One that holds nothing still has a place: it is an error of its own."""
    parts: list[tuple[str, _Content]] = []
    for index, row in enumerate(rows):
        media = _media(row.image, row.text, row.audio)
        if row.id is not None or not media:
            media.append(("id", _id(row.id or "").encode()))
        parts += [(f"rows[{index}].{name}", content) for name, content in media]
    return parts


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of a stream, ready to be sent."""

    index: int
    id: str | None
    body: bytes


def _line(index: int, row: Row) -> _Line:
    """Raises TypeError and InputUnreadable."""
    media = dict(_media(row.image, None, row.audio))
    said = {name: base64.b64encode(_whole(content)).decode() for name, content in media.items()}
    if row.text is not None:
        _text(row.text)
        said["text"] = row.text
    if row.id is not None:
        said["id"] = _id(row.id)
    return _Line(index, row.id, json.dumps(said).encode() + b"\n")


def _whole(content: _Content) -> bytes:
    return content if isinstance(content, bytes) else b"".join(content.pieces())


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
        self._statistics = Statistics()

    @property
    def statistics(self) -> Statistics:
        return self._statistics

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

    def _count(self, *, calls: int = 0, retries: int = 0, refused_retries: int = 0) -> None:
        was = self._statistics
        self._statistics = Statistics(
            was.calls + calls, was.retries + retries, was.refused_retries + refused_retries
        )


@dataclass(frozen=True, slots=True)
class _Deadline:
    until_s: float
    clock: Callable[[], float] = time.monotonic

    @property
    def left_s(self) -> float:
        return self.until_s - self.clock()

    @property
    def header(self) -> str:
        """Whole milliseconds, rounded down, as the server reads them."""
        return str(min(max(1, int(self.left_s * 1000)), 999_999_999))

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


# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    request_id: str
    retries: int = 0


def _refused(reply: _Reply) -> TrichordError:
    """The error that an answer tells of. One without a catalogued code is known by its status alone."""
    try:
        problem = json.loads(reply.body)
    except ValueError:
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    if not 400 <= reply.status < 600:
        return UnreadableAnswer(
            f"Status {reply.status} is none of this protocol.",
            status=reply.status,
            request_id=reply.request_id,
        )
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
    try:
        return max(0.0, float(int(said)))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return None
    wait_s: float = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, wait_s)


def _provenance(said: Mapping[str, Any], model: Mapping[str, Any], reply: _Reply) -> dict[str, Any]:
    timings = said["timings_ms"]
    return {
        "model": model["name"],
        "version": model["version"],
        "digest": model["digest"],
        "request_id": reply.request_id,
        "used": tuple(said["modalities"]["used"]),
        "missing": tuple(said["modalities"]["missing"]),
        "warnings": tuple(InputWarning(one["part"], one["code"], one["message"]) for one in said["warnings"]),
        "timings": Timings(timings["decode"], timings["queue"], timings["run"], timings["total"]),
        "batch_size": said["batch_size"],
        "retries": reply.retries,
    }


def _classes(said: Sequence[Mapping[str, Any]] | None) -> tuple[ClassProbability, ...] | None:
    if said is None:
        return None
    return tuple(ClassProbability(one["label"], one["probability"]) for one in said)


def _to_prediction(said: Mapping[str, Any], model: Mapping[str, Any], reply: _Reply) -> Prediction:
    within = said.get("prediction_set")
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
        explanation=_explanation(said.get("explanation")),
    )


def _explanation(said: Mapping[str, Any] | None) -> Explanation | None:
    if said is None:
        return None
    return Explanation(
        label=said["label"],
        base=said["base"],
        prior=said["prior"],
        contributions=said["contributions"],
        subsets={
            name: SubsetAnswer(one["label"], one["probability"], one["log_probability"])
            for name, one in said["subsets"].items()
        },
    )


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
    if said["status"] != 200:
        error = _error(said["error"], status=said["status"], request_id=reply.request_id)
        return RowAnswer(index, row_id, error=error)
    return RowAnswer(index, row_id, prediction=_to_prediction(said, model, reply))


def _models(said: Any, _: _Reply) -> tuple[Model, ...]:
    return tuple(
        Model(
            name=one["name"],
            version=one["version"],
            digest=one["digest"],
            task=one["task"],
            labels=tuple(one["labels"]),
            limits=one["limits"],
            fusion=one["fusion"],
            device=one["device"],
            created=one["created"],
            thresholds=None if one.get("thresholds") is None else tuple(one["thresholds"]),
            prediction_set_level=one.get("prediction_set_level"),
        )
        for one in said["models"]
    )


def _health(said: Any, _: _Reply) -> Health:
    return Health(said["status"])


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
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def headers(self, deadline: _Deadline) -> dict[str, str]:
        headers = {"X-Request-Id": self.request_id, "X-Request-Deadline-Ms": deadline.header}
        if self.priority is not None:
            headers["X-Request-Priority"] = self.priority
        if self.body is not None:
            headers |= {"Content-Type": self.body.media_type, "Content-Length": str(self.body.size)}
        return headers

    def result(self, reply: _Reply) -> T:
        """Raises the error that the answer tells of, or UnreadableAnswer."""
        if reply.status != 200:
            raise _refused(reply)
        with _reading_answer(reply):
            return self.read(json.loads(reply.body), reply)


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
    try:
        yield
    except httpx.RequestError as error:
        is_connecting = isinstance(error, httpx.ConnectTimeout) and deadline.left_s > 0
        if isinstance(error, httpx.TimeoutException) and not is_connecting:
            raise _late(request_id) from error
        reason = str(error) or type(error).__name__
        raise ConnectionFailed(
            f"No answer: {reason} (request {request_id})", request_id=request_id
        ) from error
    except DeadlinePassed:
        raise _late(request_id) from None


def _late(request_id: str) -> DeadlinePassed:
    return DeadlinePassed(f"The time for this call is over (request {request_id}).", request_id=request_id)


def _fields(
    *,
    model: str | None,
    version: int | str | None,
    cache: bool,
    explain: bool = False,
    top_k: int | None = None,
    encoding: str | None = None,
) -> dict[str, str]:
    said = {"model": model, "version": version, "top_k": top_k, "encoding": encoding}
    flags = {"cache": cache, "explain": explain}
    return {name: str(value) for name, value in said.items() if value is not None} | {
        name: "true" for name, is_set in flags.items() if is_set
    }


class _Settings:
    """What both clients are made with, and the requests that they make."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        deadline_s: float,
        retries: Retries,
        verify: ssl.SSLContext | bool,
        connections: int,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("The URL of a server begins with http:// or https://.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("A key is printable ASCII.")
        self.deadline_s = deadline_s
        self.retries = retries
        self.budget = _Budget(retries)
        self.transport: dict[str, Any] = {
            "base_url": url,
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "verify": verify,
            "limits": httpx.Limits(
                max_connections=connections,
                max_keepalive_connections=connections,
                keepalive_expiry=_IDLE_S,
            ),
        }

    def tries(self, deadline_s: float, *, is_retried: bool = True) -> _Tries:
        if is_retried:
            self.budget.call()
        deadline = _Deadline(time.monotonic() + deadline_s)
        return _Tries(self.retries, self.budget, deadline, chance=random.random)

    def time_s(self, deadline_s: float | None) -> float:
        return self.deadline_s if deadline_s is None else deadline_s

    def one_row(
        self,
        path: str,
        read: Callable[[Any, _Reply], T],
        media: list[tuple[str, _Content]],
        fields: Mapping[str, str],
        *,
        priority: Priority | None,
        deadline_s: float | None,
    ) -> _Ask[T]:
        parts = [(name, value.encode()) for name, value in fields.items()] + media
        return _Ask("POST", path, read, self.time_s(deadline_s), body=_form(parts), priority=priority)

    def batch(
        self,
        rows: Sequence[Row],
        fields: Mapping[str, str],
        *,
        priority: Priority | None,
        deadline_s: float | None,
    ) -> _Ask[tuple[RowAnswer, ...]]:
        parts: list[tuple[str, _Content]] = [(name, value.encode()) for name, value in fields.items()]

        def read(said: Any, reply: _Reply) -> tuple[RowAnswer, ...]:
            return tuple(
                _row_answer(one, said["model"], reply, index=index, row_id=rows[index].id)
                for index, one in enumerate(said["rows"])
            )

        body = _form(parts + _row_parts(rows))
        return _Ask("POST", "/v1/predict/batch", read, self.time_s(deadline_s), body=body, priority=priority)

    def models(self) -> _Ask[tuple[Model, ...]]:
        return _Ask("GET", "/v1/models", _models, self.deadline_s)

    def probe(self, path: str, *, deadline_s: float | None = None) -> _Ask[Health]:
        return _Ask("GET", path, _health, self.time_s(deadline_s), is_retried=False)


# --- streams ----------------------------------------------------------------------------------

_GROUP_ROWS: Final = 32
_GROUP_BYTES: Final = 256 * 1024
_ANSWERS_BYTES: Final = 64 * 1024  # what sockets hold while a group is still being sent
_STREAM: Final = "/v1/predict/stream"


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
        return _Ask(
            "POST", _STREAM, lambda *_: None, self.tries.deadline.left_s, body=body, query=self._query
        )

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

    def unfinished(self, request_id: str) -> TrichordError:
        """Why rows are left when the answer has ended."""
        return self._passing or ConnectionFailed(
            f"The stream ended before its rows did (request {request_id}).", request_id=request_id
        )

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
            self.put(_lined(index, row) if is_at_hand else await asyncio.to_thread(_lined, index, row))
            index += 1


async def _each(rows: Iterable[Row]) -> AsyncIterator[Row]:
    for row in rows:
        yield row


def _lined(index: int, row: Row) -> _Line | RowAnswer:
    """A row that cannot be read has its answer already."""
    try:
        return _line(index, row)
    except InputUnreadable as error:
        return RowAnswer(index, row.id, error=error)


# --- clients ----------------------------------------------------------------------------------


class Client:
    """Asks one server, from as many threads as you like: it holds nothing of a call but its connections.

    `url` may have a path, if a proxy serves under one. `api_key` goes out as a bearer token. `deadline_s` is
    for calls that give none. `verify` is False to trust anybody, or a context with your own authorities.

    Every method but health and ready asks again as `retries` allows. All raise TrichordError; `predict`,
    `predict_batch`, `stream` and `embed` raise TypeError for an input of a kind that is not listed there.

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
    ) -> None:
        self._settings = _Settings(
            url,
            api_key=api_key,
            deadline_s=deadline_s,
            retries=retries,
            verify=verify,
            connections=connections,
        )
        self._http = httpx.Client(**self._settings.transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    @property
    def statistics(self) -> Statistics:
        """Calls and retries so far."""
        return self._settings.budget.statistics

    def predict(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
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
        fields = _fields(model=model, version=version, cache=cache, top_k=top_k)
        media = _media(image, text, audio)
        return self._call(
            self._settings.one_row(
                "/v1/predict", _prediction, media, fields, priority=priority, deadline_s=deadline_s
            )
        )

    def explain(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        top_k: int | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Prediction:
        """Predict, and say what each modality contributes and what each subset of them would answer.

        client.explain(image="cat.jpg", text="a cat").explanation.contributions
        """
        fields = _fields(model=model, version=version, cache=cache, explain=True, top_k=top_k)
        media = _media(image, text, audio)
        return self._call(
            self._settings.one_row(
                "/v1/predict", _prediction, media, fields, priority=priority, deadline_s=deadline_s
            )
        )

    def predict_batch(
        self,
        rows: Iterable[Row],
        *,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
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
        fields = _fields(model=model, version=version, cache=cache, explain=explain, top_k=top_k)
        return self._call(self._settings.batch(tuple(rows), fields, priority=priority, deadline_s=deadline_s))

    def stream(
        self,
        rows: Iterable[Row],
        *,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        top_k: int | None = None,
        cache: bool = False,
        explain: bool = False,
        deadline_s: float | None = None,
        connections: int = 4,
    ) -> Generator[RowAnswer, None, None]:
        """Predict for any number of rows: answers as they are done, so not always in order.

        Rows are taken from `rows` in the caller's thread, and only as far ahead of the answers that were
        taken as `connections` groups of at most 32 rows hold. Each row has `deadline_s` from when it is sent.
        A row that fails, for want of time or of room in the server, too, comes back with its error; an error
        that concerns all rows, or a server that is gone, is raised. A row is never answered twice.

            for answer in client.stream(Row(image=path, id=path.name) for path in folder.glob("*.png")):
                print(answer.id, answer.result().label)
        """
        query = _fields(model=model, version=version, cache=cache, explain=explain, top_k=top_k)
        time_s = self._settings.time_s(deadline_s)
        return self._stream(iter(rows), query, time_s, connections)

    def embed(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Embedding:
        """Turn one row into vectors; inputs as for `predict`.

        numpy.asarray(client.embed(text="a cat").vector)
        """
        fields = _fields(model=model, version=version, cache=cache, encoding="base64")
        media = _media(image, text, audio)
        return self._call(
            self._settings.one_row(
                "/v1/embed", _embedding, media, fields, priority=priority, deadline_s=deadline_s
            )
        )

    def models(self) -> tuple[Model, ...]:
        """The models that are served, with what their inputs may hold.

        {model.name: model.labels for model in client.models()}
        """
        return self._call(self._settings.models())

    def health(self) -> Health:
        """Whether the process is alive. Raises NotReady if it says no, ConnectionFailed if it is gone.

        client.health().status
        """
        return self._call(self._settings.probe("/healthz"))

    def ready(self) -> bool:
        """Whether the server would answer a prediction now.

        client.ready()
        """
        try:
            self._call(self._settings.probe("/readyz"))
        except TrichordError as error:
            _heed_unready(error)
            return False
        return True

    def wait_ready(self, timeout_s: float) -> None:
        """Return when the server is ready. Raises DeadlinePassed after `timeout_s`.

        client.wait_ready(30)
        """
        deadline = _Deadline(time.monotonic() + timeout_s)
        while True:
            try:
                self._call(self._settings.probe("/readyz", deadline_s=deadline.left_s))
            except TrichordError as error:
                _heed_unready(error, deadline)
            else:
                return
            time.sleep(_POLL_S)

    def _call(self, ask: _Ask[T]) -> T:
        tries = self._settings.tries(ask.deadline_s, is_retried=ask.is_retried)
        while True:
            try:
                return ask.result(self._exchange(ask, tries))
            except TrichordError as error:
                if not ask.is_retried:
                    raise
                time.sleep(tries.wait_s(error))

    def _exchange(self, ask: _Ask[T], tries: _Tries) -> _Reply:
        """Raises ConnectionFailed, DeadlinePassed or InputUnreadable."""
        with self._opened(ask, tries) as (response, reply):
            return _with_body(reply, b"".join(_in_time(response.iter_bytes(), tries.deadline)))

    @contextlib.contextmanager
    def _opened(self, ask: _Ask[T], tries: _Tries) -> Iterator[tuple[httpx.Response, _Reply]]:
        """An answer of which the body is still to be read."""
        deadline = tries.deadline
        with _connected(ask.request_id, deadline):
            deadline.check()
            content = None if ask.body is None else _in_time(ask.body.chunks(), deadline)
            with self._http.stream(
                ask.method,
                ask.path,
                params=ask.query,
                headers=ask.headers(deadline),
                content=content,
                extensions={"timeout": _Timeouts(deadline)},
            ) as response:
                yield response, _begun(response, ask, tries)

    def _stream(
        self, rows: Iterator[Row], query: Mapping[str, str], time_s: float, connections: int
    ) -> Generator[RowAnswer, None, None]:
        gathered, said = _Gathered(), _Said()
        lined = (_lined(index, row) for index, row in enumerate(rows))
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
                line = None if must_wait else next(lined, None)
                if isinstance(line, _Line):
                    gathered.add(line)
                elif line is not None:
                    yield line
                is_at_end = is_at_end or not (must_wait or line)
        finally:
            said.is_closed = True
            pool.shutdown(wait=False, cancel_futures=True)

    def _send_group(
        self,
        lines: tuple[_Line, ...],
        query: Mapping[str, str],
        time_s: float,
        heed: Callable[[int], None],
        said: _Said,
    ) -> None:
        group = _Group(lines, query, self._settings.tries(time_s), heed)
        while not (group.is_answered or said.is_closed):
            try:
                self._send_rest(group, said)
            except TrichordError as error:
                try:
                    wait_s = group.tries.wait_s(error)
                except TrichordError:
                    said.put(*group.give_up(error))
                else:
                    time.sleep(wait_s)

    def _send_rest(self, group: _Group, said: _Said) -> None:
        ask = group.ask()
        with self._opened(ask, group.tries) as (response, reply):
            if reply.status != 200:
                raise _refused(_with_body(reply, response.read()))
            for chunk in _in_time(response.iter_bytes(), group.tries.deadline):
                said.put(*group.answers(chunk, reply))
                if said.is_closed:
                    return
        if not group.is_answered:
            raise group.unfinished(ask.request_id)


class AsyncClient:
    """What Client is, for asyncio: the same arguments, methods, results and errors.

        async with AsyncClient("http://localhost:8000") as client:
            one, other = await asyncio.gather(client.predict(text="one"), client.predict(text="two"))

    Files are read in threads. For use in one event loop.
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
    ) -> None:
        self._settings = _Settings(
            url,
            api_key=api_key,
            deadline_s=deadline_s,
            retries=retries,
            verify=verify,
            connections=connections,
        )
        self._http = httpx.AsyncClient(**self._settings.transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    @property
    def statistics(self) -> Statistics:
        """Calls and retries so far."""
        return self._settings.budget.statistics

    async def predict(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        top_k: int | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Prediction:
        """As Client.predict.

        (await client.predict(image="cat.jpg")).label
        """
        fields = _fields(model=model, version=version, cache=cache, top_k=top_k)
        media = await _media_off_loop(image, text, audio)
        return await self._call(
            self._settings.one_row(
                "/v1/predict", _prediction, media, fields, priority=priority, deadline_s=deadline_s
            )
        )

    async def explain(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        top_k: int | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Prediction:
        """As Client.explain.

        (await client.explain(image="cat.jpg", text="a cat")).explanation.contributions
        """
        fields = _fields(model=model, version=version, cache=cache, explain=True, top_k=top_k)
        media = await _media_off_loop(image, text, audio)
        return await self._call(
            self._settings.one_row(
                "/v1/predict", _prediction, media, fields, priority=priority, deadline_s=deadline_s
            )
        )

    async def predict_batch(
        self,
        rows: Iterable[Row],
        *,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        top_k: int | None = None,
        cache: bool = False,
        explain: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> tuple[RowAnswer, ...]:
        """As Client.predict_batch.

        [one.result().label for one in await client.predict_batch([Row(text="seven")])]
        """
        fields = _fields(model=model, version=version, cache=cache, explain=explain, top_k=top_k)
        ask = await asyncio.to_thread(
            self._settings.batch, tuple(rows), fields, priority=priority, deadline_s=deadline_s
        )
        return await self._call(ask)

    async def stream(
        self,
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        top_k: int | None = None,
        cache: bool = False,
        explain: bool = False,
        deadline_s: float | None = None,
        connections: int = 4,
    ) -> AsyncGenerator[RowAnswer, None]:
        """As Client.stream; `rows` may be asynchronous, and an answer does not wait for the next row.

        To leave early, close it: `async with contextlib.aclosing(client.stream(rows)) as answers`.

            async for answer in client.stream(rows):
                print(answer.id, answer.result().label)
        """
        query = _fields(model=model, version=version, cache=cache, explain=explain, top_k=top_k)
        time_s = self._settings.time_s(deadline_s)
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

    async def embed(
        self,
        *,
        image: ImageInput | None = None,
        text: str | None = None,
        audio: AudioInput | None = None,
        model: str | None = None,
        version: int | Literal["stable", "canary"] | None = None,
        cache: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Embedding:
        """As Client.embed.

        numpy.asarray((await client.embed(text="a cat")).vector)
        """
        fields = _fields(model=model, version=version, cache=cache, encoding="base64")
        media = await _media_off_loop(image, text, audio)
        return await self._call(
            self._settings.one_row(
                "/v1/embed", _embedding, media, fields, priority=priority, deadline_s=deadline_s
            )
        )

    async def models(self) -> tuple[Model, ...]:
        """As Client.models.

        [model.name for model in await client.models()]
        """
        return await self._call(self._settings.models())

    async def health(self) -> Health:
        """As Client.health.

        (await client.health()).status
        """
        return await self._call(self._settings.probe("/healthz"))

    async def ready(self) -> bool:
        """As Client.ready.

        await client.ready()
        """
        try:
            await self._call(self._settings.probe("/readyz"))
        except TrichordError as error:
            _heed_unready(error)
            return False
        return True

    async def wait_ready(self, timeout_s: float) -> None:
        """As Client.wait_ready.

        await client.wait_ready(30)
        """
        deadline = _Deadline(time.monotonic() + timeout_s)
        while True:
            try:
                await self._call(self._settings.probe("/readyz", deadline_s=deadline.left_s))
            except TrichordError as error:
                _heed_unready(error, deadline)
            else:
                return
            await asyncio.sleep(_POLL_S)

    async def _call(self, ask: _Ask[T]) -> T:
        tries = self._settings.tries(ask.deadline_s, is_retried=ask.is_retried)
        while True:
            try:
                return ask.result(await self._exchange(ask, tries))
            except TrichordError as error:
                if not ask.is_retried:
                    raise
                wait_s = tries.wait_s(error)
            await asyncio.sleep(wait_s)

    async def _exchange(self, ask: _Ask[T], tries: _Tries) -> _Reply:
        """Raises ConnectionFailed, DeadlinePassed or InputUnreadable."""
        async with self._opened(ask, tries) as (response, reply):
            return _with_body(reply, await response.aread())

    @contextlib.asynccontextmanager
    async def _opened(self, ask: _Ask[T], tries: _Tries) -> AsyncIterator[tuple[httpx.Response, _Reply]]:
        """An answer of which the body is still to be read."""
        deadline = tries.deadline
        with _connected(ask.request_id, deadline):
            deadline.check()
            try:
                async with (
                    asyncio.timeout(deadline.left_s),
                    self._http.stream(
                        ask.method,
                        ask.path,
                        params=ask.query,
                        headers=ask.headers(deadline),
                        content=None if ask.body is None else _chunks(ask.body),
                        extensions={"timeout": _Timeouts(deadline)},
                    ) as response,
                ):
                    yield response, _begun(response, ask, tries)
            except TimeoutError as error:
                raise DeadlinePassed("The time for this call is over.") from error

    async def _send_group(
        self,
        lines: tuple[_Line, ...],
        query: Mapping[str, str],
        time_s: float,
        heed: Callable[[int], None],
        flow: _Flow,
    ) -> None:
        group = _Group(lines, query, self._settings.tries(time_s), heed)
        while not group.is_answered:
            try:
                await self._send_rest(group, flow)
            except TrichordError as error:
                try:
                    wait_s = group.tries.wait_s(error)
                except TrichordError:
                    flow.put(*group.give_up(error))
                else:
                    await asyncio.sleep(wait_s)

    async def _send_rest(self, group: _Group, flow: _Flow) -> None:
        ask = group.ask()
        async with self._opened(ask, group.tries) as (response, reply):
            if reply.status != 200:
                raise _refused(_with_body(reply, await response.aread()))
            async for chunk in response.aiter_bytes():
                flow.put(*group.answers(chunk, reply))
        if not group.is_answered:
            raise group.unfinished(ask.request_id)


_POLL_S: Final = 0.1  # between two looks at a server that starts


def _heed_unready(error: TrichordError, deadline: _Deadline | None = None) -> None:
    """Raises the error if it says more than "not now"; DeadlinePassed if there is no time to look again."""
    if not _may_pass(error) and not isinstance(error, DeadlinePassed):
        raise error
    if deadline is not None and deadline.left_s <= _POLL_S:
        raise DeadlinePassed(f"The server is not ready: {error}", request_id=error.request_id) from error


def _begun(response: httpx.Response, ask: _Ask[Any], tries: _Tries) -> _Reply:
    request_id = response.headers.get("x-request-id", ask.request_id)
    return _Reply(response.status_code, response.headers, b"", request_id, tries.retries)


def _with_body(reply: _Reply, body: bytes) -> _Reply:
    return replace(reply, body=body)


def _in_time(chunks: Iterable[bytes], deadline: _Deadline) -> Iterator[bytes]:
    """Raises DeadlinePassed between two of them."""
    for chunk in chunks:
        deadline.check()
        yield chunk


async def _chunks(body: _Body) -> AsyncIterator[bytes]:
    """Files are read in threads."""
    chunks = body.chunks()
    if body.is_in_memory:
        for chunk in chunks:
            yield chunk
        return
    while (read := await asyncio.to_thread(next, chunks, None)) is not None:
        yield read
