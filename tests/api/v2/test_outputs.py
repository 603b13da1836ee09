"""What an answer may not hold: NaN, or more JSON than the event loop has time for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.api.errors import Refusal
from app.api.strict_json import JSON_VALUES
from app.api.v2.outputs import check_json_size, encode_answer
from app.api.v2.requests import Asked, WantedOutput
from app.bundle.folder import Bundle
from app.bundle.interpret import RowOutputs
from app.runtime.errors import NonFiniteOutput
from app.runtime.predictor import Predictor
from app.serving.schedule import Priority
from tests import tiny

OUTPUTS = ("probabilities", "logits", "embedding", "modality_probabilities")


def asked(rows: int, *outputs: WantedOutput) -> Asked:
    return Asked("a", rows, {}, outputs, Priority.INTERACTIVE, None)


@pytest.fixture
def outputs(predictor: Predictor) -> RowOutputs:
    [row] = predictor.run([predictor.prepare(tiny.row(1))])
    return row


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("is_binary", [True, False])
def test_no_answer_holds_nan(
    bundle: Bundle, outputs: RowOutputs, name: str, value: float, *, is_binary: bool
) -> None:
    spoilt = getattr(outputs, name).copy()
    spoilt.flat[0] = value
    row = dataclasses.replace(outputs, **{name: spoilt})
    wanted = asked(2, WantedOutput(name, is_binary, classes=0))
    assert encode_answer(wanted, [outputs, outputs], bundle.manifest).body
    with pytest.raises(NonFiniteOutput):
        encode_answer(wanted, [outputs, row], bundle.manifest)


def test_an_answer_too_large_for_json_is_refused_before_it_is_computed(bundle: Bundle) -> None:
    most = JSON_VALUES // 3
    check_json_size(asked(most, WantedOutput("logits", is_binary=False, classes=0)), bundle.manifest)
    check_json_size(asked(most + 1, WantedOutput("logits", is_binary=True, classes=0)), bundle.manifest)
    with pytest.raises(Refusal, match="binary outputs"):
        check_json_size(asked(most + 1, WantedOutput("logits", is_binary=False, classes=0)), bundle.manifest)
