"""Golden cases that do not fit their bundle are refused."""

from __future__ import annotations

import pytest

from app.bundle.errors import BundleCorrupt
from app.bundle.folder import Bundle
from app.bundle.golden import GoldenCase, dump_golden, load_golden

FITTING = GoldenCase(name="one", text="golden/hello.txt", probabilities=(0.2, 0.3, 0.5))


def test_cases_read_back(bundle: Bundle) -> None:
    files = bundle.files | {"golden/cases.json": dump_golden((FITTING,))}
    [case] = load_golden(bundle.manifest, files)
    assert case == FITTING
    assert case.raw(files).text == bundle.files["golden/hello.txt"]
    assert case.raw(files).image is None


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        dump_golden((FITTING.model_copy(update={"text": "golden/lost.txt"}),)),
        dump_golden((FITTING.model_copy(update={"text": None}),)),
        dump_golden((FITTING.model_copy(update={"probabilities": (1.0,)}),)),
    ],
    ids=["unreadable", "none", "lost file", "no modality", "other labels"],
)
def test_cases_that_do_not_fit_are_refused(bundle: Bundle, body: bytes) -> None:
    with pytest.raises(BundleCorrupt, match=r"golden/cases\.json"):
        load_golden(bundle.manifest, bundle.files | {"golden/cases.json": body})
