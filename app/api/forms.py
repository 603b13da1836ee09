"""A multipart form, read from the stream into memory with a cap on every part.

Parsing is python-multipart's; the caps, the list of allowed names and the demand for the closing
boundary are ours. Without that demand a form cut short would lose its last part in silence, and a model
that accepts missing modalities would answer another question than the one asked.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.api.bodies import chunks
from app.api.errors import Refusal

if TYPE_CHECKING:  # a name that exists for type checkers only
    from python_multipart.multipart import MultipartCallbacks

_FRAMING_BYTES = 16 * 1024  # boundaries and part headers of a form of this size, generously
_MAX_HEADERS = 8  # per part; browsers send two
_MAX_HEADER_BYTES = 1024
_ROW_PART = re.compile(r"rows\[(0|[1-9][0-9]{0,5})\]\.([a-z]+)")
_IDENTITY = (b"", b"7bit", b"8bit", b"binary")


@dataclass(slots=True)
class _Part:
    name: str
    limit: int
    size: int = 0
    body: bytearray = field(default_factory=bytearray)
    is_unchosen: bool = False  # what a browser sends for a file field that was left alone


@dataclass(frozen=True, slots=True)
class FormCaps:
    """Which parts a form may have, by name, and the most bytes of each.

    A form of many rows has parts named `rows[N].<name>`, too; those share `rows_bytes`. The part `handed_on`
    is not kept in memory.
    """

    parts: Mapping[str, int]
    row_parts: tuple[str, ...] = ()
    max_rows: int = 0
    rows_bytes: int = 0
    handed_on: str | None = None

    @property
    def total(self) -> int:
        """Most bytes of the body."""
        return sum(self.parts.values()) + self.rows_bytes + _FRAMING_BYTES

    def of(self, name: str) -> int | None:
        """None for a part that the form may not have."""
        place = row_place(name)
        if place is None:
            return self.parts.get(name)
        return self.rows_bytes if place[0] < self.max_rows and place[1] in self.row_parts else None

    @property
    def allowed(self) -> str:
        rows = (f"rows[N].{name} with N below {self.max_rows}" for name in self.row_parts)
        return ", ".join([*self.parts, *rows])


def row_place(name: str) -> tuple[int, str] | None:
    """`rows[7].image` -> (7, "image")."""
    match = _ROW_PART.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


async def read_form(
    request: Request, caps: FormCaps, *, hand_on: Callable[[bytes], Awaitable[None]] | None = None
) -> dict[str, bytes]:
    """Parts by name. That of `caps.handed_on` is empty here, and goes to `hand_on` as it comes.

    Raises Refusal: unsupported_media_type, bad_multipart, truncated_body, body_too_large, part_too_large
    or, for a name that is not allowed, invalid_parameter.
    """
    collector = _Collector(caps)
    parser = MultipartParser(
        _boundary(request),
        collector.callbacks(),
        max_header_count=_MAX_HEADERS,
        max_header_size=_MAX_HEADER_BYTES,
    )
    try:
        async for chunk in chunks(request, most=caps.total):
            parser.write(chunk)
            if hand_on is not None:
                await hand_on(collector.take_on())
    except FormParserError as error:
        raise Refusal("bad_multipart", "The form cannot be parsed. Build it with an HTTP library.") from error
    if not collector.ended:
        raise Refusal("truncated_body", "The form has no closing boundary. Send the complete form.")
    return collector.parts


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise Refusal("unsupported_media_type", "Send the inputs as multipart/form-data.")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise Refusal("bad_multipart", "The Content-Type header has no valid boundary.")
    return boundary


class _Collector:
    """Receives the parser's events and keeps the parts."""

    def __init__(self, caps: FormCaps) -> None:
        self.parts: dict[str, bytes] = {}
        self.ended = False
        self._caps = caps
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._part: _Part | None = None
        self._on = bytearray()

    def take_on(self) -> bytes:
        """What came, since this was asked last, of the part that is handed on."""
        taken = bytes(self._on)
        self._on.clear()
        return taken

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._part = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        name = bytes(self._name).lower()
        if name in self._headers:
            raise Refusal("bad_multipart", "A part repeats one of its headers. Send each header once.")
        self._headers[name] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        kind, options = parse_options_header(disposition)
        name = options.get(b"name", b"").decode("latin-1")
        if kind != b"form-data" or not name:
            raise Refusal("bad_multipart", "A part has no name. Build the form with an HTTP library.")
        if self._headers.get(b"content-transfer-encoding", b"").lower() not in _IDENTITY:
            raise Refusal("bad_multipart", "A part is transfer-encoded. Send its bytes as they are.")
        limit = self._caps.of(name)
        if limit is None:
            raise Refusal("invalid_parameter", f"The form has an unknown part. Use {self._caps.allowed}.")
        if name in self.parts:
            raise Refusal("bad_multipart", f"The form has the part {name} twice. Send it once.", part=name)
        self._part = _Part(name, limit, is_unchosen=options.get(b"filename") == b"")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        assert part is not None, "data comes after headers"
        kept = self._on if part.name == self._caps.handed_on else part.body
        kept += memoryview(data)[start:end]
        part.size += end - start
        if part.size > part.limit:
            raise Refusal(
                "part_too_large",
                f"The {part.name} part has more than {part.limit} bytes. Send a smaller one.",
                part=part.name,
            )

    def _on_part_end(self) -> None:
        part = self._part
        if part is not None and (part.size or not part.is_unchosen):
            self.parts[part.name] = bytes(part.body)

    def _on_end(self) -> None:
        self.ended = True
