"""What an encoder reads is what its own files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.bundle.manifest import AudioInput, ImageInput, Modality, TextInput
from tests.training.encoders.saved_models import save_model
from training.encoders.build import build_encoder
from training.encoders.contract import EncoderUnfit
from training.encoders.sources import FROM_SCRATCH, source_of


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("preprocessor", "resize", "height", "width"),
    [
        ({}, 16, 16, 16),  # the size that the model was built for
        ({"size": 32}, 32, 32, 32),
        ({"size": {"height": 24, "width": 32}}, 32, 24, 32),
        ({"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 16}, 20, 16, 16),
        (
            {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
            16, 16, 16,
        ),
        ({"size": {"shortest_edge": 20}, "do_center_crop": False, "crop_size": 16}, 20, 20, 20),
    ],
)  # fmt: skip
def test_images_are_as_large_as_the_preprocessor_makes_them(
    tmp_path: Path, preprocessor: dict[str, Any], resize: int, height: int, width: int
) -> None:
    place = save_model(tmp_path, "vit")
    change(tmp_path / "preprocessor_config.json", **preprocessor)
    reads = source_of("image", place, is_frozen=True).reads
    assert isinstance(reads, ImageInput)
    assert (reads.resize, reads.height, reads.width) == (resize, height, width)


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
