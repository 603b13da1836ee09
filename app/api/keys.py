"""API keys: a file with a line for each, `NAME SCOPES SHA256`, followed while it changes.

A key is 256 random bits, so its plain digest cannot be searched back, and needs no salt or slow hash.
`trichord key NAME --scope predict` prints a new key, once, and its line. Lines of one name are one caller,
whose key is being rotated: they share its jobs and its rate.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOK_EVERY_S = 1.0


class Scope(StrEnum):
    PREDICT = "predict"
    ADMIN = "admin"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; not the key."""

    name: str
    scopes: frozenset[Scope]
    digest: str


class KeysInvalid(Exception):
    """The key file cannot be read. Says which line, never what is in it."""


def new_key(name: str, scopes: frozenset[Scope]) -> tuple[str, str]:
    """A key, and its line for the file."""
    if not _NAME.fullmatch(name):
        raise KeysInvalid("A key's name has 1 to 64 letters, digits, dots, dashes or underscores.")
    key = f"tri_{secrets.token_urlsafe(32)}"
    return key, f"{name} {','.join(sorted(scopes))} {_digest(key.encode())}"


def find(
    keys: tuple[Key, ...], presented: bytes, *, equal: Callable[[str, str], bool] = hmac.compare_digest
) -> Key | None:
    """The key that this is. Always compares with all, so that time tells nothing."""
    digest, found = _digest(presented), None
    for key in keys:
        if equal(key.digest, digest):
            found = key
    return found


class KeyFile:
    """The keys of a file. A change counts within a second; one that cannot be read changes nothing."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeysInvalid."""
        self._path = path
        self._clock = clock
        self._looked_s = clock()
        self._version = self._fingerprint()
        self._keys = _read(path)

    @property
    def keys(self) -> tuple[Key, ...]:
        if self._clock() - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = self._clock()
            self._look()
        return self._keys

    def _look(self) -> None:
        version = self._fingerprint()
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = _read(self._path)
        except KeysInvalid as error:
            log.error("the key file changed, but the keys stay: %s", error)  # noqa: TRY400 - one line, no traceback
        else:
            log.info("keys read", extra={"keys": len(self._keys)})

    def _fingerprint(self) -> tuple[int, ...]:
        try:
            known = self._path.stat()
        except OSError:
            return ()
        return known.st_ino, known.st_size, known.st_mtime_ns


def _read(path: Path) -> tuple[Key, ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise KeysInvalid(f"{path} cannot be read as text.") from None
    keys = tuple(
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if len({key.digest for key in keys}) != len(keys):
        raise KeysInvalid(f"{path}: two lines have the same digest.")
    if len({key.name for key in keys}) != len({(key.name, key.scopes) for key in keys}):
        raise KeysInvalid(f"{path}: two lines of one name have not the same scopes.")
    return keys


def _parse(line: str, where: str) -> Key:
    fields = line.split()
    if len(fields) != 3:
        raise KeysInvalid(f"{where}: not NAME SCOPES SHA256.")
    name, scopes, digest = fields
    if not _NAME.fullmatch(name):
        raise KeysInvalid(f"{where}: a name has 1 to 64 letters, digits, dots, dashes or underscores.")
    if not set(scopes.split(",")) <= set(Scope):
        raise KeysInvalid(f"{where}: scopes are {', '.join(Scope)}.")
    if not _DIGEST.fullmatch(digest):
        raise KeysInvalid(f"{where}: the digest is not 64 hexadecimal digits.")
    return Key(name, frozenset(map(Scope, scopes.split(","))), digest)


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
