"""Does a bundle agree with itself, and with what it answered at export, whatever is asked for together?

Every golden case, and every subset of one that has all modalities, is answered alone and in batches of
several sizes, subsets mixed; by the encoders and the fusion, and by the fused graph that other ONNX servers
run. Slower than the replay of golden.py, which a server does before a version goes live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.folder import Bundle
from app.bundle.golden import load_golden
from app.bundle.manifest import Inputs, Modality, subset_name, subsets
from app.bundle.sample import Arrays, Sample, side_by_side
from app.runtime.errors import GraphsDisagree
from app.runtime.golden import golden_samples
from app.runtime.predictor import Predictor
from app.runtime.session import Session, open_session

SIZES: Final = (1, 2, 5, 64)
MOST_DIFFERENCE: Final = 1e-4  # of a logit


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of answers that were compared, the largest differences of a logit."""

    answers: int
    subsets: tuple[str, ...]
    split_difference: float  # of encoders and fusion, in batches and from export
    fused_difference: float  # of the fused graph


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    sample: Sample
    logits: NDArray[np.float32]  # [labels], as recorded at export, else of the sample alone


def check_agreement(bundle: Bundle, predictor: Predictor) -> Agreement:
    """For float32 graphs. Raises GraphsDisagree, naming the case, or GraphInvalid."""
    fused = open_session(
        bundle.files[bundle.manifest.fusion.fused],
        name=bundle.manifest.fusion.fused,
        device=predictor.device,
        threads=1,
    )
    rows = _rows(bundle, predictor)
    split_difference = fused_difference = 0.0
    answers = 0
    for size in SIZES:
        for batch in _batches(rows, size):
            by_split = np.stack([one.logits for one in predictor.run([row.sample for row in batch])])
            by_fused = fused_logits(fused, [row.sample for row in batch], bundle.manifest.inputs)
            split_difference = max(
                split_difference, _compared(batch, by_split, "the encoders and the fusion")
            )
            fused_difference = max(fused_difference, _compared(batch, by_fused, "the fused graph"))
            answers += 2 * len(batch)
    found = dict.fromkeys(subset_name(row.sample.present) for row in rows)
    return Agreement(answers, tuple(found), split_difference, fused_difference)


def fused_logits(fused: Session, samples: list[Sample], inputs: Inputs) -> NDArray[np.float32]:
    """float32 [rows, labels]. What a sample lacks is blank in the graph's inputs, and must not matter."""
    present = np.array([[sample.has(name) for name in inputs.names] for sample in samples])
    whole = [_filled(sample, inputs) for sample in samples]
    arrays: Arrays = {"present": present}
    for name in inputs.names:
        arrays |= side_by_side(name, whole, inputs)
    return fused.run(arrays)["logits"].astype(np.float32, copy=False)


def _rows(bundle: Bundle, predictor: Predictor) -> list[_Row]:
    """The golden cases, and what is left of the whole ones if modalities are taken away."""
    names = bundle.manifest.inputs.names
    rows: list[_Row] = []
    cases = load_golden(bundle.manifest, bundle.files)
    for case, sample in zip(cases, golden_samples(bundle, predictor), strict=True):
        recorded = None if case.logits is None else np.array(case.logits, np.float32)
        rows.append(_Row(case.name, sample, _alone(predictor, sample) if recorded is None else recorded))
        if sample.present == names:
            parts = {subset: _only(sample, subset) for subset in subsets(names)[:-1]}
            rows += [
                _Row(f"{case.name}, {subset} of it", part, _alone(predictor, part))
                for subset, part in parts.items()
            ]
    return rows


def _alone(predictor: Predictor, sample: Sample) -> NDArray[np.float32]:
    [outputs] = predictor.run([sample])
    return outputs.logits


def _batches(rows: list[_Row], size: int) -> Iterator[list[_Row]]:
    """All rows, repeated from the first one until the last batch is full."""
    count = -(-len(rows) // size)
    endless = cycle(rows)
    for _ in range(count):
        yield list(islice(endless, size))


def _compared(batch: list[_Row], found: NDArray[np.float32], who: str) -> float:
    """The largest difference of a logit. Raises GraphsDisagree."""
    largest = 0.0
    for row, logits in zip(batch, found, strict=True):
        difference = float(np.abs(row.logits - logits).max())
        is_flipped = row.logits.argmax() != logits.argmax()
        if is_flipped or not difference <= MOST_DIFFERENCE:  # also when it is NaN
            raise GraphsDisagree(
                f"golden case '{row.name}': in a batch of {len(batch)} {who} differ by {difference:.1e} of a "
                f"logit ({MOST_DIFFERENCE:.0e} is allowed){' and give another label' if is_flipped else ''}. "
                "Export the bundle again."
            )
        largest = max(largest, difference)
    return largest


def _only(sample: Sample, subset: str) -> Sample:
    kept = subset.split("+")
    return Sample(
        image=sample.image if "image" in kept else None,
        text=sample.text if "text" in kept else None,
        audio=sample.audio if "audio" in kept else None,
    )


def _filled(sample: Sample, inputs: Inputs) -> Sample:
    blank: dict[Modality, NDArray[np.generic]] = {}
    if inputs.image is not None and sample.image is None:
        blank["image"] = np.zeros((inputs.image.height, inputs.image.width, 3), np.uint8)
    if inputs.text is not None and sample.text is None:
        blank["text"] = np.full(1, inputs.text.pad_id, np.int32)
    if inputs.audio is not None and sample.audio is None:
        blank["audio"] = np.zeros(inputs.audio.min_samples, np.float32)
    return replace(sample, **blank)  # type: ignore[arg-type]  # by the names of its fields
