"""Does the exported bundle answer as the model in torch does? On real rows, for every subset.

Two ways are held against torch: encoders and fusion through `app.runtime.predictor`, the class that the
server uses, and the fused graph that other ONNX servers use; in batches of several sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.bundle.folder import Bundle
from app.bundle.manifest import subsets
from app.bundle.sample import Arrays, Sample, side_by_side
from app.runtime.agreement import MOST_DIFFERENCE, SIZES
from app.runtime.predictor import Predictor
from app.runtime.session import Device, Session, open_session
from training.model import Model
from training.subsets import mask_of, modalities_of

MOST_STEP: Final = 0.2  # of a logit, where a rounding falls the other way; 0.015 seen on `digits`
_CPU: Final = Device("cpu")


class ParityBroken(Exception):
    """The exported graphs answer otherwise than the model: nothing may be published."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Over all subsets. A flip is a row whose label differs."""

    rows: int
    split_difference: float
    fused_difference: float
    flips: int


def check_parity(
    model: Model,
    bundle: Bundle,
    samples: list[Sample],
    *,
    sizes: tuple[int, ...] = SIZES,
    most_difference: float = MOST_DIFFERENCE,
) -> Parity:
    """`samples` have all modalities; the last of `sizes` is repeated. Raises ParityBroken."""
    predictor = Predictor.open(bundle, device=_CPU, threads=1)
    fused = open_session(bundle.files[bundle.manifest.fusion.fused], name="fused", device=_CPU, threads=1)
    split_difference = fused_difference = 0.0
    flips = 0
    for subset in subsets(model.names):
        for batch in _batches(samples, sizes):
            expected = _torch_logits(model, batch, subset, bundle)
            by_split = np.stack([row.logits for row in predictor.run([_only(s, subset) for s in batch])])
            by_fused = _fused_logits(fused, batch, subset, bundle)
            split_difference = max(split_difference, _difference(expected, by_split))
            fused_difference = max(fused_difference, _difference(expected, by_fused))
            flips += _flips(expected, by_split) + _flips(expected, by_fused)
    found = Parity(len(samples), split_difference, fused_difference, flips)
    is_same = flips == 0 or most_difference > MOST_DIFFERENCE
    if not (max(split_difference, fused_difference) <= most_difference and is_same):
        raise ParityBroken(
            f"exported logits differ from torch by {split_difference:.1e} (split) and {fused_difference:.1e} "
            f"(fused), {most_difference:.0e} is allowed; {flips} labels differ. Nothing was published."
        )
    return found


def check_rounded_parity(model: Model, bundle: Bundle, samples: list[Sample]) -> Parity:
    """The same of a variant, whose graphs round what they compute with. Raises ParityBroken.

    Every row alone is held to what float32 is held to. In a batch, a recording is padded one way by the fused
    graph and another way by the server; that moves float32 by a millionth, and where a number then lies on
    the other side of a half, the rounding moves it by a whole step.
    """
    check_parity(model, bundle, samples, sizes=(1,))
    return check_parity(model, bundle, samples, most_difference=MOST_STEP)


def _batches(samples: list[Sample], sizes: tuple[int, ...]) -> Iterator[list[Sample]]:
    """All samples, in batches of these sizes, by default of 1, 2, 5 and then 64."""
    start = 0
    for size in [*sizes, *[sizes[-1]] * (len(samples) // sizes[-1])]:
        if batch := samples[start : start + size]:
            yield batch
        start += size


def _only(sample: Sample, subset: str) -> Sample:
    kept = modalities_of(subset)
    return Sample(
        image=sample.image if "image" in kept else None,
        text=sample.text if "text" in kept else None,
        audio=sample.audio if "audio" in kept else None,
    )


def _arrays(samples: list[Sample], bundle: Bundle) -> Arrays:
    inputs = bundle.manifest.inputs
    arrays: Arrays = {}
    for modality in inputs.names:
        arrays |= side_by_side(modality, samples, inputs)
    return arrays


def _torch_logits(model: Model, batch: list[Sample], subset: str, bundle: Bundle) -> NDArray[np.float32]:
    """Content of absent modalities is there all the same, and must not matter."""
    inputs = bundle.manifest.inputs
    present = torch.tensor([mask_of(subset, model.names)] * len(batch))
    with torch.inference_mode():
        features = tuple(
            model.features(
                name, *(torch.from_numpy(one.copy()) for one in side_by_side(name, batch, inputs).values())
            )
            for name in model.names
        )
        logits: NDArray[np.float32] = model.answer(features, present).logits.numpy()
    return logits


def _fused_logits(fused: Session, batch: list[Sample], subset: str, bundle: Bundle) -> NDArray[np.generic]:
    present = np.array([mask_of(subset, bundle.manifest.inputs.names)] * len(batch))
    return fused.run({**_arrays(batch, bundle), "present": present})["logits"]


def _difference(expected: NDArray[np.float32], found: NDArray[np.generic]) -> float:
    """Infinite when something is not a number: NaN would pass a comparison unseen."""
    largest = float(np.abs(expected - found.astype(np.float32)).max())
    return largest if np.isfinite(largest) else float("inf")


def _flips(expected: NDArray[np.float32], found: NDArray[np.generic]) -> int:
    return int((expected.argmax(axis=1) != found.astype(np.float32).argmax(axis=1)).sum())
