"""What a manifest may say, and the one sentence that refuses what it may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.bundle.errors import ManifestInvalid
from app.bundle.manifest import Manifest, parse_manifest, sealed, subsets
from tests import tiny


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return tiny.make().manifest


def edited(manifest: Manifest, *path: str, to: Any) -> bytes:
    """The manifest's JSON with one entry replaced, or removed if `to` is None."""
    content = json.loads(sealed(manifest))
    entry = content
    for step in path[:-1]:
        entry = entry[step]
    if to is None:
        del entry[path[-1]]
    else:
        entry[path[-1]] = to
    return json.dumps(content).encode()


def test_a_sealed_manifest_reads_back(manifest: Manifest) -> None:
    body = sealed(manifest)
    again = parse_manifest(body)
    assert again.model_copy(update={"digest": "0" * 64}) == manifest
    assert sealed(again) == body


def test_subsets_are_named_smallest_first() -> None:
    assert subsets(("image", "text", "audio")) == (
        "image", "text", "audio", "image+text", "image+audio", "text+audio", "image+text+audio",
    )  # fmt: skip


def test_every_changed_byte_is_noticed(manifest: Manifest) -> None:
    body = sealed(manifest)
    for position in range(len(body)):
        broken = bytearray(body)
        broken[position] ^= 1
        with pytest.raises(ManifestInvalid):
            parse_manifest(bytes(broken))


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("format",), None, "no 'format'"),
        (("format",), 2, "format 2 is not the format 1"),
        (("format",), "1", "format '1' is not the format 1"),
        (("labels",), None, "'labels': Field required"),
        (("labels",), ["one"], "'labels'"),
        (("labels",), ["one", "one"], "names a class twice"),
        (("name",), "../up", "'name'"),
        (("version",), 0, "'version'"),
        (("inputs", "image", "resize"), 4, "crop is larger"),
        (("inputs", "image", "colour"), 1, "'inputs.image.colour': Extra"),
        (("inputs", "text", "tokenizer"), "other.json", "does not list other.json"),
        (("inputs",), {}, "at least one modality"),
        (("fusion", "graph"), "/etc/passwd", "'fusion.graph'"),
        (("fusion", "graph"), "a/../../b", "'fusion.graph'"),
        (("calibration", "temperature", "image"), None, "one temperature for each subset"),
        (("calibration", "temperature", "image"), -1.0, "'calibration.temperature.image'"),
        (("created",), "yesterday", "'created'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    manifest: Manifest, path: tuple[str, ...], to: Any, message: str
) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(edited(manifest, *path, to=to))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"format": 1'])
def test_no_json_no_manifest(body: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        parse_manifest(body)
