"""What noise alone adds to a calibration error: few independent rows look ill calibrated when they are not.

ECE adds up |seen - said| over bins, and a mean of few outcomes is off whatever the model does. Two figures
stand beside it, from the standard error s of each bin's gap g, both as shares of all rows:

* noise: what a model without any calibration error would show on average, the sum of s sqrt(2 / pi).
* debiased: ECE less what noise is estimated to have added to it, bin by bin E|g + s Z| - |g|, Z standard
  normal: the l1 estimator of Kumar, Liang & Ma, Verified Uncertainty Calibration, NeurIPS 2019 (as in their
  package, but in closed form; the same for squared gaps: Bröcker, Climate Dynamics 2012; Ferro & Fricker,
  QJRMS 2012). The gap that it starts from is noisy, too, so of a perfect model it leaves some of the noise.

These take rows to be independent. Here s counts groups, by the sum over groups of what their rows in a bin
are off its gap: rows that repeat one text, or languages that are read well or ill as a whole, tell no more
than they do. With one row a group it is their formula. A bin that has one group only tells nothing of its
noise, and none is taken off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.measure.bootstrap import Floats, Grouped, Measured, Numbers


@dataclass(frozen=True, slots=True)
class Unnoised:
    """Without intervals: those of ECE hold for both."""

    debiased: Measured
    noise: Measured


def unnoised(said: Floats, seen: NDArray[np.bool_], bins: Numbers, grouped: Grouped) -> Unnoised:
    """What was said of each decision [rows] or [rows, labels], whether it came so, and its bin."""
    decisions = said.size
    place = bins.ravel()
    number = np.repeat(grouped.number, decisions // len(grouped.number))
    count = int(place.max()) + 1
    rows = np.bincount(place, minlength=count)
    apart = (seen - said).ravel()
    gaps = np.bincount(place, weights=apart, minlength=count)
    centred = apart - (gaps / np.maximum(rows, 1))[place]
    errors = _errors(centred, place, number, (grouped.count, count))
    added = sum(_added(gap, error) for gap, error in zip(np.abs(gaps).tolist(), errors.tolist(), strict=True))
    debiased = max(0.0, float(np.abs(gaps).sum()) - added) / decisions
    noise = math.sqrt(2 / math.pi) * float(errors.sum()) / decisions
    return Unnoised(debiased=Measured(debiased, None), noise=Measured(noise, None))


def _errors(centred: Floats, place: Numbers, number: Numbers, shape: tuple[int, int]) -> Floats:
    """Standard error of the sum of gaps in each bin; `shape` is groups and bins."""
    cell = number * shape[1] + place
    sums = np.bincount(cell, weights=centred, minlength=math.prod(shape)).reshape(shape)
    groups = (np.bincount(cell, minlength=math.prod(shape)).reshape(shape) > 0).sum(axis=0)
    few = np.where(groups > 1, groups / np.maximum(groups - 1, 1), 0.0)
    errors: Floats = np.sqrt((sums**2).sum(axis=0) * few)
    return errors


def _added(gap: float, error: float) -> float:
    """E|g + s Z| - |g|, of the folded normal distribution (Leone, Nelson & Nottingham 1961)."""
    if error == 0:
        return 0.0
    ratio = gap / error
    spread = error * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2)
    return spread - gap * math.erfc(ratio / math.sqrt(2))
