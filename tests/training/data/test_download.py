from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.training.fake_sets import FakeSets, archive
from training.data.download import CHUNK_BYTES, Source, fetch
from training.data.errors import DownloadFailed
from training.data.fsdd import archive_source, load_fsdd
from training.data.home import Home
from training.recipes.digits import INPUTS

BODY = bytes(range(256)) * 2_000


@dataclass
class Shelf:
    """What the server holds, what it cuts short, and what it was asked."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers stop
    resumes: bool = True
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request


@contextmanager
def serving(shelf: Shelf) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shelf.files.get(self.path.lstrip("/"))
            wanted = self.headers.get("Range")
            shelf.asked.append(wanted)
            if body is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and shelf.resumes else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = start + shelf.cuts.pop(0) if shelf.cuts else len(body)
            self.wfile.write(body[start:end])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def source(*mirrors: str, body: bytes = BODY) -> Source:
    return Source(path="set/file.bin", mirrors=mirrors, sha256=hashlib.sha256(body).hexdigest())


def quiet(name: str, *, done_bytes: int, total_bytes: int | None) -> None:
    """An Advance that shows nothing."""


def test_a_good_file_arrives_once_and_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    def advance(name: str, *, done_bytes: int, total_bytes: int | None) -> None:
        assert name == "file.bin"
        told.append((done_bytes, total_bytes))

    shelf = Shelf({"file.bin": BODY})
    with serving(shelf) as url:
        for _ in range(2):  # the second time nothing is asked
            path = fetch(source(url + "file.bin"), tmp_path, advance=advance)
    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert shelf.asked == [None]
    assert [found.name for found in path.parent.iterdir()] == ["file.bin"]


def test_a_cut_connection_is_resumed(tmp_path: Path) -> None:
    shelf = Shelf({"file.bin": BODY}, cuts=[100_000])
    with serving(shelf) as url:
        path = fetch(source(url + "file.bin"), tmp_path, advance=quiet, pause_s=0)
    assert path.read_bytes() == BODY
    assert shelf.asked == [None, f"bytes={100_000 // CHUNK_BYTES * CHUNK_BYTES}-"]  # whole chunks are kept


def test_a_cut_connection_starts_over_where_a_server_cannot_resume(tmp_path: Path) -> None:
    shelf = Shelf({"file.bin": BODY}, cuts=[100_000], resumes=False)
    with serving(shelf) as url:
        path = fetch(source(url + "file.bin"), tmp_path, advance=quiet, pause_s=0)
    assert path.read_bytes() == BODY


def test_a_wrong_file_never_appears_and_the_next_mirror_is_asked(tmp_path: Path) -> None:
    shelf = Shelf({"wrong.bin": BODY[:-1] + b"!", "file.bin": BODY})
    with serving(shelf) as url:
        path = fetch(source(url + "wrong.bin", url + "file.bin"), tmp_path, advance=quiet, pause_s=0)
        assert path.read_bytes() == BODY
        path.unlink()
        with pytest.raises(DownloadFailed, match="content differs from the published one"):
            fetch(source(url + "wrong.bin"), tmp_path, advance=quiet, pause_s=0)
    assert list(path.parent.iterdir()) == []


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with serving(Shelf({})) as url, pytest.raises(DownloadFailed, match=r"status 404.*--data"):
        fetch(source(url + "file.bin"), tmp_path, advance=quiet, attempts=2, pause_s=0)


def test_a_packed_archive_is_downloaded_and_checked_by_its_recordings(
    tmp_path: Path, fake_sets: FakeSets
) -> None:
    assert INPUTS.audio is not None
    with serving(Shelf({"archive.zip": archive("wav")})) as url:
        home = Home(tmp_path, downloads=quiet)
        found = load_fsdd(
            home, INPUTS.audio, archive_source((url + "archive.zip",)), speakers=fake_sets.data.speakers
        )
    assert len(found.indices) == len(found.clips) == 240


@pytest.mark.parametrize("kind", ["a page", "damaged"])
def test_what_is_no_whole_archive_is_refused(tmp_path: Path, kind: str) -> None:
    whole = archive("wav")
    damaged = whole[:3_000] + b"!!!!" + whole[3_004:]
    body = b"<html>try later</html>" if kind == "a page" else damaged
    with serving(Shelf({"archive.zip": body})) as url, pytest.raises(DownloadFailed):
        fetch(archive_source((url + "archive.zip",)), tmp_path, advance=quiet, attempts=1)
    assert list((tmp_path / "fsdd").iterdir()) == []
