from __future__ import annotations

import pytest

from app.bundle.prepare import TextPreparer
from training.recipes.digits import INPUTS
from training.tokenizer import PAD, ascii_ids, train_tokenizer

assert INPUTS.text is not None
TOKENIZER = train_tokenizer(("seven", "sept", "семь", "七"), most_tokens=400)


@pytest.fixture
def tokenize() -> TextPreparer:
    assert INPUTS.text is not None
    return TextPreparer(TOKENIZER, INPUTS.text)


@pytest.mark.parametrize("text", ["seven", "unseen ẞtuff", "🙂", "\u200d", " ", PAD, "नौ"])
def test_nothing_is_unknown_and_nothing_is_padding(tokenize: TextPreparer, text: str) -> None:
    ids, _ = tokenize(text)
    assert len(ids)
    assert (ids > 0).all()


def test_a_known_character_is_one_token(tokenize: TextPreparer) -> None:
    assert [len(tokenize(text)[0]) for text in ("seven", "семь", "七")] == [5, 4, 1]


def test_case_and_compatible_characters_are_folded(tokenize: TextPreparer) -> None:
    for one, other in (("SEPT", "sept"), ("\uff17", "7"), ("⑦", "7")):
        assert tokenize(one)[0].tolist() == tokenize(other)[0].tolist()


def test_the_same_texts_in_any_order_give_the_same_tokenizer() -> None:
    assert train_tokenizer(("七", "семь", "sept", "seven", "sept"), most_tokens=400) == TOKENIZER


def test_plain_characters_have_the_same_tokens_in_every_tokenizer(tokenize: TextPreparer) -> None:
    for character, number in ascii_ids().items():
        assert tokenize(character)[0].tolist() == tokenize(character.lower())[0].tolist()
        assert tokenize(character.lower())[0].tolist() == [ascii_ids()[character.lower()]]
        assert number > 0
