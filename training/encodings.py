"""Answers of a trained model for whole splits: each item is encoded once, however many rows it is in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.bundle.manifest import MODALITIES, Modality
from training.batch import Stock
from training.data.dataset import Rows
from training.fusion.contract import Fused
from training.fusion.prediction import Pool
from training.measure.subsets import groups_of
from training.model import Model
from training.subsets import mask_number, mask_of

_ITEMS: Final = 256  # encoded at once: long recordings are padded to the longest of these
_ROWS: Final = 2_000  # fused at once


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Of some rows, from one subset of modalities."""

    rows: Rows  # those that bring the subset
    logits: NDArray[np.float64]  # [rows, labels], divided by the subset's temperature
    probabilities: NDArray[np.float64]  # [rows, labels]
    groups: NDArray[np.int64]  # [rows], what is independent, see `groups_of`


@dataclass(frozen=True, slots=True, eq=False)
class Encodings:
    """Features [items, features] of one split's items, as `model` gives them, on the CPU.

    `instead` [items, labels] is what is said of a modality's items alone, instead of what the model says: by
    models that have not seen them. Only where answers are joined.
    """

    model: Model
    features: dict[Modality, Tensor]
    instead: dict[Modality, Tensor] = field(default_factory=dict)

    @torch.inference_mode()
    def raw(self, rows: Rows, present: Tensor) -> Fused:
        """Uncalibrated, from the `present` modalities: bool [rows, modalities of the model]."""
        parts = [self.fused(*chunk) for chunk in self._chunks(rows, present)]
        fused = Fused(
            logits=torch.cat([part.logits for part in parts]),
            embedding=torch.cat([part.embedding for part in parts]),
            modality_logits=torch.cat([part.modality_logits for part in parts]),
        )
        return self._with_what_others_said(fused, rows, present) if self.instead else fused

    @torch.inference_mode()
    def fused(self, features: tuple[Tensor, ...], present: Tensor) -> Fused:
        """Uncalibrated, of features of every modality; on the CPU, as they are, wherever the model is."""
        fused = self.model.fuse(*_moved(features, present, self.model.device))
        return Fused(fused.logits.cpu(), fused.embedding.cpu(), fused.modality_logits.cpu())

    def answers(self, rows: Rows, subset: str) -> Answered:
        """Calibrated, of the rows that bring the whole subset, as if only these modalities had been sent."""
        chosen = rows_with(rows, subset)
        logits = self.logits(chosen, subset)
        return Answered(chosen, logits, self.likelihood(logits), groups_of(chosen.groups, subset))

    @torch.inference_mode()
    def logits(self, rows: Rows, subset: str) -> NDArray[np.float64]:
        """Divided by the subset's temperature: float64 [rows, labels]. Rows without it get any answer."""
        present = presence_of(self.model.names, subset, len(rows))
        if self.instead:
            temperatures = self.model.temperatures.cpu()[mask_number(present)].unsqueeze(1)
            calibrated: NDArray[np.float64] = (self.raw(rows, present).logits / temperatures).double().numpy()
            return calibrated
        device = self.model.device
        said = [
            self.model.answer(*_moved(features, here, device)).logits.cpu().double()
            for features, here in self._chunks(rows, present)
        ]
        found: NDArray[np.float64] = torch.cat(said).numpy()
        return found

    def likelihood(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.model.likelihood(torch.from_numpy(logits)).numpy()
        return found

    def with_features(self, name: Modality, features: Tensor) -> Encodings:
        """The same, but for one modality."""
        return Encodings(self.model, self.features | {name: features})

    def _with_what_others_said(self, fused: Fused, rows: Rows, present: Tensor) -> Fused:
        fusion, said = self.model.fusion, fused.modality_logits.clone()
        assert isinstance(fusion, Pool), "only answers can be given by others"
        for name, logits in self.instead.items():
            items = torch.from_numpy(rows.items[:, MODALITIES.index(name)]).clamp(min=0)
            said[:, self.model.names.index(name)] = logits[items]
        device = self.model.device
        pooled = fusion.pool(said.to(device), present.to(device)).cpu()
        return Fused(pooled, fused.embedding, said)

    def _chunks(self, rows: Rows, present: Tensor) -> list[tuple[tuple[Tensor, ...], Tensor]]:
        columns = [MODALITIES.index(name) for name in self.model.names]
        items = torch.from_numpy(rows.items[:, columns]).clamp(min=0)  # what is absent is masked
        gathered = [
            tuple(self.features[name][chosen[:, at]] for at, name in enumerate(self.model.names))
            for chosen in items.split(_ROWS)  # type: ignore[no-untyped-call]
        ]
        return list(zip(gathered, present.split(_ROWS), strict=True))  # type: ignore[no-untyped-call]


def _moved(
    features: tuple[Tensor, ...], present: Tensor, device: torch.device
) -> tuple[tuple[Tensor, ...], Tensor]:
    return tuple(values.to(device) for values in features), present.to(device)


def encode(model: Model, stock: Stock, counts: dict[Modality, int]) -> Encodings:
    """Every item, after its change if there is one."""
    features = {name: encode_items(model, stock, name, counts[name]) for name in model.names}
    return Encodings(model, features)


@torch.inference_mode()
def encode_items(model: Model, stock: Stock, name: Modality, count: int) -> Tensor:
    """Features [items, features] of one modality, on the CPU."""
    if count == 0:  # no row has it; one row of zeros stands where a mask looks away
        return torch.zeros(1, model.feature_width(name))
    parts = []
    for start in range(0, count, _ITEMS):
        inputs = stock.gather(name, np.arange(start, min(start + _ITEMS, count)))
        here = tuple(values.to(model.device) for values in inputs)
        parts.append(model.features(name, *here, is_seen=stock.is_seen(name)).float().cpu())
    return torch.cat(parts)


def rows_with(rows: Rows, subset: str) -> Rows:
    """Those that bring every modality of the subset."""
    wanted = np.array(mask_of(subset))
    return rows.take((rows.present | ~wanted).all(axis=1))


def presence_of(names: tuple[Modality, ...], subset: str, rows: int) -> Tensor:
    """Bool [rows, modalities of the model]."""
    return torch.tensor([mask_of(subset, names)]).expand(rows, -1)
