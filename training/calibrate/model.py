"""All that is fitted on validation rows, and never on test rows, put into the model that is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, subsets
from training.calibrate.conformal import Conformal, KnownRows, Method, TooFewRows, fit_conformal
from training.calibrate.prior import class_prior, label_prior
from training.calibrate.sets import SetsOf
from training.calibrate.temperature import fit_label_temperature, fit_temperature, independent_rows
from training.data.dataset import Rows
from training.encodings import Encodings, presence_of, rows_with
from training.measure.subsets import groups_of
from training.model import Model
from training.subsets import mask_number, mask_of, modalities_of

LEVEL: Final = 0.90
METHOD: Final[Method] = "lac"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What the manifest tells. `conformal` is None where there are too few rows, or several labels a row."""

    temperatures: dict[str, float]
    modality_temperatures: dict[str, float]
    prior: tuple[float, ...]
    conformal: Conformal | None


def calibrate(encodings: Encodings, rows: Rows) -> Calibrated:
    """On the validation rows of the split that was encoded. Sets the model's buffers."""
    model = encodings.model
    temperatures = _set_temperatures(encodings, rows)
    return Calibrated(
        temperatures=temperatures,
        modality_temperatures=dict(
            zip(model.names, (round(t, 4) for t in model.modality_temperatures.tolist()), strict=True)
        ),
        prior=tuple(_prior(model, rows).tolist()),
        conformal=_set_sets(encodings, rows),
    )


def settle(encodings: Encodings, rows: Rows, *, seed: int) -> None:
    """Let the fusion fit what it fits on held-out predictions, in place."""
    model = encodings.model
    columns = [MODALITIES.index(name) for name in model.names]
    available = torch.from_numpy(rows.present[:, columns])
    said = encodings.raw(rows, available).modality_logits
    model.fusion.settle(said.clone(), available, torch.from_numpy(rows.targets), seed=seed)


@torch.inference_mode()
def _set_temperatures(encodings: Encodings, rows: Rows) -> dict[str, float]:
    model = encodings.model
    found: dict[str, float] = {}
    for subset in subsets(model.names):
        chosen = rows_with(rows, subset)
        present = presence_of(model.names, subset, len(chosen))
        raw = encodings.raw(chosen, present)
        groups = groups_of(chosen.groups, subset)
        targets = torch.from_numpy(chosen.targets)
        fit = fit_label_temperature if model.task == "multilabel" else fit_temperature
        units = independent_rows(_is_wrong(raw.logits, targets), groups)
        found[subset] = fit(raw.logits, targets, units=units)
        mask = torch.tensor([mask_of(subset, model.names)])
        model.temperatures[mask_number(mask)] = found[subset]
        if "+" not in subset:
            at = model.names.index(subset)
            model.modality_temperatures[at] = fit(raw.modality_logits[:, at], targets, units=units)
    return found


def _is_wrong(logits: torch.Tensor, targets: torch.Tensor) -> NDArray[np.bool_]:
    """[rows]: another class than the right one, or any label wrong."""
    if targets.ndim == 1:
        wrong = logits.argmax(dim=1) != targets
    else:
        wrong = ((logits > 0) != (targets > 0)).any(dim=1)
    found: NDArray[np.bool_] = wrong.numpy()
    return found


def _set_sets(encodings: Encodings, rows: Rows) -> Conformal | None:
    model = encodings.model
    if model.task == "multilabel":
        return None
    try:
        conformal = fit_conformal(known_rows(encodings, rows), level=LEVEL)
    except TooFewRows:
        return None
    sets = SetsOf(conformal.thresholds(METHOD), method=METHOD, modalities=model.names)
    model.sets = sets.to(model.device)
    return conformal


def known_rows(encodings: Encodings, rows: Rows) -> dict[str, KnownRows]:
    """What the calibrated model says about the rows of every subset."""
    answered = {subset: encodings.answers(rows, subset) for subset in subsets(encodings.model.names)}
    return {
        subset: KnownRows(one.logits, one.rows.targets.astype(np.int64), _groups(one.rows, subset))
        for subset, one in answered.items()
        if len(one.rows)
    }


def _groups(rows: Rows, subset: str) -> NDArray[np.int64]:
    """[rows, modalities of the subset]."""
    return rows.groups[:, [MODALITIES.index(name) for name in modalities_of(subset)]]


def _prior(model: Model, rows: Rows) -> NDArray[np.float64]:
    if model.task == "multilabel":
        return label_prior(rows.targets.astype(np.float32))
    return class_prior(rows.targets.astype(np.int64), labels=model.fusion.shape.labels)
