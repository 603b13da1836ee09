"""What travels to a worker and back is what was sent, whatever stands in a row."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from app.rows.errors import Unreadable
from app.rows.row import InFile, Row
from app.score.engine import Failed, Outcome, Scored
from app.score.wire import Answered, Parcel, answered_in, parcels, parcels_in

ANY = st.text(st.characters(), max_size=8)  # lone surrogates, too: a file's name may be any bytes
NAMES = ANY.map(lambda text: text.replace("\0", ""))
MEDIA = st.one_of(
    st.binary(max_size=20),
    st.builds(
        InFile,
        NAMES.map(Path),
        st.integers(0, 2**40),
        st.none() | st.integers(0, 2**40),
    ),
)
ROWS = st.builds(
    Row,
    position=st.integers(0, 2**40),
    id=ANY,
    original=st.none() | ANY | st.dictionaries(ANY, ANY | st.integers() | st.floats(allow_nan=False)),
    base=NAMES.map(Path),
    media=st.dictionaries(st.sampled_from(["image", "text", "audio"]), MEDIA),
    share=st.floats(0, 1),
    problem=st.none(),
)
NUMBERS = st.floats(width=32)
ANSWERS = st.fixed_dictionaries(
    {"label": ANY, "probability": NUMBERS, "embedding": st.lists(NUMBERS, max_size=4)}
)


@settings(deadline=None)
@given(packs=st.lists(st.lists(ROWS, min_size=1, max_size=3), max_size=3), number=st.integers(0, 2**40))
def test_a_parcel_comes_as_it_went(packs: list[list[Row]], number: int) -> None:
    sent = Parcel(number, tuple(packs))
    assert list(parcels_in(sent.table())) == [sent]


def test_a_problem_of_a_row_travels_with_it() -> None:
    row = Row(3, "r3", "{broken", Path("/data"), {}, 0.5, Unreadable("invalid_json", "The line is not JSON."))
    [[[found]]] = [parcel.packs for parcel in parcels_in(Parcel(0, ([row],)).table())]
    assert found.problem is not None
    assert (found.problem.code, found.problem.reason) == ("invalid_json", "The line is not JSON.")
    assert replace(found, problem=None) == replace(row, problem=None)


@settings(deadline=None)
@given(rows=st.lists(ROWS, max_size=4), answer=ANSWERS, seconds=st.floats(0, 60))
def test_outcomes_come_back_bit_for_bit(rows: list[Row], answer: dict[str, object], seconds: float) -> None:
    sent: list[Outcome] = [Scored(row, answer, seconds) for row in rows]
    sent += [Failed(row, "decode", "invalid_image", "It is broken.", 2, seconds) for row in rows]
    [found] = answered_in(Answered(7, tuple(sent)).table())
    assert (found.number, found.is_last, found.unread, found.lost) == (7, False, None, None)
    for ours, theirs in zip(sent, found.outcomes, strict=True):
        assert type(theirs) is type(ours)
        assert (theirs.row.position, theirs.row.id, theirs.row.share) == (
            ours.row.position, ours.row.id, ours.row.share,
        )  # fmt: skip
        assert theirs.row.media == {}, "media do not come back"
        if isinstance(theirs, Failed):
            assert replace(theirs, row=ours.row) == ours
            assert (theirs.row.original, theirs.row.base) == (ours.row.original, ours.row.base)
        else:
            assert isinstance(ours, Scored)
            assert repr(theirs.answer) == repr(ours.answer), "also where a number is NaN"
            assert theirs.seconds == ours.seconds


def test_bytes_in_a_dead_letter_are_what_the_letter_says() -> None:
    row = Row(0, "a", {"id": "a", "image": b"no picture"}, Path(), {"image": b"no picture"})
    [back] = answered_in(Answered(0, (Failed(row, "decode", "x", "y"),)).table())
    assert back.outcomes[0].row.original == {"id": "a", "image": {"base64": "bm8gcGljdHVyZQ=="}}


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 4), max_size=40), pause_s=st.sampled_from([0.0, 0.4, 2.0]))
def test_parcels_hold_every_pack_once_and_in_order(sizes: list[int], pause_s: float) -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += pause_s
        return now_s

    packs = [[Row(at, f"{at}-{n}", None, Path(), {}) for n in range(size)] for at, size in enumerate(sizes)]
    found = list(parcels(packs, clock=clock))
    assert [parcel.number for parcel in found] == list(range(len(found)))
    assert [parcel.is_last for parcel in found] == [False] * (len(found) - 1) + [True]
    assert [pack for parcel in found for pack in parcel.packs] == packs
    most = 1 if pause_s > 1 else 8
    assert len(found) - 1 >= math.ceil(len(packs) / most)
    assert all(len(parcel.packs) <= most for parcel in found)


def test_large_media_travel_in_small_parcels() -> None:
    packs = [[Row(n, f"r{n}", None, Path(), {"image": bytes(5 * 2**20)})] for n in range(4)]
    assert [len(parcel.packs) for parcel in parcels(packs, clock=lambda: 0.0)] == [2, 2, 0]
