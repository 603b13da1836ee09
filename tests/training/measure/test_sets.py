from __future__ import annotations

import numpy as np
import pytest

from tests.training.simulated import calibrated
from training.calibrate.conformal import KnownRows, fit_conformal
from training.measure.sets import measure_sets


def test_sets_are_measured_as_promised_and_as_seen() -> None:
    known, fresh = {}, {}
    for seed, subset in enumerate(("image", "text", "image+text")):
        logits, targets = calibrated(2_000, sharpness=(2.0, 4.0, 30.0)[seed], seed=seed)
        known[subset] = KnownRows(logits[:1_000], targets[:1_000], np.arange(1_000))
        fresh[subset] = KnownRows(logits[1_000:], targets[1_000:], np.arange(1_000))
    measured = measure_sets(fit_conformal(known), fresh)
    for results in (measured.lac, measured.aps):
        for result in results.values():
            assert abs(result.deviation) < 3
            assert result.seen.empty_share == 0
            assert result.seen.share >= result.held.share
            assert 0 < result.threshold < 1
    assert measured.lac["image+text"].held.empty_share > 0.03
    assert measured.lac["image"].held.mean_size > 2
    assert measured.mean_coverage("lac") == pytest.approx(0.9, abs=0.03)
    assert measured.mean_coverage("aps") == pytest.approx(0.9, abs=0.03)
    assert measured.fitted_groups == {"image": 1_000, "text": 1_000, "image+text": 1_000}
