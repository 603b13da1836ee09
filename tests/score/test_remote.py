"""The engine behind a URL, against a server that misbehaves by plan."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import client
from app.rows.row import Row
from app.score.engine import Failed, Outcome, Scored
from app.score.errors import EngineLost, NotAsked
from app.score.remote import Asking, RemoteEngine, find_model
from tests.score.fakes import MODEL, FakeClient, error_of, text_row


def no_pause(_attempt: int, *, retry_after_s: float | None = None) -> float:
    return 0.0 * (retry_after_s or 0.0)


def ask(client: FakeClient, count: int, **asking: object) -> list[Outcome]:
    engine = RemoteEngine(lambda: client, MODEL, replace(Asking(batch_rows=8), **asking), pause_s=no_pause)
    outcomes = list(engine.score(map(text_row, range(count))))
    assert client.is_closed
    return outcomes


def busy_at(*numbers: int) -> FakeClient:
    def fault(number: int, _rows: Sequence[client.Row]) -> None:
        if number in numbers:
            raise error_of(503, "overloaded")

    return FakeClient(fault=fault)


def test_every_row_has_its_own_answer() -> None:
    client = FakeClient()
    outcomes = ask(client, 100)
    assert {one.row.position: one.answer["label"] for one in outcomes if isinstance(one, Scored)} == {
        number: f"text {number}" for number in range(100)
    }
    assert max(client.sizes) == 8


def test_being_sent_away_costs_no_row() -> None:
    client = busy_at(*range(1, 30))
    outcomes = ask(client, 40, retries=1)
    assert all(isinstance(one, Scored) for one in outcomes)
    assert len(outcomes) == 40


def test_what_one_request_has_too_much_is_asked_in_smaller_ones() -> None:
    """A server that cannot answer so many rows in time, however few requests there are."""

    def fault(_number: int, rows: Sequence[client.Row]) -> None:
        if len(rows) > 4:
            raise error_of(503, "overloaded")

    client = FakeClient(fault=fault)
    outcomes = ask(client, 200, retries=0, patience_s=10.0)
    assert Counter(one.row.position for one in outcomes if isinstance(one, Scored)) == Counter(range(200))
    assert sum(size > 4 for size in client.sizes) <= 30


def test_smaller_requests_do_not_help_a_key_that_is_used_too_often() -> None:
    def fault(number: int, _rows: Sequence[client.Row]) -> None:
        if number % 9:
            raise error_of(429, "rate_limited")

    client = FakeClient(fault=fault)
    assert all(isinstance(one, Scored) for one in ask(client, 40, most_at_once=1))
    assert set(client.sizes) == {8}


@pytest.mark.parametrize("said", [(504, "deadline_exceeded"), (503, "overloaded"), (429, "rate_limited")])
@pytest.mark.parametrize("are_all", [True, False])
def test_rows_that_are_refused_are_as_a_request_that_is(said: tuple[int, str], *, are_all: bool) -> None:
    """While more than three requests are inside; the server says so row by row, of all or of most."""

    class Crowded(FakeClient):
        async def predict_batch(
            self, rows: Sequence[client.Row], **asked: Any
        ) -> tuple[client.RowAnswer, ...]:
            answers = await super().predict_batch(rows, **asked)
            self.inside += 1
            await asyncio.sleep(0.001)
            is_crowded = self.inside > 3
            self.inside -= 1
            if not is_crowded:
                return answers
            late = error_of(*said)
            return tuple(
                client.RowAnswer(place, error=late, digest="d") if are_all or place else one
                for place, one in enumerate(answers)
            )

    outcomes = ask(Crowded(), 500, retries=0)
    assert Counter(one.row.position for one in outcomes if isinstance(one, Scored)) == Counter(range(500))


def test_rows_that_are_refused_forever_end_the_run() -> None:
    """They are no answer."""
    refused = FakeClient(of_row=lambda _row: error_of(503, "overloaded"))
    with pytest.raises(EngineLost, match="run it again to go on"):
        ask(refused, 10, patience_s=0.0)


def test_patience_is_for_a_server_that_is_asked() -> None:
    """Rows that come late, because earlier ones are finished, are no silence."""

    def rows() -> Iterator[Row]:
        time.sleep(0.3)
        yield from map(text_row, range(10))

    engine = RemoteEngine(lambda: busy_at(1), MODEL, Asking(patience_s=0.2), pause_s=no_pause)
    assert len(list(engine.score(rows()))) == 10


def test_the_row_that_breaks_the_server_is_found() -> None:
    def fault(_number: int, rows: Sequence[client.Row]) -> None:
        if any(row.text in ("text 5", "text 21") for row in rows):
            raise client.ConnectionFailed("It broke.")

    outcomes = ask(FakeClient(fault=fault), 40, retries=2)
    failed = [one for one in outcomes if isinstance(one, Failed)]
    assert {one.row.position for one in failed} == {5, 21}
    assert {(one.stage, one.code, one.attempts) for one in failed} == {("predict", "connection_lost", 3)}
    assert len(outcomes) == 40


def test_requests_become_smaller_when_they_are_too_large() -> None:
    def fault(_number: int, rows: Sequence[client.Row]) -> None:
        if len(rows) > 3:
            raise error_of(422, "invalid_parameter", "There are more than 3 rows.")

    client = FakeClient(fault=fault)
    assert all(isinstance(one, Scored) for one in ask(client, 200))
    assert sum(size > 3 for size in client.sizes) <= 8


def test_a_rows_error_is_its_own() -> None:
    def of_row(row: client.Row) -> client.TrichordError | None:
        return error_of(422, "invalid_text") if row.text == "text 3" else None

    outcomes = ask(FakeClient(of_row=of_row), 10)
    [failed] = [one for one in outcomes if isinstance(one, Failed)]
    assert (failed.row.position, failed.stage, failed.code) == (3, "decode", "invalid_text")


def test_a_row_that_had_no_luck_is_asked_again() -> None:
    unlucky = Counter({"text 3": 2, "text 4": 99})

    def of_row(row: client.Row) -> client.TrichordError | None:
        assert row.text is not None
        unlucky[row.text] -= 1
        return error_of(504, "deadline_exceeded") if unlucky[row.text] >= 0 else None

    outcomes = ask(FakeClient(of_row=of_row), 10, retries=3)
    [failed] = [one for one in outcomes if isinstance(one, Failed)]
    assert (failed.row.position, failed.code) == (4, "deadline_exceeded")
    assert len(outcomes) == 10


def test_ordered_is_the_order_of_the_input() -> None:
    outcomes = ask(busy_at(1, 2, 5, 7, 8, 12), 200, ordered=True)
    assert [one.row.position for one in outcomes] == list(range(200))


def test_embeddings_come_with_the_answers() -> None:
    [only] = ask(FakeClient(), 1, embeddings=True)
    assert isinstance(only, Scored)
    assert only.answer["embedding"] == [6.0]


def test_another_model_ends_the_run() -> None:
    with pytest.raises(EngineLost, match="another model"):
        ask(FakeClient(digest="other"), 10)


def test_a_wrong_key_ends_the_run() -> None:
    def fault(_number: int, _rows: Sequence[client.Row]) -> None:
        raise error_of(401, "unauthorized", "There is no valid key.")

    with pytest.raises(EngineLost, match="refuses every row"):
        ask(FakeClient(fault=fault), 10)


def test_what_the_server_never_understands_is_no_rows_fault() -> None:
    def fault(_number: int, _rows: Sequence[client.Row]) -> None:
        raise error_of(422, "invalid_parameter", "top_k: no.")

    with pytest.raises(EngineLost, match="does not understand"):
        ask(FakeClient(fault=fault), 10)


def test_a_server_that_stays_away_ends_the_run() -> None:
    def fault(_number: int, _rows: Sequence[client.Row]) -> None:
        raise client.ConnectionFailed("The server cannot be reached.", is_sent=False)

    with pytest.raises(EngineLost, match="run it again to go on"):
        ask(FakeClient(fault=fault), 10, patience_s=0.0)


def test_no_more_rows_are_read_than_are_needed() -> None:
    """Whoever takes no outcomes holds the reading up, and closing ends it."""
    read = 0

    def rows() -> object:
        nonlocal read
        for number in range(100_000):
            read += 1
            yield text_row(number)

    client = FakeClient()
    engine = RemoteEngine(lambda: client, MODEL, Asking(batch_rows=8, most_at_once=4))
    with contextlib.closing(engine.score(rows())) as outcomes:  # type: ignore[arg-type]
        next(outcomes)
    assert client.is_closed
    assert read < 1000
    assert client.most_inside <= 4


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["ok", "busy", "lost", "gone", "row", "error"]), max_size=40), st.booleans())
def test_whatever_happens_each_row_has_one_outcome(plan: list[str], ordered: bool) -> None:  # noqa: FBT001
    def fault(number: int, _rows: Sequence[client.Row]) -> None:
        match plan[number] if number < len(plan) else "ok":
            case "busy":
                raise error_of(429, "rate_limited")
            case "lost":
                raise client.ConnectionFailed("It broke.")
            case "gone":
                raise client.ConnectionFailed("Nobody.", is_sent=False)
            case "error":
                raise error_of(500, "internal", "It failed.")

    outcomes = ask(FakeClient(fault=fault), 50, ordered=ordered, retries=1)
    assert Counter(one.row.position for one in outcomes) == Counter(range(50))


OLDER = client.Model(
    name="a", version=2, digest="d", task="multilabel", labels=("x", "y"), limits={"text": {"max_bytes": 5}},
    fusion="", device="cpu", created="",
)  # fmt: skip


def test_the_model_is_the_one_that_is_named_in_its_newest_version() -> None:
    models = [OLDER, replace(OLDER, version=3), replace(OLDER, name="b", prediction_set_level=0.9)]
    found = asyncio.run(find_model(FakeClient(models=models), "a"))
    assert (found.version, found.is_multilabel, found.has_sets, found.most_bytes) == (
        3,
        True,
        False,
        {"text": 5},
    )
    with pytest.raises(NotAsked, match="the server has: a, b"):
        asyncio.run(find_model(FakeClient(models=models), None))


@pytest.mark.parametrize("ordered", [False, True])
def test_large_rows_are_few_in_memory(ordered: bool) -> None:  # noqa: FBT001
    """However many requests the server would bear."""
    held = most_held = 0

    class Slow(FakeClient):
        async def predict_batch(
            self, rows: Sequence[client.Row], **asked: Any
        ) -> tuple[client.RowAnswer, ...]:
            nonlocal held, most_held
            size = sum(len(row.text or "") for row in rows)
            held += size
            most_held = max(most_held, held)
            await asyncio.sleep(0.2)
            held -= size
            return await super().predict_batch(rows, **asked)

    slow = Slow()
    engine = RemoteEngine(lambda: slow, MODEL, Asking(batch_rows=8, ordered=ordered), pause_s=no_pause)
    large = (text_row(number, f"{number} " + "x" * 2**20) for number in range(120))
    assert [type(one) for one in engine.score(large)] == [Scored] * 120
    assert 2**23 < most_held <= 20 * 2**20
