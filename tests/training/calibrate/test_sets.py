"""The sets in torch and in ONNX Runtime are those of numpy."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from app.bundle.manifest import MODALITIES, subsets
from tests.training.simulated import calibrated
from training.calibrate.conformal import KnownRows, Method, aps_sets, fit_conformal, lac_sets, with_top
from training.calibrate.sets import SetsOf

SUBSETS = subsets(MODALITIES)
METHODS: tuple[Method, ...] = ("lac", "aps")
SETS = {"lac": lac_sets, "aps": aps_sets}


def answers(subset: str, rows: int = 300) -> KnownRows:
    """More modalities, surer answers; some of them all equal, some so sure that float32 rounds to 1."""
    seed = SUBSETS.index(subset)
    logits, targets = calibrated(rows, labels=7, sharpness=1.0 + 3.0 * seed, seed=seed)
    logits[::50] = 0
    logits[1::50, 2] += 100
    return KnownRows(logits.astype(np.float32), targets, np.arange(rows))


def mask(subset: str, rows: int) -> torch.Tensor:
    return torch.tensor([[name in subset.split("+") for name in MODALITIES]]).expand(rows, -1)


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    chosen: Method = request.param
    return chosen


@pytest.fixture(scope="module")
def thresholds(method: Method) -> dict[str, float]:
    return fit_conformal({subset: answers(subset) for subset in SUBSETS}).thresholds(method)


def test_torch_and_onnxruntime_give_the_sets_of_numpy(method: Method, thresholds: dict[str, float]) -> None:
    sets_of = SetsOf(thresholds, method=method).eval()
    session = exported(sets_of)
    for subset in SUBSETS:
        logits = answers(subset).logits
        wanted = with_top(SETS[method](logits, thresholds[subset]), logits)
        present = mask(subset, len(logits))
        np.testing.assert_array_equal(sets_of(torch.from_numpy(logits), present).numpy(), wanted)
        for rows in (1, 2, 64):
            [said] = session.run(None, {"logits": logits[:rows], "present": present[:rows].numpy()})
            np.testing.assert_array_equal(said, wanted[:rows])
        assert 1 < wanted.sum(axis=1).mean() < 7 or subset == SUBSETS[-1]


def test_every_row_has_the_threshold_of_its_own_subset(method: Method, thresholds: dict[str, float]) -> None:
    sets_of = SetsOf(thresholds, method=method)
    logits = torch.from_numpy(answers("image").logits[: len(SUBSETS)])
    together = sets_of(logits, torch.cat([mask(subset, 1) for subset in SUBSETS]))
    for row, subset in enumerate(SUBSETS):
        torch.testing.assert_close(together[row : row + 1], sets_of(logits[row : row + 1], mask(subset, 1)))


def test_of_nothing_every_class_is_possible(method: Method, thresholds: dict[str, float]) -> None:
    assert SetsOf(thresholds, method=method)(torch.randn(3, 5), torch.zeros(3, 3, dtype=torch.bool)).all()


def test_thresholds_travel_with_the_weights(thresholds: dict[str, float], method: Method) -> None:
    kept = SetsOf(thresholds, method=method).state_dict()["thresholds"]
    assert kept.shape == (8,)
    assert kept[0b101].item() == pytest.approx(thresholds["image+audio"])  # image is the lowest bit


def exported(module: SetsOf) -> onnxruntime.InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            module,
            kwargs={"logits": torch.randn(3, 7), "present": torch.ones(3, 3, dtype=torch.bool)},
            dynamo=True,
            opset_version=20,
            external_data=False,
            dynamic_shapes={"logits": {0: "batch"}, "present": {0: "batch"}},
            verbose=False,
        )
    assert program is not None
    buffer = io.BytesIO()
    program.save(buffer)
    return onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
