"""Fetch one published file: resumed when cut, checked before it appears under its name.

A file is either complete and correct or not there: bytes are gathered beside it and renamed at the end.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import httpx

from training.data.errors import DataCorrupt, DownloadFailed

_TIMEOUT: Final = httpx.Timeout(30, connect=15)
CHUNK_BYTES: Final = 1 << 16  # kept together: a cut loses what is not a whole one


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file is published. `mirrors` are tried in order and must carry the same bytes.

    `sha256` is None for archives that a host packs anew at will; then `check` looks at their content.
    `origin` says what a file without mirrors is made from.
    """

    path: str  # inside the data folder
    mirrors: tuple[str, ...]
    sha256: str | None = None
    check: Callable[[Path], None] | None = None
    origin: str | None = None


class Advance(Protocol):
    """Told after every chunk how many bytes are there, and how many there will be if that is known."""

    def __call__(self, name: str, *, done_bytes: int, total_bytes: int | None) -> None: ...


def fetch(source: Source, folder: Path, *, advance: Advance, attempts: int = 3, pause_s: float = 1.0) -> Path:
    """The file in `folder`, downloaded unless it is there.

    Raises DownloadFailed, naming the file and what every mirror did.
    """
    target = folder / source.path
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    failures: list[str] = []
    for url in source.mirrors:
        for attempt in range(attempts):
            if attempt:
                time.sleep(pause_s * attempt)
            try:
                _download(url, part, name=target.name, advance=advance)
                verify(part, source)
            except (httpx.HTTPError, DataCorrupt) as error:
                failures.append(f"{httpx.URL(url).host}: {_reason(error)}")
                if isinstance(error, DataCorrupt):  # resuming a wrong file cannot make it right
                    part.unlink(missing_ok=True)
            else:
                part.replace(target)
                return target
    raise DownloadFailed(
        f"{target.name} could not be downloaded ({'; '.join(failures)}). Check the network, or fetch it by "
        f"hand and name its folder with --data: {target.parent.name}/{target.name} is looked for there."
    )


def verify(path: Path, source: Source) -> None:
    """Raises DataCorrupt if the content is not the published one."""
    if source.sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != source.sha256:
            raise DataCorrupt(
                f"{source.path}: its sha256 is {found[:12]}…, published is {source.sha256[:12]}…. "
                "Remove it and fetch it again."
            )
    if source.check is not None:
        source.check(path)


def one_of(path: Path, *, sha256: tuple[str, ...]) -> None:
    """The check of a file that is published in several editions. Raises DataCorrupt."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found not in sha256:
        raise DataCorrupt(f"{path.name}: its sha256 {found[:12]}… is of no known edition. Fetch it again.")


def _download(url: str, part: Path, *, name: str, advance: Advance) -> None:
    """Append what `part` lacks; start over where a server does not resume."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # what arrives is what is hashed
    if have:
        headers["Range"] = f"bytes={have}-"
    with httpx.stream("GET", url, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all bytes are there already; verification decides
        response.raise_for_status()
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        done = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw(CHUNK_BYTES):
                done += file.write(chunk)
                advance(name, done_bytes=done, total_bytes=total)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    if isinstance(error, DataCorrupt):
        return "content differs from the published one"
    return type(error).__name__
