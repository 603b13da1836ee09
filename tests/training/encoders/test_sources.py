"""What an encoder reads is what its own files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import BeitImageProcessorPil, CLIPImageProcessorPil, ViTImageProcessorPil

from app.bundle.manifest import AudioInput, Fit, ImageInput, Modality, TextInput
from app.bundle.prepare import prepare_image
from tests.training.encoders.saved_models import save_model
from training.encoders.build import build_encoder
from training.encoders.contract import EncoderUnfit
from training.encoders.sources import FROM_SCRATCH, source_of
from training.encoders.specs import PretrainedImage


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("preprocessor", "fit", "resize", "height", "width"),
    [
        ({}, "stretch", None, 16, 16),  # the size that the model was built for
        ({"size": 32}, "stretch", None, 32, 32),
        ({"size": {"height": 24, "width": 32}}, "stretch", None, 24, 32),
        ({"size": {"height": 24, "width": 32}, "do_pad": True}, "pad", None, 24, 32),
        ({"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 16}, "crop", 20, 16, 16),
        (
            {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
            "crop", 16, 16, 16,
        ),
        ({"size": {"shortest_edge": 20}, "do_center_crop": False, "crop_size": 16}, "crop", 20, 20, 20),
        ({"size": {"shortest_edge": 28}, "crop_pct": 0.875}, "crop", 32, 28, 28),
    ],
)  # fmt: skip
def test_images_are_as_large_as_the_preprocessor_makes_them(
    tmp_path: Path, preprocessor: dict[str, Any], fit: str, resize: int | None, height: int, width: int
) -> None:
    place = save_model(tmp_path, "vit")
    change(tmp_path / "preprocessor_config.json", **preprocessor)
    reads = source_of("image", place, is_frozen=True).reads
    assert isinstance(reads, ImageInput)
    assert (reads.fit, reads.resize, reads.height, reads.width) == (fit, resize, height, width)


@pytest.mark.parametrize(("name", "size"), [("residual", 64), ("vit", 16)])
@pytest.mark.parametrize(("fit", "crops"), [("crop", True), ("pad", False), ("stretch", False)])
def test_pictures_are_fitted_as_they_are_asked_to_be(
    tmp_path: Path, name: str, size: int, fit: Fit, *, crops: bool
) -> None:
    place = save_model(tmp_path, "vit") if name == "vit" else name
    reads = source_of("image", place, is_frozen=True, fit=fit).reads
    assert isinstance(reads, ImageInput)
    assert (reads.fit, reads.resize, reads.height) == (fit, size if crops else None, size)


@pytest.mark.parametrize(
    ("processor", "most"),
    [
        (ViTImageProcessorPil(size={"height": 16, "width": 16}), 0),
        (BeitImageProcessorPil(size={"height": 16, "width": 24}), 0),
        # It resizes before it cuts, and we do both at once: edges are half a pixel elsewhere.
        (CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}), 24),
    ],
)
def test_pictures_look_to_a_model_as_its_own_processor_makes_them(
    tmp_path: Path, processor: Any, most: int
) -> None:
    place = save_model(tmp_path, "vit")
    processor.save_pretrained(tmp_path)
    reads = source_of("image", place, is_frozen=True).reads
    assert isinstance(reads, ImageInput)
    photograph = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)).resize((90, 60))
    )
    [theirs] = processor(photograph, do_rescale=False, do_normalize=False).pixel_values
    apart = np.abs(prepare_image(photograph, reads).astype(int) - np.asarray(theirs).transpose(1, 2, 0))
    assert apart.max() <= most
    assert apart.mean() <= 1


@pytest.mark.parametrize(("most", "expected"), [(None, 24), (12, 12), (1_000, 24)])
def test_texts_are_as_long_as_tokenizer_and_positions_allow(
    tmp_path: Path, most: int | None, expected: int
) -> None:
    place = save_model(tmp_path, "bert")
    if most is not None:
        change(tmp_path / "tokenizer_config.json", model_max_length=most)
    reads = source_of("text", place, is_frozen=True).reads
    assert isinstance(reads, TextInput)
    assert (reads.max_tokens, reads.pad_id) == (expected, 0)


@pytest.mark.parametrize("kind", ["ast", "wav2vec2", "hubert"])
def test_recordings_have_the_rate_of_the_feature_extractor_and_a_frame_at_least(
    tmp_path: Path, kind: str
) -> None:
    source = source_of("audio", save_model(tmp_path, kind), is_frozen=True)
    assert isinstance(source.reads, AudioInput)
    assert source.reads.sample_rate == 16_000
    build_encoder(source.spec, source.reads, vocabulary=None)  # reads the shortest recording


@pytest.mark.parametrize(
    ("modality", "name"), [(modality, name) for modality, known in FROM_SCRATCH.items() for name in known]
)
def test_every_encoder_from_scratch_reads_what_is_said_of_it(modality: Modality, name: str) -> None:
    source = source_of(modality, name, is_frozen=True)
    built = build_encoder(source.spec, source.reads, vocabulary=300 if modality == "text" else None)
    assert list(built.own_parameters())


@pytest.mark.parametrize(("modality", "kind"), [("image", "bert"), ("audio", "vit"), ("text", "vit")])
def test_an_encoder_of_something_else_is_refused_with_what_there_is(
    tmp_path: Path, modality: Modality, kind: str
) -> None:
    with pytest.raises(EncoderUnfit, match=f"is no pretrained {modality} encoder: .* one from scratch: "):
        source_of(modality, save_model(tmp_path, kind), is_frozen=True)


def test_a_preprocessor_without_what_is_read_from_it_is_told_in_a_sentence(tmp_path: Path) -> None:
    place = save_model(tmp_path, "ast")
    path = tmp_path / "preprocessor_config.json"
    told = json.loads(path.read_text())
    del told["sampling_rate"]
    path.write_text(json.dumps(told))
    with pytest.raises(EncoderUnfit, match=r"its preprocessor names no 'sampling_rate'\. Name a folder"):
        source_of("audio", place, is_frozen=True)


def test_an_id_of_the_hub_is_pinned_to_the_commit_it_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub's cache, as it lies on a machine that has loaded the model."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    held = tmp_path / "models--someone--tiny-vit"
    save_model(held / "snapshots" / commit, "vit")
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/tiny-vit", f"someone/tiny-vit@{commit}"):
        spec = source_of("image", name, is_frozen=True).spec
        assert isinstance(spec, PretrainedImage)
        assert (spec.source, spec.revision) == ("someone/tiny-vit", commit)
