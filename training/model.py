"""The whole model, and the view of it that is exported.

`Model` is what training optimises. `Encoding` and `Fusing` are the graphs that a bundle holds: the latter
divides by the temperatures and gives what `app.bundle.manifest.Fusion` promises.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from app.bundle.manifest import Modality
from training.batch import Batch
from training.calibrate.sets import SetsOf
from training.encoders.build import build_encoder
from training.encoders.contract import Encoded, Encoder
from training.fusion.build import build_fusion
from training.fusion.contract import Fused
from training.recipe import Recipe
from training.subsets import mask_number


class Answers(NamedTuple):
    """Outputs of the exported graphs, in their order."""

    logits: Tensor
    probabilities: Tensor
    embedding: Tensor
    modality_probabilities: Tensor
    prediction_set: Tensor | None  # of models without conformal thresholds there is none


class Model(nn.Module):
    """Encoders, fusion, and what calibration fits.

    `temperatures` [2 ** modalities]: one for each presence mask read as a binary number, the first lowest.
    `modality_temperatures` [modalities]: one for each head that hears one modality.
    `sets` is None until conformal thresholds are fitted.
    """

    temperatures: Tensor
    modality_temperatures: Tensor

    def __init__(self, recipe: Recipe, *, vocabulary: int | None) -> None:
        super().__init__()
        self.names: tuple[Modality, ...] = recipe.inputs.names
        self.task = recipe.task
        self.encoders = nn.ModuleDict(
            {
                name: build_encoder(recipe.encoders[name], recipe.inputs.encoder(name), vocabulary=vocabulary)
                for name in self.names
            }
        )
        built = [self.encoder(name) for name in self.names]
        self.widths = tuple(encoder.width for encoder in built)
        self.tokens = tuple(encoder.tokens for encoder in built)
        self.fusion = build_fusion(
            recipe.fusion,
            widths=self.widths,
            labels=len(recipe.labels),
            task=recipe.task,
            modalities=self.names,
            answers=frozenset(name for name in self.names if self.encoder(name).says_labels),
            is_balanced=recipe.schedule.is_balanced and recipe.task == "classification",
        )
        self.register_buffer("temperatures", torch.ones(2 ** len(self.names)))
        self.register_buffer("modality_temperatures", torch.ones(len(self.names)))
        self.sets: SetsOf | None = None

    @property
    def device(self) -> torch.device:
        return self.temperatures.device

    def encoder(self, name: Modality) -> Encoder:
        built = self.encoders[name]
        assert isinstance(built, Encoder)
        return built

    def forward(self, batch: Batch) -> Fused:
        """Raw scores for training. As in serving, an encoder runs on the rows that have its modality."""
        encoded = [
            _spread(self._encoded(name, *part.inputs, is_seen=part.is_seen), part.rows, len(batch.present))
            for name, part in batch.parts.items()
        ]
        return self._fuse(encoded, batch.present)

    def _encoded(self, name: Modality, *inputs: Tensor, is_seen: bool) -> Encoded:
        encoder = self.encoder(name)
        if is_seen:
            return encoder.read(*inputs)
        encoded: Encoded = encoder(*inputs)
        return encoded

    def features(self, name: Modality, *inputs: Tensor, is_seen: bool = False) -> Tensor:
        """What an encoder says of each row, [rows, features]: its summary, and its tokens if fusion asks.

        `is_seen`: the inputs are what it saw of the rows.
        """
        encoded = self._encoded(name, *inputs, is_seen=is_seen)
        if not self.fusion.reads_tokens:
            return encoded.pooled
        return torch.cat([encoded.pooled, encoded.tokens.flatten(1)], dim=1)

    def feature_width(self, name: Modality) -> int:
        at = self.names.index(name)
        return self.widths[at] * (1 + self.tokens[at]) if self.fusion.reads_tokens else self.widths[at]

    def fuse(self, features: tuple[Tensor, ...], present: Tensor) -> Fused:
        """From features of every modality and bool [rows, modalities]; uncalibrated."""
        encoded = []
        for at, flat in enumerate(features):
            width = self.widths[at]
            tokens = (
                flat[:, width:].view(len(flat), self.tokens[at], width)
                if self.fusion.reads_tokens
                else flat.unsqueeze(1)
            )
            encoded.append(Encoded(tokens=tokens, pooled=flat[:, :width]))
        return self._fuse(encoded, present)

    def answer(self, features: tuple[Tensor, ...], present: Tensor) -> Answers:
        """Calibrated outputs. What an absent modality says on its own is that every class is as likely."""
        fused = self.fuse(features, present)
        logits = fused.logits / self.temperatures[mask_number(present)].unsqueeze(1)
        said = fused.modality_logits / self.modality_temperatures.view(1, -1, 1)
        alone = torch.where(
            present.unsqueeze(2), self.likelihood(said), self.likelihood(torch.zeros_like(said))
        )
        chosen = self.sets(logits, present) if self.sets is not None else None
        return Answers(logits, self.likelihood(logits), fused.embedding, alone, chosen)

    def likelihood(self, logits: Tensor) -> Tensor:
        """Over the last dimension: probabilities that sum to one, or one for each label by itself."""
        return torch.sigmoid(logits) if self.task == "multilabel" else torch.softmax(logits, dim=-1)

    def _fuse(self, encoded: list[Encoded], present: Tensor) -> Fused:
        fused: Fused = self.fusion(
            tuple(one.tokens for one in encoded), tuple(one.pooled for one in encoded), present
        )
        return fused


class Encoding(nn.Module):
    """encoders/NAME.onnx: prepared inputs in, features out."""

    def __init__(self, model: Model, name: Modality) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return self.model.features(self.name, *inputs)


class Fusing(nn.Module):
    """fusion.onnx: features and presence in, answers out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: tuple[Tensor, ...], present: Tensor) -> tuple[Tensor, ...]:
        return tuple(one for one in self.model.answer(features, present) if one is not None)


def _spread(encoded: Encoded, rows: Tensor, size: int) -> Encoded:
    """Zeros for the rows of the batch that are not in `rows`."""

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(size, *values.shape[1:]).index_copy(0, rows, values)

    return Encoded(tokens=spread(encoded.tokens), pooled=spread(encoded.pooled))


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
