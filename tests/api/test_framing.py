"""Requests that two servers could read differently get one answer, and the connection ends."""

from __future__ import annotations

import socket

import pytest

from app.api.framing import is_sound
from tests import raw
from tests.server import Server

HOST = b"Host: x\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /v1/predict HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"

AMBIGUOUS = {
    "length and chunked": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked and length": POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two equal lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -1\r\n\r\nhello",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "an empty length": POST + b"Content-Length: \r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a name that begins with a space": POST + b" Content-Length: 5\r\n\r\nhello",
    "an unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two encodings": POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "an encoding under chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an encoding over chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a quoted encoding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a folded encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "an encoding after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /v1/predict HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "a negative chunk": POST + CHUNKED + b"\r\n-1\r\n\r\n",
    "a hexadecimal prefix on a chunk": POST + CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer than it says": POST + CHUNKED + b"\r\n3\r\nabcdef\r\n0\r\n\r\n",
    "a chunk of 2^64 bytes": POST + CHUNKED + b"\r\n10000000000000000\r\nabc\r\n0\r\n\r\n",
    "bare line feeds in chunks": POST + CHUNKED + b"\r\n3\nabc\n0\n\n",
    "a bare line feed in a chunk extension": POST + CHUNKED + b"\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "one bare line feed": GET + b"A: b\nContent-Length: 3\r\n\r\nabc",
    "a bare carriage return": GET + b"A: b\rContent-Length: 3\r\n\r\nabc",
    "a folded header": GET + b"A: b\r\n c\r\n\r\n",
    "a zero byte in a value": GET + b"A: b\0c\r\n\r\n",
    "a zero byte in a name": GET + b"A\0: b\r\n\r\n",
    "a header without a colon": GET + b"hello\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: y\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade with a body": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "a tunnel with a body": b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    "a path of other bytes": "GET /héalthz HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "a tab in the path": b"GET /health\tz HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "no words at all": b"\xff\xfe\xfd\r\n\r\n",
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_gets_one_answer_and_the_connection_ends(server: Server, sent: bytes) -> None:
    """Whatever follows it is never read as a request of its own."""
    [reply] = raw.exchange(server.port, sent + SMUGGLED)
    assert (reply.status, reply.code) == (400, "bad_request")
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ([], "1.1"),
        ([(b"host", b"a"), (b"host", b"a")], "1.1"),
        ([(b"host", b"a"), (b"content-length", b"1"), (b"transfer-encoding", b"chunked")], "1.1"),
        ([(b"host", b"a"), (b"content-length", b"1"), (b"content-length", b"1")], "1.1"),
        ([(b"host", b"a"), (b"transfer-encoding", b"gzip, chunked")], "1.1"),
        ([(b"transfer-encoding", b"chunked")], "1.0"),
        ([(b"host", b"a")], "0.9"),
    ],
)
def test_framing_does_not_rely_on_how_strict_the_parser_was_built(
    headers: list[tuple[bytes, bytes]], version: str
) -> None:
    assert not is_sound(headers, version=version, is_upgrade=False)


def test_a_trailer_is_nobodys_header(server: Server) -> None:
    sent = POST + CHUNKED + b"Connection: close\r\n\r\n0\r\nX-Request-Id: from-the-trailer\r\n\r\n"
    [reply] = raw.exchange(server.port, sent)
    assert reply.headers["x-request-id"] != "from-the-trailer"


def test_an_offer_to_upgrade_is_passed_over(server: Server) -> None:
    """As RFC 9110, 7.8 has it; some clients offer HTTP/2 with every first request."""
    [reply] = raw.exchange(server.port, GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
    assert (reply.status, reply.headers["connection"]) == (200, "close")


def test_requests_in_one_packet_are_answered_in_order(server: Server) -> None:
    sent = GET + b"X-Request-Id: first\r\n\r\n" + GET + b"X-Request-Id: second\r\nConnection: close\r\n\r\n"
    assert [reply.headers["x-request-id"] for reply in raw.exchange(server.port, sent)] == ["first", "second"]


@pytest.mark.parametrize("rest", [b"\xff\xff\r\n\r\n", POST + CHUNKED + b"\r\n-1\r\n"])
def test_a_request_is_answered_although_garbage_follows_it(server: Server, rest: bytes) -> None:
    [reply] = raw.exchange(server.port, GET + b"\r\n" + rest)
    assert reply.status == 200


FLOODS = {
    "101 headers": GET + b"".join(b"A%d: b\r\n" % index for index in range(101)) + b"\r\n",
    "a header of 33 kB": GET + b"A: " + b"b" * 33_000 + b"\r\n\r\n",
    "a name of 33 kB": GET + b"A" * 33_000 + b": b\r\n\r\n",
    "a path of 1 MB": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header that does not end": GET + b"A: " + b"b" * 40_000,
    "50,000 headers": GET + b"".join(b"A%d: b\r\n" % index for index in range(50_000)) + b"\r\n",
}


@pytest.mark.parametrize("sent", FLOODS.values(), ids=FLOODS)
def test_too_many_headers_are_refused(server: Server, sent: bytes) -> None:
    with raw.connection(server.port) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            return  # closed before it was all sent
        answered = raw.replies(raw.received(connection))
    is_whole = len(sent) < 64_000 or answered  # of more, some may arrive after the end and reset it
    assert [(reply.status, reply.code) for reply in answered] == [(431, "headers_too_large")] * bool(is_whole)


def test_a_hundred_headers_are_none_too_many(server: Server) -> None:
    headers = b"".join(b"A%d: %s\r\n" % (index, b"b" * 200) for index in range(98))
    [reply] = raw.exchange(server.port, GET + headers + b"Connection: close\r\n\r\n")
    assert reply.status == 200
