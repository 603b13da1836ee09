from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.encoders.tiny_encoders import (
    AUDIO,
    AUDIO_SPECS,
    IMAGE,
    IMAGE_SPECS,
    SPECS,
    TEXT,
    TEXT_SPECS,
    inputs,
    tiny,
)
from training.encoders.build import build_encoder
from training.encoders.contract import Encoded, Encoder, EncoderUnfit
from training.encoders.specs import MelAudio

_tiny = cache(tiny)


def assert_same(found: Encoded, expected: Encoded) -> None:
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("rows", [1, 4])
@torch.inference_mode()
def test_an_encoder_gives_what_its_spec_announces(name: str, rows: int) -> None:
    spec, encoder = SPECS[name], _tiny(name)
    said = encoder(**inputs(name, rows=rows))
    assert said.tokens.shape == (rows, spec.tokens, spec.width)
    assert said.pooled.shape == (rows, spec.width)
    assert (encoder.tokens, encoder.width) == (spec.tokens, spec.width)


@pytest.mark.parametrize("name", TEXT_SPECS)
@given(length=st.integers(1, 20), padding=st.integers(1, 20), seed=st.integers(0, 99))
@settings(max_examples=12, deadline=None)
@torch.inference_mode()
def test_a_padded_text_answers_as_it_does_alone(name: str, length: int, padding: int, seed: int) -> None:
    encoder = _tiny(name)
    generator = torch.Generator().manual_seed(seed)
    alone = torch.randint(1, 60, (1, length), generator=generator, dtype=torch.int32)
    padded = torch.nn.functional.pad(alone, (0, padding), value=TEXT.pad_id)
    beside = torch.randint(1, 60, (1, length + padding), generator=generator, dtype=torch.int32)
    together = encoder(torch.cat([padded, beside]))
    assert_same(Encoded(together.tokens[:1], together.pooled[:1]), encoder(alone))


@pytest.mark.parametrize("name", AUDIO_SPECS)
@given(length=st.integers(400, 4_000), padding=st.integers(1, 3_000), seed=st.integers(0, 99))
@settings(max_examples=12, deadline=None)
@torch.inference_mode()
def test_a_padded_recording_answers_as_it_does_alone(name: str, length: int, padding: int, seed: int) -> None:
    """Whatever lies in the padding."""
    encoder = _tiny(name)
    sound = 0.3 * torch.randn(2, length + padding, generator=torch.Generator().manual_seed(seed))
    together = encoder(sound, torch.tensor([length, length + padding], dtype=torch.int32))
    alone = encoder(sound[:1, :length], torch.tensor([length], dtype=torch.int32))
    assert_same(Encoded(together.tokens[:1], together.pooled[:1]), alone)


@pytest.mark.parametrize("name", IMAGE_SPECS)
@torch.inference_mode()
def test_images_do_not_see_each_other(name: str) -> None:
    image = inputs(name, rows=5)["image"]
    together = _tiny(name)(image)
    for row in range(5):
        alone = _tiny(name)(image[row : row + 1])
        assert_same(alone, Encoded(together.tokens[row : row + 1], together.pooled[row : row + 1]))


@pytest.mark.parametrize("output", Encoded._fields)
@pytest.mark.parametrize("name", SPECS)
def test_either_output_trains_every_parameter(name: str, output: str) -> None:
    encoder = tiny(name).train()
    said = getattr(encoder(**inputs(name, rows=6)), output)
    (said * torch.randn_like(said)).sum().backward()
    for path, parameter in encoder.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.abs().sum() > 0, path


@pytest.mark.parametrize("name", SPECS)
def test_no_rows_are_encoded_to_no_rows_and_change_nothing(name: str) -> None:
    encoder = tiny(name).train()
    before = {path: values.clone() for path, values in encoder.state_dict().items()}
    said = encoder(**inputs(name, rows=0))
    assert said.tokens.shape == (0, encoder.tokens, encoder.width)
    assert said.pooled.shape == (0, encoder.width)
    (said.tokens.sum() + said.pooled.sum()).backward()
    assert all(not parameter.grad.any() for parameter in encoder.parameters() if parameter.grad is not None)
    torch.testing.assert_close(encoder.state_dict(), before)


@pytest.mark.parametrize("name", SPECS)
def test_one_row_can_be_trained_on(name: str) -> None:
    said = tiny(name).train()(**inputs(name, rows=1))
    said.pooled.sum().backward()
    assert said.pooled.isfinite().all()


@pytest.mark.parametrize("name", TEXT_SPECS)
@torch.inference_mode()
def test_a_text_of_padding_alone_gives_numbers(name: str) -> None:
    said = _tiny(name)(torch.zeros(2, 5, dtype=torch.int32))
    assert said.tokens.isfinite().all()
    assert said.pooled.isfinite().all()


@pytest.mark.parametrize("name", IMAGE_SPECS)
@pytest.mark.parametrize("value", [0, 255])
@torch.inference_mode()
def test_blank_images_give_numbers(name: str, value: int) -> None:
    blank = torch.full((1, IMAGE.height, IMAGE.width, 3), value, dtype=torch.uint8)
    assert _tiny(name)(blank).tokens.isfinite().all()


@pytest.mark.parametrize("name", AUDIO_SPECS)
@pytest.mark.parametrize("value", [0.0, 1.0])
@torch.inference_mode()
def test_silence_and_a_constant_give_numbers(name: str, value: float) -> None:
    said = _tiny(name)(torch.full((1, 2_000), value), torch.tensor([2_000], dtype=torch.int32))
    assert said.tokens.isfinite().all()


@torch.inference_mode()
def test_loudness_matters_little_to_a_relative_spectrogram() -> None:
    encoder, sound = _tiny("mel"), 0.1 * torch.randn(1, 4_000)
    length = torch.tensor([4_000], dtype=torch.int32)
    torch.testing.assert_close(
        encoder(sound, length).pooled, encoder(0.05 * sound, length).pooled, atol=1e-3, rtol=1e-3
    )


@torch.inference_mode()
def test_the_tokens_of_a_grid_are_where_they_look() -> None:
    """A change in the lower right corner moves the last token most, and the first not at all."""
    encoder = _tiny("residual")
    image = inputs("residual", rows=1)["image"]
    other = image.clone()
    other[:, -2:, -2:] = 255 - other[:, -2:, -2:]
    moved = (encoder(image).tokens - encoder(other).tokens).abs().amax(dim=2)[0]
    assert moved[0] == 0
    assert moved.argmax() == 8


@torch.inference_mode()
def test_the_tokens_of_a_text_are_its_parts_in_order() -> None:
    encoder = _tiny("n-grams in parts")
    text = torch.randint(1, 60, (1, 18), dtype=torch.int32)
    other = text.clone()
    other[0, :6] = 7
    moved = (encoder(text).tokens - encoder(other).tokens).abs().amax(dim=2)[0]
    assert moved[0] > 0
    assert moved[1] == moved[2] == 0


@pytest.mark.parametrize("name", SPECS)
def test_a_recipe_can_tell_its_specs_as_json(name: str) -> None:
    told = json.loads(json.dumps(asdict(SPECS[name])))
    assert told["width"] == SPECS[name].width


def test_a_grid_of_an_odd_number_of_cells_is_refused() -> None:
    spec = IMAGE_SPECS["plain"]
    with pytest.raises(ValueError, match="5 tokens of an image are not a square grid"):
        build_encoder(type(spec)(**{**asdict(spec), "tokens": 5}), IMAGE, vocabulary=None)


def test_a_window_longer_than_the_shortest_recording_is_refused() -> None:
    with pytest.raises(EncoderUnfit, match="Raise 'min_samples'"):
        build_encoder(MelAudio(channels=(2,), bands=8, width=4, window_s=0.1), AUDIO, vocabulary=None)


def test_an_encoder_for_another_modality_is_refused() -> None:
    with pytest.raises(TypeError, match="PlainImage does not read recordings"):
        build_encoder(SPECS["plain"], AUDIO, vocabulary=None)


def test_all_that_starts_at_random_is_the_encoders_own() -> None:
    encoder: Encoder = _tiny("mel")
    assert list(encoder.own_parameters()) == list(encoder.parameters())
    assert list(encoder.pretrained_parameters()) == []
