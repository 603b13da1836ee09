from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import ASTFeatureExtractor, AutoModel

from app.bundle.manifest import AudioInput, ImageInput, TextInput
from app.bundle.prepare import TextPreparer
from tests.training.encoders.exported import assert_exports
from tests.training.encoders.saved_models import KINDS, NORMALISATION, PIXELS, SAMPLES, TOKENS, save_model
from tests.training.encoders.tiny_encoders import VOCABULARY, images, recordings, texts
from training.encoders.build import build_encoder
from training.encoders.contract import Encoded, Encoder, EncoderUnfit
from training.encoders.pretrained import PretrainedEncoder, PretrainedImageEncoder, pretrained_tokenizer
from training.encoders.pretrained_audio import SpectrogramEncoder
from training.encoders.specs import PretrainedAudio, PretrainedImage, PretrainedText

PretrainedSpec = PretrainedImage | PretrainedText | PretrainedAudio
Sources = Callable[[str], str]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Folder of a saved model by its kind; each is saved once."""
    saved: dict[str, str] = {}

    def source(kind: str) -> str:
        if kind not in saved:
            saved[kind] = save_model(tmp_path_factory.mktemp(kind), kind)
        return saved[kind]

    return source


def spec_of(kind: str, source: str, *, is_frozen: bool) -> PretrainedSpec:
    match KINDS[kind]:
        case ImageInput():
            return PretrainedImage(source, width=6, tokens=4, is_frozen=is_frozen)
        case TextInput():
            return PretrainedText(source, width=6, tokens=3, is_frozen=is_frozen)
        case AudioInput():
            return PretrainedAudio(source, width=6, tokens=3, is_frozen=is_frozen)


def build(kind: str, sources: Sources, *, is_frozen: bool = True) -> PretrainedEncoder:
    torch.manual_seed(0)
    spec = spec_of(kind, sources(kind), is_frozen=is_frozen)
    encoder: Encoder = build_encoder(spec, KINDS[kind], vocabulary=VOCABULARY)
    assert isinstance(encoder, PretrainedEncoder)
    return encoder


def inputs(kind: str, *, rows: int) -> dict[str, Tensor]:
    match KINDS[kind]:
        case ImageInput() as spec:
            return images(rows, spec)
        case TextInput() as spec:
            return texts(rows, spec)
        case AudioInput() as spec:
            return recordings(rows, spec)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_backbone_answers_alike_in_training_and_learns_nothing(kind: str, sources: Sources) -> None:
    encoder = build(kind, sources).train()
    batch = inputs(kind, rows=3)
    said = encoder(**batch)
    assert said.tokens.shape == (3, encoder.tokens, 6)
    torch.testing.assert_close(said.pooled, encoder.eval()(**batch).pooled)
    said.pooled.sum().backward()
    assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
    assert list(encoder.pretrained_parameters()) == []
    assert {id(p) for p in encoder.own_parameters()} == {id(p) for p in encoder.readout.parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tuned_backbone_learns_in_every_parameter_that_is_not_frozen(kind: str, sources: Sources) -> None:
    encoder = build(kind, sources, is_frozen=False)
    assert encoder.backbone.training
    said = encoder(**inputs(kind, rows=4))
    (said.tokens * torch.randn_like(said.tokens)).sum().backward()
    pretrained, own = list(encoder.pretrained_parameters()), list(encoder.own_parameters())
    assert all(parameter.grad is not None for parameter in pretrained + own)
    assert len(pretrained) > 10
    trained = {id(p) for p in encoder.parameters() if p.requires_grad}
    assert sorted(id(p) for p in pretrained + own) == sorted(trained)


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_are_encoded_to_no_rows(kind: str, sources: Sources) -> None:
    encoder = build(kind, sources, is_frozen=False).train()
    said = encoder(**inputs(kind, rows=0))
    assert said.tokens.shape == (0, encoder.tokens, 6)
    said.tokens.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in encoder.pretrained_parameters())


@pytest.mark.parametrize(
    "kind",  # vit, bert and ast: of the trio of tests/training/recipes/test_finetune.py
    [
        "resnet",
        "wav2vec2",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("vit", "bert", "ast")),
    ],
)
def test_the_graph_answers_as_the_encoder_for_any_number_of_rows(kind: str, sources: Sources) -> None:
    batches = [inputs(kind, rows=rows) for rows in (3, 1, 2, 5)]
    if isinstance(KINDS[kind], AudioInput):  # of silence there is no variance and no logarithm
        batches.append({**batches[0], "audio": torch.zeros_like(batches[0]["audio"])})
    assert_exports(build(kind, sources), *batches)


def test_a_tuned_backbone_keeps_the_moments_of_its_batch_norms(sources: Sources) -> None:
    encoder = build("resnet", sources, is_frozen=False).train()
    before = {name: values.clone() for name, values in encoder.named_buffers()}
    encoder(**inputs("resnet", rows=0))
    encoder(**inputs("resnet", rows=5))
    torch.testing.assert_close(dict(encoder.named_buffers()), before, atol=0, rtol=0)


# --- padding --------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_padded_text_answers_as_it_does_alone(sources: Sources) -> None:
    encoder = build("bert", sources).eval()

    @given(length=st.integers(1, 12), padding=st.integers(1, 12))
    @settings(max_examples=10, deadline=None)
    def holds(length: int, padding: int) -> None:
        alone = torch.randint(1, VOCABULARY, (1, length), dtype=torch.int32)
        assert_same(encoder(torch.nn.functional.pad(alone, (0, padding))), encoder(alone))

    holds()
    assert encoder(torch.zeros(2, 5, dtype=torch.int32)).tokens.isfinite().all()


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "ast"])
@torch.inference_mode()
def test_a_padded_recording_answers_as_it_does_alone(kind: str, sources: Sources) -> None:
    encoder = build(kind, sources).eval()

    @given(length=st.integers(800, 9_000), padding=st.integers(1, 3_000))
    @settings(max_examples=10, deadline=None)
    def holds(length: int, padding: int) -> None:
        sound = 0.3 * torch.randn(2, length + padding) + 0.05
        together = encoder(sound, torch.tensor([length, length + padding], dtype=torch.int32))
        alone = encoder(sound[:1, :length], torch.tensor([length], dtype=torch.int32))
        assert_same(Encoded(together.tokens[:1], together.pooled[:1]), alone)

    holds()
    silence = torch.zeros(1, 2_000), torch.tensor([2_000], dtype=torch.int32)
    assert encoder(*silence).tokens.isfinite().all()


def assert_same(found: Encoded, expected: Encoded) -> None:
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-5, rtol=0)


# --- as the authors' own code has it --------------------------------------------------------------


@torch.inference_mode()
def test_pixels_are_scaled_as_the_model_says(sources: Sources) -> None:
    encoder = build("vit", sources).eval()
    assert isinstance(encoder, PretrainedImageEncoder)
    image = images(2, PIXELS)["image"]
    mean, deviation = (np.array(NORMALISATION[name]) for name in ("image_mean", "image_std"))
    scaled = torch.from_numpy(((image.numpy() / 255 - mean) / deviation).transpose(0, 3, 1, 2)).float()
    states = AutoModel.from_pretrained(sources("vit"))(pixel_values=scaled).last_hidden_state
    corner = states[:, 1:].view(2, 4, 4, 16)[:, 2:, 2:].mean(dim=(1, 2))
    heard = torch.cat([corner, states[:, 0]], dim=1)
    expected = encoder.readout.out(encoder.readout.norm(heard))
    torch.testing.assert_close(encoder(image).tokens[:, 3], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
@torch.inference_mode()
def test_waves_take_the_steps_of_the_model(kind: str, sources: Sources) -> None:
    encoder = build(kind, sources).eval()
    sound = 0.2 * torch.randn(2, 3_000) + 0.1
    normal = (sound - sound.mean(1, keepdim=True)) / sound.std(1, correction=0, keepdim=True)
    states = AutoModel.from_pretrained(sources(kind)).eval()(normal).last_hidden_state
    expected = encoder.readout(states, torch.ones(states.shape[:2], dtype=torch.bool))
    assert_same(encoder(sound, torch.tensor([3_000, 3_000], dtype=torch.int32)), expected)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values:UserWarning")
@torch.inference_mode()
def test_a_spectrogram_model_reads_what_its_own_extractor_makes(sources: Sources) -> None:
    """Cut where it is too long, padded where it is too short."""
    encoder = build("ast", sources).eval()
    assert isinstance(encoder, SpectrogramEncoder)
    theirs = ASTFeatureExtractor(num_mel_bins=32, max_length=40, mean=-4.27, std=4.57)
    length = torch.tensor([3_000, 9_000], dtype=torch.int32)
    sound = 0.3 * torch.randn(2, 9_000)
    rows = [sound[row, :samples].numpy() for row, samples in enumerate(length.tolist())]
    expected = torch.from_numpy(np.stack(theirs(rows, sampling_rate=16_000)["input_values"]))
    torch.testing.assert_close(encoder.spectrogram(sound, length), expected, atol=1e-3, rtol=0)
    states = AutoModel.from_pretrained(sources("ast")).eval()(expected).last_hidden_state
    patches = states[:, 2:].view(2, 3, 4, 16).mean(dim=1)  # three of bands, four of time
    valid = torch.tensor([[True, True, True, False], [True] * 4])  # 17 frames and 54, a patch every 8
    expected_answer = encoder.readout(patches, valid, states[:, :2].mean(dim=1))
    torch.testing.assert_close(encoder(sound, length).tokens, expected_answer.tokens, atol=1e-3, rtol=0)


def test_a_tokenizer_goes_into_the_bundle_as_it_is(sources: Sources) -> None:
    tokenizer_json, pad_id = pretrained_tokenizer(sources("bert"))
    assert pad_id == 0
    ids, _ = TextPreparer(tokenizer_json, TOKENS)("one two three four one")
    assert ids.tolist() == [2, 4, 5, 6, 1, 4, 3]  # special tokens around, nothing cut, nothing padded


# --- refused --------------------------------------------------------------------------------------


def test_another_sampling_rate_is_refused(sources: Sources) -> None:
    spec = spec_of("wav2vec2", sources("wav2vec2"), is_frozen=True)
    with pytest.raises(EncoderUnfit, match="hears 16000 Hz, the manifest says 8000"):
        build_encoder(spec, SAMPLES.model_copy(update={"sample_rate": 8_000}), vocabulary=None)


@pytest.mark.parametrize(("kind", "least"), [("wav2vec2", 20), ("ast", 400)])
def test_recordings_shorter_than_a_frame_are_refused(kind: str, least: int, sources: Sources) -> None:
    spec = spec_of(kind, sources(kind), is_frozen=True)
    with pytest.raises(EncoderUnfit, match=f"Raise it to {least}"):
        build_encoder(spec, SAMPLES.model_copy(update={"min_samples": least - 1}), vocabulary=None)
    build_encoder(spec, SAMPLES.model_copy(update={"min_samples": least}), vocabulary=None)


def test_longer_texts_than_the_model_has_positions_for_are_refused(sources: Sources) -> None:
    spec = spec_of("bert", sources("bert"), is_frozen=True)
    with pytest.raises(EncoderUnfit, match=r"cannot read what the manifest promises, \[1, 25\]"):
        build_encoder(spec, TOKENS.model_copy(update={"max_tokens": 25}), vocabulary=VOCABULARY)


def test_a_tokenizer_of_another_model_is_refused(sources: Sources) -> None:
    spec = spec_of("bert", sources("bert"), is_frozen=True)
    with pytest.raises(EncoderUnfit, match="the tokenizer has 61 ids"):
        build_encoder(spec, TOKENS, vocabulary=61)


def test_images_of_another_size_are_refused(sources: Sources) -> None:
    spec = spec_of("vit", sources("vit"), is_frozen=True)
    with pytest.raises(EncoderUnfit, match="cannot read images of this size"):
        build_encoder(spec, PIXELS.model_copy(update={"width": 12}), vocabulary=None)


def test_a_model_of_an_unknown_kind_is_refused(sources: Sources, tmp_path: Path) -> None:
    source = save_model(tmp_path, "bert")
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 16000}')
    spec = replace(spec_of("ast", sources("ast"), is_frozen=True), source=source)
    with pytest.raises(EncoderUnfit, match="a model of type bert"):
        build_encoder(spec, SAMPLES, vocabulary=None)


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    source = save_model(tmp_path, "bert")
    weights = AutoModel.from_pretrained(source).state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderUnfit, match="safetensors"):
        build_encoder(PretrainedText(source, width=4), TOKENS, vocabulary=VOCABULARY)
