"""What stands for one row in a manifest, whatever its kind, to a Row.

Three shapes are read: flat (`id`, `image`, `text`, `audio` beside anything else), that of OpenAI's batches
(`custom_id` and `body`), and our own dead letters, which hold the row that failed. A medium is
a file name, base64, a data URL, bytes, or {"file", "offset", "size"}. See docs/scoring.md.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.bundle.manifest import MODALITIES, Modality
from app.rows.errors import Unreadable
from app.rows.row import InFile, Row

# The first bytes of what can be decoded. A name whose beginning is base64 of these is no file's name.
_MAGIC: Final = (
    b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xfa",
    b"\xff\xf3", b"\xff\xf2",
)  # fmt: skip
_LONGEST_NAME: Final = 4096  # bytes, of a path on Linux
_LONGEST_ID: Final = 1024  # characters


@dataclass(frozen=True, slots=True)
class Names:
    """What the id and the modalities are called in the input."""

    id: str = "id"
    image: str = "image"
    text: str = "text"
    audio: str = "audio"

    @property
    def all(self) -> tuple[str, ...]:
        return (self.id, self.image, self.text, self.audio)

    def of(self, modality: Modality) -> str:
        return str(getattr(self, modality))


@dataclass(frozen=True, slots=True)
class Record:
    """One row as a reader found it, or the problem that it had. `share` of the input is read, 0 to 1."""

    value: object
    base: Path
    share: float
    problem: Unreadable | None = None


def to_row(record: Record, names: Names, *, position: int, may_name_files: bool = True) -> Row:
    """Never raises: what is wrong stands in the row's `problem`.

    A row from a stranger may not name files: what would be a name is read as base64.
    """
    opened = _opened(record, names, position=position)
    value, names, problem = opened.value, opened.names, opened.problem
    media: dict[Modality, bytes | InFile] = {}
    if problem is None:
        try:
            media = _media(value, names, opened.base, may_name_files=may_name_files)
        except Unreadable as error:
            problem = error
    return Row(position, opened.id, plain(value, names), opened.base, media, record.share, problem)


def id_of(record: Record, names: Names, *, position: int) -> str:
    """What to_row calls the row, without a look at its media."""
    return _opened(record, names, position=position).id


@dataclass(frozen=True, slots=True)
class _Opened:
    """A record out of the dead letter that it may have been in."""

    id: str
    value: object
    base: Path
    names: Names
    problem: Unreadable | None


def _opened(record: Record, names: Names, *, position: int) -> _Opened:
    value, base, row_id, problem = record.value, record.base, f"row-{position}", record.problem
    try:
        if _is_dead_letter(value):
            assert isinstance(value, dict), "as a dead letter is"
            row_id, base, value = _id(value["id"]), Path(value["base"]), value["row"]
            if isinstance(value, str):
                value = _parsed(value)
            names = Names()  # a dead letter's row has our own names, see `plain`
        if isinstance(value, dict):
            row_id = _found_id(value, names) or row_id
    except Unreadable as error:
        problem = problem or error
    return _Opened(row_id, value, base, names, problem)


def plain(value: object, names: Names) -> object:
    """A row as a dead letter repeats it: under our own names, so that it is read without options."""
    if not isinstance(value, dict) or _is_request(value, names):
        return value
    ours = dict(zip(names.all, Names().all, strict=True))
    return {ours[name]: entry for name, entry in value.items() if name in ours}


def _is_request(value: dict[str, Any], names: Names) -> bool:
    """Whether it has the shape of OpenAI's batches; a flat row may have a column of this name, too."""
    is_flat = not value.keys().isdisjoint(names.all)
    return "body" in value and (isinstance(value["body"], dict) or not is_flat) and names.id not in value


def _is_dead_letter(value: object) -> bool:
    if not isinstance(value, dict) or not value.keys() >= {"id", "stage", "code", "base", "row"}:
        return False
    return isinstance(value["base"], str)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable("invalid_json", "The line is not JSON.") from error


def _found_id(value: dict[str, Any], names: Names) -> str | None:
    found = value.get(names.id, value.get("custom_id"))
    return None if found is None else _id(found)


def _id(found: object) -> str:
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise Unreadable("invalid_id", "The id is neither a text nor a whole number.")
    said = str(found)
    if len(said) > _LONGEST_ID or not _is_unicode(said):
        raise Unreadable("invalid_id", f"The id is no Unicode or longer than {_LONGEST_ID} characters.")
    return said


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _media(
    value: object, names: Names, base: Path, *, may_name_files: bool
) -> dict[Modality, bytes | InFile]:
    """Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable("invalid_row", "The row is not an object.")
    is_request = _is_request(value, names)
    if is_request:
        value, names = value["body"], Names()
        if not isinstance(value, dict):
            raise Unreadable("invalid_row", "The row's body is not an object.")
    found: dict[Modality, bytes | InFile] = {}
    for modality in MODALITIES:
        entry = value.get(names.of(modality))
        if entry is not None:
            found[modality] = _medium(entry, modality, base, may_be_file=may_name_files and not is_request)
            if isinstance(found[modality], InFile) and not may_name_files:
                raise Unreadable("not_a_file", f"The {modality} names a file. Send its bytes as base64.")
    if not found:
        raise Unreadable("no_modality", "The row has neither image nor text nor audio.")
    return found


def _medium(entry: object, modality: Modality, base: Path, *, may_be_file: bool) -> bytes | InFile:
    match entry:
        case bytes(body) | {
            "bytes": bytes(body)
        }:  # a struct is as Hugging Face's data sets have it in Parquet
            return body
        case {"file": str(name), **rest}:
            return InFile(base / name, _whole(rest.get("offset", 0)), _whole_or_none(rest.get("size")))
        case {"base64": str(text)} | {"bytes": {"base64": str(text)}}:  # what json_bytes makes of those
            return _decoded(text, modality)
        case {"path": str(name)}:
            return InFile(base / name)
        case str() if modality == "text":
            return entry.encode(errors="surrogatepass")  # refused when it is decoded
        case str():
            return _from_string(entry, modality, base, may_be_file=may_be_file)
    raise Unreadable(f"invalid_{modality}", f"The {modality} is neither a file's name nor base64 nor bytes.")


def _from_string(entry: str, modality: Modality, base: Path, *, may_be_file: bool) -> bytes | InFile:
    if entry.startswith("data:"):
        head, comma, text = entry.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Unreadable(f"invalid_{modality}", f"The {modality} is a data URL without base64.")
        return _decoded(text, modality)
    if not may_be_file or len(entry) > _LONGEST_NAME or _is_base64_of_media(entry):
        return _decoded(entry, modality)
    if "://" in entry:
        raise Unreadable("not_a_file", f"The {modality} is an address. Name a file, or send base64.")
    return InFile(base / entry)


def _is_base64_of_media(entry: str) -> bool:
    """By how it begins. A dot, which most names have, is in no base64."""
    if "." in entry:
        return False
    try:
        head = binascii.a2b_base64(entry[:8].encode(), strict_mode=True)
    except ValueError:
        return False
    return len(entry) > len("/9j/") * 4 and head.startswith(_MAGIC)


def _decoded(text: str, modality: Modality) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Unreadable(f"invalid_{modality}", f"The {modality} is not base64 with padding.") from error


def _whole(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise Unreadable("invalid_row", "Offset and size of a file's part are whole numbers.")
    return number


def _whole_or_none(number: object) -> int | None:
    return None if number is None else _whole(number)


def json_bytes(value: object) -> dict[str, str]:
    """For json.dumps: bytes as base64 that says so, or it would be read back as a text or a file's name."""
    assert isinstance(value, bytes), "the rest of a record is JSON"
    return {"base64": base64.b64encode(value).decode()}
