"""Every encoder that starts from scratch, tiny, and inputs that it reads."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from app.bundle.manifest import AudioInput, ImageInput, TextInput
from training.encoders.build import build_encoder
from training.encoders.contract import Encoder
from training.encoders.specs import (
    ConvText,
    DescribedImage,
    EncoderSpec,
    KernelAudio,
    KernelImage,
    KernelText,
    MelAudio,
    NgramText,
    PlainImage,
    RecallText,
    ResidualImage,
    StatisticAudio,
    TransformerText,
)

VOCABULARY: Final = 60

IMAGE: Final = ImageInput(
    encoder="image.onnx", features=6, max_bytes=1_000, resize=34, height=32, width=34, max_pixels=1_000
)
TEXT: Final = TextInput(
    encoder="text.onnx",
    features=6,
    max_bytes=1_000,
    tokenizer="tokenizer.json",
    pad_id=0,
    max_tokens=40,
    max_characters=1_000,
)
AUDIO: Final = AudioInput(
    encoder="audio.onnx", features=6, max_bytes=1_000, sample_rate=8_000, min_samples=400, max_seconds=2
)

IMAGE_SPECS: Final[dict[str, EncoderSpec]] = {
    "plain": PlainImage(channels=(3, 4, 4, 5), width=6),
    "plain in cells": PlainImage(channels=(3, 4, 4, 5), width=6, tokens=4),
    "residual": ResidualImage(channels=(4, 6), blocks=2, width=6, tokens=9),
    "residual grey": ResidualImage(channels=(4, 6), blocks=1, width=6, tokens=1, stem_stride=2, is_grey=True),
    "described": DescribedImage(width=6),
    "kernel": KernelImage(width=3),
}
TEXT_SPECS: Final[dict[str, EncoderSpec]] = {
    "convolution": ConvText(channels=8, width=6),
    "convolution in parts": ConvText(channels=8, width=6, tokens=3),
    "transformer": TransformerText(channels=8, layers=2, heads=2, width=6, tokens=4),
    "n-grams": NgramText(buckets=97, channels=5, hidden=7, width=6),
    "n-grams in parts": NgramText(buckets=97, channels=5, hidden=7, width=6, tokens=3, orders=(1, 2, 5)),
    "n-grams with ends": NgramText(
        buckets=97, channels=5, hidden=0, width=6, orders=(1, 3), has_ends=True, is_rooted=True
    ),
    "kernel of n-grams": KernelText(buckets=997, width=3, orders=(1, 2, 4)),
    "recall": RecallText(texts=20, buckets=97, width=6, orders=(1, 2)),
}
AUDIO_SPECS: Final[dict[str, EncoderSpec]] = {
    "mel": MelAudio(channels=(3, 4, 4, 5), bands=20, width=6, mask_bands=4, mask_frames=4),
    "mel residual": MelAudio(
        channels=(4, 6), bands=20, width=6, tokens=3, blocks=1, hop_s=0.02, is_relative=False
    ),
    "statistics": StatisticAudio(bands=20, width=6),
    "statistics of the whole": StatisticAudio(bands=20, width=6, parts=1),
    "kernel of statistics": KernelAudio(bands=20, width=3),
}
SPECS: Final = {**IMAGE_SPECS, **TEXT_SPECS, **AUDIO_SPECS}


def tiny(name: str) -> Encoder:
    """One of SPECS, in evaluation mode, with running moments that are not the ones it starts with."""
    torch.manual_seed(0)
    encoder = build_encoder(SPECS[name], _input_spec(name), vocabulary=VOCABULARY)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    if encoder.studies:
        targets = nn.functional.one_hot(torch.arange(18) % encoder.width, encoder.width)
        encoder.study([tuple(inputs(name, rows=18).values())], targets, torch.arange(18) // 6)
    return encoder.eval()


def inputs(name: str, *, rows: int) -> dict[str, Tensor]:
    """By the names of `forward`; rows are of different lengths."""
    if name in IMAGE_SPECS:
        return images(rows, IMAGE)
    return texts(rows, TEXT) if name in TEXT_SPECS else recordings(rows, AUDIO)


def images(rows: int, spec: ImageInput) -> dict[str, Tensor]:
    return {"image": torch.randint(256, (rows, spec.height, spec.width, 3), dtype=torch.uint8)}


def texts(rows: int, spec: TextInput, *, most: int | None = None) -> dict[str, Tensor]:
    length = torch.arange(rows) * 3 % (most or spec.max_tokens) + 1
    text = torch.randint(1, VOCABULARY, (rows, int(length.max()) if rows else 1), dtype=torch.int32)
    here = torch.arange(text.shape[1]) < length.unsqueeze(1)
    return {"text": torch.where(here, text, spec.pad_id).int()}


def recordings(rows: int, spec: AudioInput) -> dict[str, Tensor]:
    length = (spec.min_samples + 371 * torch.arange(rows)).int()
    samples = int(length.max()) if rows else spec.min_samples
    return {"audio": 0.3 * torch.randn(rows, samples), "audio_length": length}


def _input_spec(name: str) -> ImageInput | TextInput | AudioInput:
    if name in IMAGE_SPECS:
        return IMAGE
    return TEXT if name in TEXT_SPECS else AUDIO
