"""Hostile requests, each from its seed: forms broken by grammar, and good requests broken byte by byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests import tiny

_TEXTS = [
    b"",
    b"\0",
    b"\xff\xfe\xfd",
    b"a" * 1001,
    b"a" * 5000,
    "١٢ ﷽ 🂡 \u202e".encode(),
    b"\r\n--",
    b"%00%0d%0a",
]
_NUMBERS = [b"", b"0", b"-1", b"1.5", b"9" * 60, b"NaN", "²".encode(), b"1e3", b"0x1", b"\0", b" 1", b"true"]
_NAMES = [
    b"",
    b"video",
    b"image\0",
    b"IMAGE",
    b"image ",
    b"../image",
    b"text[]",
    b"a" * 500,
    "ïmage".encode(),
]
_BOUNDARIES = [b"", b" ", b"b" * 71, b"b" * 70, b'"b', b"b;b", b"b\tb", b"--b", b"\xc3\xa9", b"'()+_,-./:=?"]
_HEADERS = [
    b"no colon",
    b": no name",
    b"X: " + b"a" * 2000,
    b"\0: zero",
    b"Content-Transfer-Encoding: base64",
    b"Content-Type: image/svg+xml",
    b"Content-Type: multipart/mixed; boundary=c",
    b"Content-Type: text/plain; charset=utf-7",
    b"Content-Disposition: form-data; name=text",
    b"Content-Disposition: attachment",
    b"Content-Disposition: form-data; name*=utf-8''im%61ge",
    b'Content-Disposition: form-data; name="a\\"b"; filename*0="x"',
    b"Content-Length: -1",
    b" folded",
]
_MAGIC = [
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"RIFF\0\0\0\0WEBP",
    b"fLaC", b"OggS", b"ID3", b"GIF89a", b"%PDF", b"<svg", b"",
]  # fmt: skip
_REQUEST_HEADERS = [
    b"Content-Encoding: gzip",
    b"X-Request-Deadline-Ms: 0",
    b"X-Request-Deadline-Ms: " + b"9" * 400,
    b"X-Request-Id: \x1b[31m",
    b"Content-Type: text/plain",
    b"Accept: \xff",
    b"Expect: 100-continue",
    b"Range: bytes=" + b"0-1," * 500,
    b"Cookie: " + b"a=b;" * 2000,
]


@dataclass
class _Part:
    headers: list[bytes]
    body: bytes


@dataclass
class _Form:
    """A good form, until something is done to it."""

    parts: list[_Part]
    boundary: bytes = b"bound"
    announced: bytes = b"bound"
    newline: bytes = b"\r\n"
    before: bytes = b""
    closing: bytes = b"--"
    after: bytes = b"\r\n"
    cut: float = 1.0
    headers: list[bytes] = field(default_factory=list)

    def request(self) -> bytes:
        chunks = [self.before]
        for part in self.parts:
            chunks += [b"--", self.boundary, self.newline, *(line + self.newline for line in part.headers)]
            chunks += [self.newline, part.body, self.newline]
        body = b"".join([*chunks, b"--", self.boundary, self.closing, self.after])
        body = body[: int(len(body) * self.cut)]
        return request(body, b"multipart/form-data; boundary=" + self.announced, *self.headers)


def request(body: bytes, content_type: bytes, *headers: bytes) -> bytes:
    """A POST /v1/predict that closes its connection."""
    lines = [
        b"POST /v1/predict HTTP/1.1",
        b"Host: x",
        b"Connection: close",
        b"Content-Type: " + content_type,
        b"Content-Length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join([*lines, b"", body])


def malformed_form(seed: int) -> bytes:
    """A request whose form has one to three things wrong."""
    rng = random.Random(seed)  # noqa: S311
    form = _good_form(rng)
    for break_it in rng.choices(_WAYS, k=rng.randint(1, 3)):
        break_it(form, rng)
    return form.request()


def mutated_request(seed: int) -> bytes:
    """A good request with up to eight bytes or spans changed: in the body, or, for one in five, anywhere."""
    rng = random.Random(seed)  # noqa: S311
    head, separator, body = _good_form(rng).request().partition(b"\r\n\r\n")
    if rng.random() < 0.2:
        return _mutated(head + separator + body, rng)
    return request(_mutated(body, rng), b"multipart/form-data; boundary=bound")


def _good_form(rng: random.Random) -> _Form:
    raw = tiny.row(rng.randrange(100))
    fields = {b"image": raw.image, b"text": raw.text, b"audio": raw.audio, b"top_k": b"2", b"model": b"tiny"}
    return _Form([_part(name, body or b"") for name, body in fields.items() if rng.random() < 0.7])


def _part(name: bytes, body: bytes) -> _Part:
    return _Part([b'Content-Disposition: form-data; name="' + name + b'"'], body)


def _mutated(body: bytes, rng: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randint(1, 8)):
        at, span = rng.randrange(len(changed) + 1), rng.choice([1, 1, 1, 2, 4, 64])
        match rng.randrange(5):
            case 0:
                changed[at : at + span] = rng.randbytes(min(span, len(changed) - at))
            case 1:
                del changed[at : at + span]
            case 2:
                changed[at:at] = rng.choice([rng.randbytes(span), b"\r\n", b"--bound", b"\0", b"\xff" * span])
            case 3:
                changed[at:at] = changed[at // 2 : at // 2 + span]
            case _:
                changed[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in changed[at : at + 1])
    return bytes(changed)


# --- ways to break a form ---------------------------------------------------------------------

_Way = Callable[[_Form, random.Random], None]


def _any(form: _Form, rng: random.Random) -> _Part:
    if not form.parts:
        form.parts.append(_part(b"text", b"sept"))
    return rng.choice(form.parts)


def _spoil_body(form: _Form, rng: random.Random) -> None:
    part = _any(form, rng)
    part.body = _mutated(part.body, rng)


def _spoil_number(form: _Form, rng: random.Random) -> None:
    form.parts.append(_part(rng.choice([b"top_k", b"version", b"model"]), rng.choice(_NUMBERS)))


def _replace_media(form: _Form, rng: random.Random) -> None:
    _any(form, rng).body = rng.choice(_MAGIC) + rng.randbytes(rng.choice([0, 1, 30, 3000]))


def _rename(form: _Form, rng: random.Random) -> None:
    form.parts.append(_part(rng.choice(_NAMES), b"1"))


def _add_header(form: _Form, rng: random.Random) -> None:
    part = _any(form, rng)
    for _ in range(rng.choice([1, 1, 20])):
        part.headers.insert(rng.randrange(len(part.headers) + 1), rng.choice(_HEADERS))


def _double(form: _Form, rng: random.Random) -> None:
    form.parts += [_any(form, rng)] * rng.choice([1, 1, 50])


_WAYS_OF_LINES: list[_Way] = [
    lambda form, rng: setattr(form, "boundary", rng.choice(_BOUNDARIES)),
    lambda form, rng: setattr(form, "announced", rng.choice(_BOUNDARIES)),
    lambda form, rng: setattr(form, "newline", rng.choice([b"\n", b"\r", b"", b"\r\n\r\n", b"\r\n "])),
    lambda form, rng: setattr(form, "before", rng.choice([b"preamble", b"\r\n", b"--", b"x" * 20_000])),
    lambda form, rng: setattr(form, "closing", rng.choice([b"", b"-", b"--bound--", b"\0\0"])),
    lambda form, rng: setattr(
        form, "after", rng.choice([b"", b"epilogue", b"\r\n--bound\r\n", b"x" * 20_000])
    ),
    lambda form, rng: setattr(form, "cut", rng.random()),
    lambda form, rng: form.headers.append(rng.choice(_REQUEST_HEADERS)),
]

_WAYS: list[_Way] = [
    _spoil_body, _spoil_number, _replace_media, _rename, _add_header, _double, *_WAYS_OF_LINES,
    lambda form, rng: form.parts.append(_part(b"text", rng.choice(_TEXTS))),
    lambda form, rng: _any(form, rng).headers.clear(),
]  # fmt: skip
