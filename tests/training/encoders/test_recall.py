from __future__ import annotations

from typing import Final

import pytest
import torch
from torch import Tensor

from app.bundle.manifest import TextInput
from app.bundle.prepare import TextPreparer
from training.batch import token_rows
from training.encoders.build import build_encoder
from training.encoders.contract import EncoderUnfit
from training.encoders.recall import RecallTextEncoder
from training.encoders.specs import RecallText
from training.tokenizer import train_tokenizer

SPEC: Final = RecallText(texts=8, buckets=509, width=3)
TEXT: Final = TextInput(
    encoder="text.onnx", features=3, max_bytes=999, tokenizer="tokenizer.json", pad_id=0, max_tokens=40,
    max_characters=999,
)  # fmt: skip
KNOWN: Final = ("Uno.", "due", "tre", "un", "dos", "tres")  # of two languages, three each
TOKENIZE: Final = TextPreparer(train_tokenizer(KNOWN, most_tokens=400, is_by_sound=True), TEXT)


def rows(*texts: str) -> Tensor:
    return torch.from_numpy(token_rows(texts, TOKENIZE, pad_id=0))


def meaning(*classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), SPEC.width)


@pytest.fixture
def encoder() -> RecallTextEncoder:
    built = build_encoder(SPEC, TEXT, vocabulary=TOKENIZE.vocabulary)
    assert isinstance(built, RecallTextEncoder)
    built.study([(rows(*KNOWN),)], meaning(0, 1, 2, 0, 1, 2), torch.tensor([4, 4, 4, 7, 7, 7]))
    return built.eval()


def shares(encoder: RecallTextEncoder, *texts: str) -> Tensor:
    said: Tensor = encoder(rows(*texts)).pooled.exp().detach()
    return said


def test_a_text_is_wholly_like_itself_however_it_is_written(encoder: RecallTextEncoder) -> None:
    likeness = encoder.likeness(rows("uno", "UNO!", " uno ", "ун", "TRES."))
    found = likeness.max(dim=1)
    torch.testing.assert_close(found.values, torch.ones(5))
    assert found.indices.tolist() == [0, 0, 0, 3, 5]
    assert (likeness[:, 6:] == 0).all()  # nothing is remembered there


def test_what_sounds_alike_is_nearer_than_what_does_not(encoder: RecallTextEncoder) -> None:
    """`dre` has no letter-gram of `tre` more than `pre` has, but d and t are of one class."""
    dre, pre = encoder.likeness(rows("dre", "pre"))[:, 2]
    assert dre > pre + 0.1


def test_a_relative_is_read_and_a_stranger_is_not(encoder: RecallTextEncoder) -> None:
    relative, stranger, empty = shares(encoder, "trei", "kolme", "!")
    assert relative.argmax() == 2
    assert relative.max() > 0.9
    assert stranger.max() < 0.5
    torch.testing.assert_close(empty, torch.full((3,), 1 / 3))


def test_in_training_a_text_is_read_by_other_groups_only(encoder: RecallTextEncoder) -> None:
    itself = shares(encoder, "due")[0]
    torch.manual_seed(0)
    others = shares(encoder.train(), "due")[0]  # type: ignore[arg-type]
    assert itself[1] > 0.95
    assert others[1] < itself[1] - 0.1
    alone = encoder.likeness(rows("due")).squeeze(0)[3:6]
    votes = ((alone - 1) * encoder.sharpness.exp()).exp() + encoder.doubt.exp()
    torch.testing.assert_close(others, (votes / votes.sum()).detach())


def test_of_several_groups_that_hold_a_text_one_is_left_out(encoder: RecallTextEncoder) -> None:
    texts, groups = [(rows("tres", "tres"),), (rows("dos"),)], torch.tensor([1, 2, 2])
    encoder.study(texts, meaning(2, 2, 1), groups)
    torch.manual_seed(0)
    drawn = {round(float(shares(encoder.train(), "dos")[0, 1]), 3) for _ in range(20)}  # type: ignore[arg-type]
    assert len(drawn) == 1  # only group 2 has it
    left = {round(float(shares(encoder, "tres")[0, 2]), 6) for _ in range(20)}
    assert len(left) == 2  # without group 1 `dos` is still heard


def test_what_is_remembered_is_in_the_state(encoder: RecallTextEncoder) -> None:
    other = build_encoder(SPEC, TEXT, vocabulary=TOKENIZE.vocabulary).eval()
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(rows("trei")).pooled, encoder(rows("trei")).pooled)


def test_more_texts_than_there_is_room_for_are_refused(encoder: RecallTextEncoder) -> None:
    nine = rows(*"abcdefghi")
    with pytest.raises(EncoderUnfit, match="9 texts, and room for 8"):
        encoder.study([(nine,)], meaning(*9 * [0]), torch.arange(9))
