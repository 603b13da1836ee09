"""models/digits/1, as it is in the repository: what a fresh clone serves."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final

import pytest

from app.bundle.folder import Bundle, read_bundle
from app.bundle.sample import RawInputs
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from training.export.card import model_card
from training.export.golden import draw_digit, golden_inputs
from training.recipes.digits import digits
from training.report import gain

FOLDER: Final = Path(__file__).parents[2] / "models/digits/1"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(FOLDER)


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor.open(bundle, device=Device("cpu"), threads=1)


def test_it_replays_its_golden_cases(bundle: Bundle, predictor: Predictor) -> None:
    assert replay(bundle, predictor).cases == len(golden_inputs())


def test_it_is_small(bundle: Bundle) -> None:
    assert sum(len(body) for body in bundle.files.values()) < 6_000_000


def test_it_is_the_recipe_s(bundle: Bundle) -> None:
    recipe, manifest = digits(), bundle.manifest
    assert (manifest.name, manifest.version) == ("digits", 1)
    assert manifest.inputs == recipe.inputs
    assert manifest.labels == recipe.labels


@pytest.mark.parametrize("on_white", [False, True], ids=["light on dark", "dark on light"])
@pytest.mark.parametrize("digit", range(10))
def test_drawn_digits_are_recognised(predictor: Predictor, digit: int, *, on_white: bool) -> None:
    body = io.BytesIO()
    draw_digit(digit, on_white=on_white).save(body, "PNG")
    answer = predictor.predict(RawInputs(image=body.getvalue()))
    assert answer.best.label == str(digit)
    assert answer.best.probability > 0.8


def test_golden_cases_with_an_image_or_a_text_are_right(predictor: Predictor) -> None:
    known = [case for case in golden_inputs() if case.digit is not None]
    assert len(known) >= 8
    for case in known:
        assert predictor.predict(case.raw).best.label == str(case.digit), case.name


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("seven", "7"), ("SIEBEN", "7"), ("Sept.", "7"), ("número cuatro", "4"), ("семь", "7"), ("七", "7"),
        ("ثلاثة", "3"), ("शून्य", "0"), ("número 8", "8"), ("9!", "9"), ("fünf", "5"), ("tres", "3"),
        ("sevn", "7"), ("zeroo", "0"), ("\uff15", "5"),
    ],
)  # fmt: skip
def test_texts_in_many_languages_are_read(predictor: Predictor, text: str, label: str) -> None:
    assert predictor.predict(RawInputs(text=text.encode())).best.label == label


def test_the_promised_figures_hold(bundle: Bundle) -> None:
    metrics = bundle.manifest.metrics
    clean = {subset: scored["accuracy"] for subset, scored in metrics["clean"].items()}
    assert metrics["rows"] == 10_000
    assert min(clean["image"], clean["text"], clean["audio"]) >= 0.97
    assert clean["image+text+audio"] >= 0.995
    assert gain(metrics) >= 5
    assert metrics["inverted_images"]["accuracy"] >= 0.97
    assert len(metrics["unseen_speakers"]) == 5


def test_parity_with_torch_was_measured(bundle: Bundle) -> None:
    parity = bundle.manifest.training["parity"]
    assert max(parity["split_difference"], parity["fused_difference"]) <= 1e-4
    assert parity["flips"] == 0


def test_the_card_tells_the_figures_of_the_manifest(bundle: Bundle) -> None:
    card = bundle.files["README.md"].decode()
    assert card == model_card(bundle.manifest, digits())
    for table in ("clean", "degraded"):
        for scored in bundle.manifest.metrics[table].values():
            assert f"{100 * scored['accuracy']:.2f} %" in card


def test_nothing_tells_of_the_machine_that_trained_it(bundle: Bundle) -> None:
    told = (FOLDER / "manifest.json").read_text() + bundle.files["README.md"].decode()
    assert not re.search(r"/(home|root|work|tmp|Users)/", told)
    for path, body in bundle.files.items():
        assert not re.search(rb"/(home|root|work|tmp|Users)/", body), path
