"""What a manifest may say, and the one sentence that refuses what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.bundle.errors import ManifestInvalid
from app.bundle.manifest import Manifest, Variant, parse_manifest, sealed, subsets
from tests import tiny

DIGITS = Path(__file__).parents[2] / "models/digits/1/manifest.json"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return tiny.with_sets().manifest


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
        (("inputs", "image", "resize"), None, "'resize' is for the fit 'crop', and needed there"),
        (("inputs", "image", "fit"), "pad", "'resize' is for the fit 'crop', and needed there"),
        (("inputs", "image", "fit"), "squash", "'inputs.image.fit'"),
        (("inputs", "image", "background"), 256, "'inputs.image.background'"),
        (("inputs", "image", "colour"), 1, "'inputs.image.colour': Extra"),
        (("inputs", "text", "tokenizer"), "other.json", "does not list other.json"),
        (("inputs",), {}, "at least one modality"),
        (("fusion", "graph"), "/etc/passwd", "'fusion.graph'"),
        (("fusion", "graph"), "a/../../b", "'fusion.graph'"),
        (("calibration", "temperature", "image"), None, "one temperature for each subset"),
        (("calibration", "temperature", "image"), -1.0, "'calibration.temperature.image'"),
        (("created",), "yesterday", "'created'"),
        (("task",), "regression", "'task'"),
        (("fusion", "level"), "pixel", "'fusion.level'"),
        (("variant",), {"precision": "int4"}, "'variant.precision'"),
        (("variant",), {"precision": "int8", "of": "tiny/1"}, "'variant.of'"),
        (("calibration", "prior"), [0.5, 0.5], "'calibration.prior' needs one number for each label"),
        (("calibration", "prior"), [0.5, 0.5, 0.5], "'calibration.prior' does not sum to 1"),
        (("calibration", "prior"), [1.5, -0.5, 0.0], "'calibration.prior.0'"),
        (("calibration", "thresholds"), [0.5, 0.5, 0.5], "'calibration.thresholds' is for multilabel"),
        (("calibration", "conformal", "level"), 1.0, "'calibration.conformal.level'"),
        (("calibration", "conformal", "method"), "raps", "'calibration.conformal.method'"),
        (("calibration", "conformal", "aps", "text"), -0.1, "'calibration.conformal.aps.text'"),
        (("calibration", "conformal", "aps", "text"), None, "one threshold for each subset"),
        (("calibration", "conformal", "lac", "text+image"), 0.5, "one threshold for each subset"),
        (("task",), "multilabel", "'calibration.conformal' is for one label a row"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    manifest: Manifest, path: tuple[str, ...], to: Any, message: str
) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(edited(manifest, *path, to=to))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_digits_1_does_not_say_may_be_left_out() -> None:
    manifest = parse_manifest(DIGITS.read_bytes())
    calibration = manifest.calibration
    assert (calibration.prior, calibration.conformal, calibration.thresholds) == (None, None, None)
    assert (manifest.variant, manifest.fusion.level, manifest.is_multilabel) == (None, None, False)


def test_what_a_bundle_may_say_of_its_labels_and_numbers_reads_back(manifest: Manifest) -> None:
    calibration = manifest.calibration.model_copy(update={"prior": (0.25, 0.25, 0.5)})
    variant = Variant(precision="int8", of="a" * 64)
    said = manifest.model_copy(update={"calibration": calibration, "variant": variant})
    again = parse_manifest(sealed(said))
    assert (again.calibration, again.variant, again.fusion.level) == (calibration, variant, "feature")


def test_labels_that_stand_alone_have_thresholds_and_shares_of_their_own() -> None:
    """Of a row that may have several labels, the shares need not sum to 1."""
    manifest = tiny.multilabel().manifest
    assert manifest.label_thresholds == (0.5, 0.6, 0.7)
    plain = edited(manifest, "calibration", "thresholds", to=None)
    assert Manifest.model_validate_json(plain).label_thresholds == (0.5, 0.5, 0.5)
    shares = edited(manifest, "calibration", "prior", to=[0.9, 0.8, 0.1])
    assert Manifest.model_validate_json(shares).calibration.prior == (0.9, 0.8, 0.1)
    for numbers, message in (([0.5], "one number for each label"), ([0.5, 0.5, 1.5], "thresholds.2")):
        with pytest.raises(ManifestInvalid, match=message):
            parse_manifest(edited(manifest, "calibration", "thresholds", to=numbers))


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"format": 1'])
def test_no_json_no_manifest(body: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        parse_manifest(body)
