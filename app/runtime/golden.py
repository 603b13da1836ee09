"""Replay a bundle's golden cases through the very path that the server uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.bundle.conformal import set_bounds
from app.bundle.errors import InputError
from app.bundle.folder import Bundle
from app.bundle.golden import TOLERANCE, GoldenCase, load_golden
from app.bundle.interpret import RowOutputs
from app.bundle.manifest import Manifest, subset_name
from app.bundle.sample import Sample
from app.runtime.errors import GoldenMismatch
from app.runtime.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Replay:
    cases: int
    largest_difference: float  # of any probability


def golden_samples(bundle: Bundle, predictor: Predictor) -> list[Sample]:
    """The golden inputs, prepared, in their order. Raises GoldenMismatch for one that cannot be read."""
    return [_prepared(case, bundle, predictor) for case in load_golden(bundle.manifest, bundle.files)]


def replay(bundle: Bundle, predictor: Predictor) -> Replay:
    """Answer every golden case, alone and all in one batch.

    Raises GoldenMismatch, naming the case, if it cannot be read, if a probability is off by more than the
    tolerance, or if a conformal set is not the one that the manifest's thresholds give.
    """
    cases = load_golden(bundle.manifest, bundle.files)
    samples = golden_samples(bundle, predictor)
    together = predictor.run(samples)
    largest = 0.0
    for case, sample, batched in zip(cases, samples, together, strict=True):
        [alone] = predictor.run([sample])
        for answer in (alone, batched):
            difference = float(np.max(np.abs(answer.probabilities - np.array(case.probabilities))))
            if not difference <= TOLERANCE:  # also when it is NaN
                raise GoldenMismatch(
                    f"golden case '{case.name}' differs from export by {difference:.1e}, more than "
                    f"{TOLERANCE:.0e}. This machine or its libraries compute otherwise: do not serve from it."
                )
            largest = max(largest, difference)
            _check_set(case.name, sample, answer, bundle.manifest)
    return Replay(cases=len(cases), largest_difference=largest)


def _prepared(case: GoldenCase, bundle: Bundle, predictor: Predictor) -> Sample:
    try:
        return predictor.prepare(case.raw(bundle.files))
    except InputError as error:
        raise GoldenMismatch(
            f"golden case '{case.name}' could be read at export and cannot be here: {error.message}"
        ) from error


def _check_set(case: str, sample: Sample, answer: RowOutputs, manifest: Manifest) -> None:
    """Sets follow from probabilities and the manifest, so golden cases need not record them."""
    conformal = manifest.calibration.conformal
    if conformal is None:
        return
    assert answer.prediction_set is not None, "the predictor reads it where the manifest has sets"
    threshold = conformal.thresholds[subset_name(sample.present)]
    bounds = set_bounds(answer.probabilities, threshold, method=conformal.method, tolerance=TOLERANCE)
    if not bounds.admit(answer.prediction_set):
        raise GoldenMismatch(
            f"golden case '{case}': the set of labels that the graph gives is not that of the manifest's "
            f"{conformal.method.upper()} threshold, {threshold:g}. Export the bundle again."
        )
