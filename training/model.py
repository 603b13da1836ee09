"""The whole model, and the view of it that is exported.

`Model` is what training optimises. `Fusing` and `Answering` are the two graphs with a presence mask that a
bundle holds: they divide by the temperatures and give what `app.bundle.manifest.Fusion` promises.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from app.bundle.manifest import MODALITIES, Modality, subset_name, subsets
from training.encoders.build import build_encoder
from training.encoders.contract import Encoder
from training.encoders.specs import ConvText, MelAudio, PlainImage
from training.fusion import ConcatFusion, Fused
from training.recipe import Recipe

SUBSETS = subsets(MODALITIES)


class Answers(NamedTuple):
    """Outputs of the exported graphs, in their order."""

    logits: Tensor
    probabilities: Tensor
    embedding: Tensor
    modality_probabilities: Tensor


class Model(nn.Module):
    """Encoders, fusion, and the temperatures that calibration fits.

    `temperatures` [2 ** modalities]: one for each presence mask read as a binary number, image lowest.
    `modality_temperatures` [modalities]: one for each head that hears one modality.
    """

    temperatures: Tensor
    modality_temperatures: Tensor

    def __init__(self, recipe: Recipe, *, vocabulary: int) -> None:
        super().__init__()
        spec, widths = recipe.inputs, recipe.widths
        assert spec.image is not None, "this model reads images"
        assert spec.text is not None, "this model reads texts"
        assert spec.audio is not None, "this model reads recordings"
        plain = PlainImage(channels=widths.image_channels, width=spec.image.features)
        self.image = _ImageFeatures(build_encoder(plain, spec.image, vocabulary=None))
        conv = ConvText(channels=widths.text_channels, width=spec.text.features)
        self.text = _TextFeatures(build_encoder(conv, spec.text, vocabulary=vocabulary))
        self.audio = _AudioFeatures(build_encoder(audio_spec(recipe), spec.audio, vocabulary=None))
        self.fusion = ConcatFusion(
            features=tuple(spec.encoder(name).features for name in MODALITIES),
            joint=widths.joint,
            embedding=widths.embedding,
            labels=len(recipe.labels),
        )
        self.register_buffer("temperatures", torch.ones(2 ** len(MODALITIES)))
        self.register_buffer("modality_temperatures", torch.ones(len(MODALITIES)))

    def forward(
        self, image: Tensor, text: Tensor, audio: Tensor, audio_length: Tensor, present: Tensor
    ) -> Fused:
        """Scores for training. As in serving, an encoder runs on the rows that have its modality."""
        features = (
            _where_present(self.image, present[:, 0], image),
            _where_present(self.text, present[:, 1], text),
            _where_present(self.audio, present[:, 2], audio, audio_length),
        )
        fused: Fused = self.fusion(features, present)
        return fused

    def answer(self, features: tuple[Tensor, Tensor, Tensor], present: Tensor) -> Answers:
        """Calibrated outputs. What an absent modality says is that every class is as likely."""
        fused: Fused = self.fusion(features, present)
        logits = fused.logits / self.temperatures[mask_number(present)].unsqueeze(1)
        said = torch.softmax(fused.modality_logits / self.modality_temperatures.view(1, -1, 1), dim=2)
        said = torch.where(present.unsqueeze(2), said, 1 / said.shape[2])
        return Answers(logits, torch.softmax(logits, dim=1), fused.embedding, said)


class _ImageFeatures(nn.Module):
    """What fusion reads of an image: the pooled vector."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        pooled: Tensor = self.encoder(image).pooled
        return pooled


class _TextFeatures(nn.Module):
    """Likewise of a text."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, text: Tensor) -> Tensor:
        pooled: Tensor = self.encoder(text).pooled
        return pooled


class _AudioFeatures(nn.Module):
    """Likewise of a recording."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, audio: Tensor, audio_length: Tensor) -> Tensor:
        pooled: Tensor = self.encoder(audio, audio_length).pooled
        return pooled


def audio_spec(recipe: Recipe) -> MelAudio:
    audio = recipe.inputs.audio
    assert audio is not None
    return MelAudio(
        channels=recipe.widths.audio_channels,
        bands=recipe.widths.mel_bands,
        width=audio.features,
        mask_bands=recipe.audio_augmentation.mask_bands,
        mask_frames=recipe.audio_augmentation.mask_frames,
    )


class Fusing(nn.Module):
    """fusion.onnx: features and presence in, answers out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image_features: Tensor, text_features: Tensor, audio_features: Tensor, present: Tensor
    ) -> Answers:
        return self.model.answer((image_features, text_features, audio_features), present)


class Answering(nn.Module):
    """fused.onnx: prepared inputs and presence in, answers out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image: Tensor, text: Tensor, audio: Tensor, audio_length: Tensor, present: Tensor
    ) -> Answers:
        model = self.model
        return model.answer((model.image(image), model.text(text), model.audio(audio, audio_length)), present)


def _where_present(encoder: nn.Module, here: Tensor, *inputs: Tensor) -> Tensor:
    """Features [rows, features] of the rows that are `here`, zeros for the others."""
    rows = here.nonzero().squeeze(1)
    features: Tensor = encoder(*(values[rows] for values in inputs))
    return features.new_zeros(len(here), features.shape[1]).index_copy(0, rows, features)


def mask_number(present: Tensor) -> Tensor:
    """Bool [rows, modalities] read as binary numbers, the first modality lowest: int64 [rows]."""
    bits = 2 ** torch.arange(present.shape[1], device=present.device)
    return torch.where(present, bits, 0).sum(dim=1)


def mask_of(subset: str) -> tuple[bool, ...]:
    """`'image+audio'` -> `(True, False, True)`."""
    chosen = subset.split("+")
    assert subset_name(tuple(name for name in MODALITIES if name in chosen)) == subset, f"no subset {subset}"
    return tuple(name in chosen for name in MODALITIES)


def modalities_of(subset: str) -> tuple[Modality, ...]:
    return tuple(name for name, here in zip(MODALITIES, mask_of(subset), strict=True) if here)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
