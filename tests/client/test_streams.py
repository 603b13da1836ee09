"""Rows without end, over several connections, each answered once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import client as api
from app.client import AsyncClient, Client, Retries, Row, RowAnswer, _Gathered, _Line
from tests import tiny
from tests.api.test_batch import ROWS
from tests.client.scripted import PREDICTION, Cut, Say, problem, refusal, scripted
from tests.client.test_answers import asked
from tests.server import Server, serving

SOON = Retries(base_s=0.001)


def collected(url: str, rows: Iterable[Row], **options: Any) -> list[RowAnswer]:
    """By the asynchronous client."""

    async def collect() -> list[RowAnswer]:
        async with AsyncClient(url, retries=SOON) as client:
            return [answer async for answer in client.stream(rows, **options)]

    return asyncio.run(collect())


def streamed(url: str, rows: Iterable[Row], **options: Any) -> list[RowAnswer]:
    with Client(url, retries=SOON) as client:
        return list(client.stream(rows, **options))


BOTH = pytest.mark.parametrize("ask", [streamed, collected], ids=["sync", "async"])


@BOTH
def test_each_row_is_answered_once_as_it_is_alone(server: Server, ask: Any) -> None:
    rows = [Row(**asked(raw), id=f"row {place}") for place, raw in enumerate(ROWS)] * 4
    answers = {answer.index: answer for answer in ask(server.url, iter(rows), top_k=1)}
    assert sorted(answers) == list(range(len(rows)))
    with Client(server.url) as client:
        alone = [client.predict(**asked(raw)) for raw in ROWS]
    for index, row in enumerate(rows):
        found, expected = answers[index].result(), alone[index % len(ROWS)]
        assert answers[index].id == row.id
        assert (found.label, found.digest, len(found.top)) == (expected.label, expected.digest, 1)
        assert found.probability == pytest.approx(expected.probability, abs=1e-5)


@BOTH
def test_a_bad_row_harms_no_other(server: Server, tmp_path: Path, ask: Any) -> None:
    rows = [
        Row(text="a"),
        Row(),
        Row(image=b"GIF89a"),
        Row(image=tmp_path / "none.png", id="gone"),
        Row(text="b"),
    ]
    answers = sorted(ask(server.url, rows), key=lambda answer: answer.index)
    kinds = [type(None), api.NoModality, api.UnsupportedMediaType, api.InputUnreadable, type(None)]
    assert [type(answer.error) for answer in answers] == kinds
    assert answers[3].id == "gone"


@BOTH
def test_what_is_wrong_for_all_rows_is_raised(server: Server, ask: Any) -> None:
    with pytest.raises(api.ModelNotFound):
        ask(server.url, [Row(text="a")], model="none")
    with pytest.raises(TypeError, match="A text is a str"):
        ask(server.url, [Row(text=7)])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="An id is a str"):
        ask(server.url, [Row(text="a", id=7)])  # type: ignore[arg-type]
    assert ask(server.url, []) == []


def test_rows_are_read_no_faster_than_answers_are_taken(server: Server) -> None:
    read = 0

    def endless() -> Iterator[Row]:
        nonlocal read
        while True:
            read += 1
            yield Row(text=str(read))

    with Client(server.url) as client:
        answers = client.stream(endless(), connections=2)
        for taken in range(1, 200):
            assert next(answers).error is None
            assert read - taken < 4 * 32
        answers.close()
        assert client.predict(text="a").label, "who stops early has a client that works"


def test_an_asynchronous_source_may_wait_for_the_answers_to_its_rows(server: Server) -> None:
    """An answer comes when it is there, not when the next row is."""

    async def talk() -> list[int]:
        answered = asyncio.Event()

        async def source() -> AsyncIterator[Row]:
            for number in range(5):
                yield Row(text=str(number))
                await answered.wait()
                answered.clear()

        order = []
        async with AsyncClient(server.url) as client, asyncio.timeout(60):
            async for answer in client.stream(source()):
                order.append(answer.index)
                answered.set()
            rows = (Row(text=str(number)) for number in range(10**9))
            async with contextlib.aclosing(client.stream(rows)) as answers:
                async for _ in answers:
                    break
            assert (await client.predict(text="a")).label
        return order

    assert asyncio.run(talk()) == [0, 1, 2, 3, 4]


def line(index: int, **more: Any) -> bytes:
    said = {key: value for key, value in PREDICTION.items() if key != "request_id"}
    return (
        json.dumps({**said, "index": index, "status": 200, "label": f"said {index}", **more}).encode() + b"\n"
    )


def failed(index: int, code: str) -> bytes:
    error = problem(code)
    return json.dumps({"index": index, "status": error["status"], "error": error}).encode() + b"\n"


def ndjson(*lines: bytes, cut: bool = False) -> Say:
    body = b"".join(lines)
    return Say(200, body + b" " * cut, cut_at=len(body) if cut else None)


TWO = [Row(text="a", id="a"), Row(text="b", id="b")]


@pytest.mark.parametrize(
    "fault",
    [
        Cut(),
        refusal("overloaded"),
        ndjson(cut=True),
        ndjson(failed(0, "draining")),
        ndjson(failed(0, "overloaded")),
        ndjson(),
    ],
    ids=["no answer", "a refusal", "a cut answer", "draining", "overloaded", "an answer without rows"],
)
@BOTH
def test_rows_that_have_no_answer_are_sent_again(fault: Say | Cut, ask: Any) -> None:
    with scripted(fault, ndjson(line(0))) as server:
        answers = ask(server.url, TWO, connections=1)
        bodies = [one.body for one in server.asked]
    assert Counter((one.id, one.result().label) for one in answers) == {
        ("a", "said 0"): 1,
        ("b", "said 0"): 1,
    }
    assert answers[0].result().retries == 1
    assert bodies[0] == bodies[1]


def test_rows_that_have_their_answer_are_not() -> None:
    """Of a group, each try sends only what is left of it."""
    rows = [Row(text=name, id=name) for name in "abcd"]
    group = ndjson(line(1), failed(0, "invalid_text"), cut=True)
    with (
        scripted(ndjson(line(0)), group, ndjson(line(0))) as server,
        Client(server.url, retries=SOON) as client,
    ):
        gathered = api._Gathered()
        for index, row in enumerate(rows):
            gathered.add(api._line(index, row))
        said = api._Said()
        client._send_group(gathered.take(), {}, 30.0, gathered.heed, said)
        answers = [one for one in said.take(must_wait=True) if isinstance(one, RowAnswer)]
        bodies = [[json.loads(one)["id"] for one in asked.body.splitlines()] for asked in server.asked]
    assert bodies == [["a", "b", "c", "d"], ["b", "c", "d"], ["d"]]
    assert [(one.id, type(one.error)) for one in answers] == [
        ("a", type(None)), ("c", type(None)), ("b", api.InvalidText), ("d", type(None)),
    ]  # fmt: skip


@BOTH
def test_a_row_without_room_in_all_its_time_fails_alone(ask: Any) -> None:
    with scripted(ndjson(failed(0, "overloaded"))) as server:
        answers = ask(server.url, TWO, connections=1)
    assert [type(answer.error) for answer in answers] == [api.Overloaded] * 2


@BOTH
def test_a_server_that_is_gone_is_raised(ask: Any) -> None:
    with scripted(Cut()) as server, pytest.raises(api.ConnectionFailed):
        ask(server.url, TWO)
    with scripted(ndjson(line(5))) as server, pytest.raises(api.UnreadableAnswer):
        ask(server.url, TWO)


def test_a_server_that_is_killed_and_comes_back_costs_no_row(models_dir: Path) -> None:
    rows = [Row(text=f"row {place}", id=str(place)) for place in range(400)]
    patient = Retries(most=1000, burst=1000, base_s=0.05, cap_s=0.2)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(serving(models_dir))
        client = stack.enter_context(Client(first.url, retries=patient, deadline_s=60))
        answers = client.stream(iter(rows))
        found = [next(answers) for _ in range(100)]
        first.process.kill()
        first.process.wait()
        stack.enter_context(serving(models_dir, port=first.port))
        found += answers
    assert Counter(answer.id for answer in found) == Counter(row.id for row in rows)
    assert max(answer.result().retries for answer in found) > 0


def test_time_that_is_over_is_the_rows_own(models_dir: Path) -> None:
    with serving(models_dir) as server, Client(server.url) as client:
        assert client.predict(text="a").label
        server.process.send_signal(signal.SIGSTOP)
        try:
            started_s = time.monotonic()
            answers = list(client.stream(TWO, deadline_s=0.3))
            assert time.monotonic() - started_s < 10
        finally:
            server.process.send_signal(signal.SIGCONT)
    assert {(answer.id, type(answer.error)) for answer in answers} == {
        ("a", api.DeadlinePassed),
        ("b", api.DeadlinePassed),
    }


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 200_000)), max_size=80))
def test_groups_hold_every_row_once_and_no_more_than_they_may(sizes: list[tuple[int, int]]) -> None:
    gathered, taken = _Gathered(), []
    for index, (size, answer_bytes) in enumerate(sizes):
        gathered.add(_Line(index, None, bytes(size)))
        if gathered.is_full:
            group = gathered.take()
            assert len(group) <= 32
            assert sum(len(one.body) for one in group[:-1]) < 256 * 1024
            taken += group
            gathered.heed(answer_bytes)
    while gathered:
        taken += gathered.take()
    assert [one.index for one in taken] == list(range(len(sizes)))


def test_long_answers_make_small_groups() -> None:
    """Also of rows that were gathered before the first answer came."""
    gathered = _Gathered()
    for index in range(5):
        gathered.add(_Line(index, None, b""))
    gathered.heed(30_000)
    gathered.heed(10)
    sizes = []
    while gathered:
        assert gathered.is_full == (len(sizes) < 2)
        sizes.append(len(gathered.take()))
    assert sizes == [2, 2, 1]


@BOTH
def test_no_large_group_is_sent_before_the_first_answer(ask: Any) -> None:
    """Whose length tells how many rows at a time are safe."""
    long = ndjson(line(0, mood="x" * 40_000))
    with scripted(long) as server:
        answers = ask(server.url, [Row(text=str(place)) for place in range(40)])
        assert {len(one.body.splitlines()) for one in server.asked} == {1}
    assert len(answers) == 40


@BOTH
def test_a_server_that_takes_two_rows_at_a_time_gets_groups_of_more(tmp_path: Path, ask: Any) -> None:
    """It reads the next line of a group when an answer is taken, which is after the group is sent."""
    tiny.write(tmp_path)
    with serving(tmp_path, max_batch_size=1) as server:
        rows = (
            Row(text=f"{place} " + "a" * 900, image=tiny.png((place, 0, 0)), id="i" * 128)
            for place in range(200)
        )
        answers = ask(server.url, rows)
    assert Counter(type(answer.error) for answer in answers) == {type(None): 200}
