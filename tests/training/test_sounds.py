from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from training.sounds import letters_by_sound, sound_of
from training.tokenizer import train_tokenizer

BY_SOUND = Tokenizer.from_str(train_tokenizer(("tres",), most_tokens=300, is_by_sound=True).decode())


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("Três!", "tres!"),
        ("ТРИ", "tri"),
        ("шесть", "shists"),  # ie, and the soft sign, as they are called
        ("שבע", "shba"),  # bet, whether it is said b or v
        ("ثلاثة", "thlatht"),
        ("ሰባት", "sbt"),
        ("셋", "ses"),  # decomposed into its three letters
        ("Łódź", "lodz"),
        ("三", "三"),  # no letter: its name tells no sound
        ("7 🙂", "7 🙂"),
        ("\u0e35\u0e48", "i"),  # what is left of a damaged word may begin with a mark
        ("\u0301", "\u0301"),
    ],
)
def test_words_are_read_by_the_names_of_their_letters(text: str, sound: str) -> None:
    assert BY_SOUND.normalizer.normalize_str(text) == sound


def test_a_letter_has_one_sound_and_it_is_latin() -> None:
    table = letters_by_sound()
    letters = "".join(table.values())
    assert len(set(letters)) == len(letters)
    assert all(sound.isascii() and sound.isalpha() and len(sound) <= 2 for sound in table)
    assert all(sound_of(letter) == sound for sound, held in table.items() for letter in held)


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_latin_stays_as_it_is_but_for_case(text: str) -> None:
    assert BY_SOUND.normalizer.normalize_str(text) == text.lower()


@given(st.text(alphabet=st.characters(categories=("Lu", "Ll"), max_codepoint=0x58F)))
def test_case_and_composition_make_no_difference(text: str) -> None:
    """Of letters whose case can be undone."""
    word = "".join(letter for letter in text if letter.upper().lower() == letter.lower())
    read = BY_SOUND.normalizer.normalize_str
    assert read(word) == read(word.upper()) == read(unicodedata.normalize("NFD", word))
