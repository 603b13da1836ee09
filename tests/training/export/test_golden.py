from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from training.export.golden import draw_digit, golden_inputs, synthesise
from training.subsets import SUBSETS


def test_all_subsets_and_formats_are_covered() -> None:
    cases = golden_inputs()
    assert len(cases) >= 8
    assert {"+".join(case.raw.present) for case in cases} == set(SUBSETS)
    kinds = {name.rsplit(".", 1)[1] for case in cases for name in case.files}
    assert kinds == {"png", "jpeg", "webp", "wav", "flac", "txt"}


def test_a_model_of_two_modalities_is_asked_for_nothing_else() -> None:
    cases = golden_inputs(("image", "audio"))
    assert {"+".join(case.raw.present) for case in cases} == {"image", "audio", "image+audio"}


def test_a_file_name_always_holds_the_same_bytes() -> None:
    held: dict[str, bytes] = {}
    for case in golden_inputs():
        for name, body in case.files.items():
            assert held.setdefault(name, body) == body


@pytest.mark.parametrize("digit", range(10))
def test_drawings_have_strokes_of_either_polarity(digit: int) -> None:
    light, dark = (np.asarray(draw_digit(digit, on_white=w).convert("L")) for w in (False, True))
    assert light[0, 0] == 0
    assert dark[0, 0] == 255
    assert 0.03 < (light > 127).mean() < 0.4


def test_pictures_are_what_their_name_says() -> None:
    for case in golden_inputs():
        if case.image:
            with Image.open(io.BytesIO(case.image[1])) as image:
                assert image.format is not None
                assert case.image[0].endswith(image.format.lower())
                assert image.size == (280, 280)


def test_sounds_are_audible_and_in_range() -> None:
    sound = synthesise(rate_hz=16_000)
    assert len(sound) == 7_200
    assert 0.45 < np.abs(sound).max() <= 0.5
    assert np.sqrt((sound**2).mean()) > 0.03
