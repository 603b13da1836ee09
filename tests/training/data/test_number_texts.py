from __future__ import annotations

import numpy as np
import pytest

from training.data.misspellings import garble, misspellings, single_slips, split_of
from training.data.number_texts import TextMix, draw_texts
from training.data.number_words import LANGUAGES, digit_signs, number_words, surface, unambiguous

MIX = TextMix(signs=0.1, carriers=0.2, misspelt=0.3, garbled=0.2, garble_rate=0.3)


def test_over_ten_languages_and_several_scripts_are_known() -> None:
    words = number_words()
    assert len(LANGUAGES) >= 40
    sevens = {
        "seven", "sieben", "sept", "siete", "sette", "sete", "семь", "sedm", "七", "سبعة", "yedi", "bảy",
        "επτά", "सात", "일곱", "שבע", "เจ็ด", "seitsemän", "tujuh",
    }  # fmt: skip
    assert {words[word] for word in sevens} == {7}


def test_a_form_with_two_meanings_belongs_to_neither() -> None:
    assert unambiguous([("a", 1), ("a", 2), ("b", 3), ("b", 3)]) == {"b": 3}


def test_every_sign_of_every_script_is_its_digit() -> None:
    assert {surface(sign) for sign in digit_signs()} >= set("0123456789")
    assert digit_signs()["٧"] == digit_signs()["७"] == 7


def test_a_word_is_never_listed_as_a_misspelling() -> None:
    words, slips = number_words(), misspellings(number_words())
    for found in slips.values():
        assert not words.keys() & found.keys()
    assert all(len(found) > 300 for found in slips.values())


def test_no_misspelling_is_in_two_splits_or_means_two_digits() -> None:
    slips = misspellings(number_words())
    strings = [text for found in slips.values() for text in found]
    assert len(strings) == len(set(strings))
    assert all(split_of(text) == name for name, found in slips.items() for text in found)


def test_slips_are_swaps_drops_doublings_and_neighbour_keys() -> None:
    assert {"eno", "oen", "oe", "onne", "ine", "pne", "onw"} & set(single_slips("one")) == {
        "oen", "oe", "onne", "ine", "pne", "onw",
    }  # fmt: skip
    assert list(single_slips("一")) == []


def test_held_out_misspellings_never_occur_in_training_texts() -> None:
    slips = misspellings(number_words())
    held_out = slips["validation"].keys() | slips["test"].keys()
    train = draw_texts(MIX, split="train", per_class=400, seed=1)
    assert not {surface(text) for text in train.texts.strings} & held_out
    test = draw_texts(TextMix(signs=0.1, carriers=0.2, misspelt=0.3), split="test", per_class=100, seed=1)
    misspelt = {
        surface(text) for text, flag in zip(test.texts.strings, test.is_misspelt, strict=True) if flag
    }
    assert misspelt
    assert misspelt <= slips["test"].keys()


def test_texts_are_drawn_again_the_same() -> None:
    one, other = (draw_texts(MIX, split="train", per_class=30, seed=5) for _ in range(2))
    assert one.texts.strings == other.texts.strings
    assert one.labels.tolist() == [digit for digit in range(10) for _ in range(30)]


@pytest.mark.parametrize("text", ["7", "seven", "семь", "四"])
def test_garbling_never_leaves_a_blank_text(text: str) -> None:
    rng = np.random.default_rng(0)
    assert all(garble(text, rate=1.0, rng=rng).strip() for _ in range(100))
    assert garble(text, rate=0.0, rng=rng) == text
