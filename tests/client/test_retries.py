"""What may pass is asked again, in time, not too often and not by everybody at once."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import client as api
from app.client import AsyncClient, Client, Prediction, Retries, _Budget, _Deadline, _Tries
from tests.client.scripted import PREDICTED, Cut, Say, Stall, refusal, scripted
from tests.server import free_port

SOON = Retries(base_s=0.001)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def unlucky() -> float:
    return 1.0


BUSY = api.Overloaded("busy", status=503)


def test_who_has_all_the_time_is_answered_as_well() -> None:
    ready = Say(200, b'{"status": "ready"}')

    async def asked(url: str) -> str:
        async with AsyncClient(url, deadline_s=math.inf) as client:
            await client.wait_ready(math.inf)
            return (await client.predict(text="a")).label

    with scripted(ready, PREDICTED, ready, PREDICTED) as server:
        with Client(server.url, deadline_s=math.inf) as client:
            client.wait_ready(math.inf)
            assert client.predict(text="a").label == "red"
        assert asyncio.run(asked(server.url)) == "red"
    assert {len(one.headers["x-request-deadline-ms"]) for one in server.asked} == {9}


@given(
    st.lists(st.integers(0, 5), max_size=60),
    st.floats(0, 0.5),
    st.floats(1, 20),
)
def test_retries_never_exceed_their_share(fails: list[int], share: float, burst: float) -> None:
    """However often each call fails: all retries together are at most the burst and a share of the calls."""
    retries = Retries(most=3, share=share, burst=burst)
    budget = _Budget(retries)
    made = 0
    for failures in fails:
        budget.call()
        tries = _Tries(retries, budget, _Deadline(1e9, Clock()), chance=unlucky)
        for _ in range(failures):
            try:
                tries.wait_s(BUSY)
            except api.Overloaded:
                break
        assert tries.retries <= min(3, failures)
        made += tries.retries
    assert made <= burst + share * len(fails)
    assert (budget.statistics.calls, budget.statistics.retries) == (len(fails), made)


@example(1 / 3, 0.1, None)
@given(st.floats(0, 1), st.floats(0.1, 60), st.one_of(st.none(), st.floats(0, 30)))
def test_no_wait_goes_beyond_the_deadline_or_ends_before_it_was_asked_to(
    chance: float, left_s: float, after_s: float | None
) -> None:
    retries = Retries(most=10, burst=100)
    clock = Clock()
    tries = _Tries(retries, _Budget(retries), _Deadline(left_s, clock), chance=lambda: chance)
    error = api.Overloaded("busy", status=503, retry_after_s=after_s)
    for number in itertools.count():
        try:
            wait_s = tries.wait_s(error)
        except api.Overloaded:
            break
        ceiling_s = min(5.0, 0.1 * 2**number)
        assert (after_s or 0) <= wait_s <= (after_s or 0) + ceiling_s
        clock.now_s += wait_s
        assert clock.now_s <= left_s  # the sum may round up to it
        assert tries.retries == number + 1 <= 10


def test_the_waits_of_many_are_spread_over_all_the_time() -> None:
    """Full jitter: a retry may come at once, or at the ceiling, or anywhere between."""
    waits = []
    for place in range(11):
        tries = _Tries(Retries(), _Budget(Retries()), _Deadline(60, Clock()), chance=lambda p=place: p / 10)
        tries.wait_s(BUSY)
        waits.append(tries.wait_s(BUSY))
    assert waits == pytest.approx([0.02 * place for place in range(11)])


PASSING = {
    "503": refusal("overloaded"),
    "429": refusal("rate_limited"),
    "408": refusal("request_timeout"),
    "502 of a proxy": Say(502, b"<html>"),
    "a cut connection": Cut(),
    "a cut answer": Say(200, PREDICTED.body, cut_at=20),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_asked_again(fault: Say | Cut) -> None:
    async def ask(url: str) -> Prediction:
        async with AsyncClient(url, retries=SOON) as client:
            return await client.predict(text="a")

    with scripted(fault, fault, PREDICTED) as server, Client(server.url, retries=SOON) as client:
        assert client.predict(text="a").retries == 2
        assert client.statistics == api.Statistics(calls=1, retries=2)
        first = server.asked[0]
        assert all((one.body, one.path) == (first.body, first.path) for one in server.asked)
        assert len({one.headers["x-request-id"] for one in server.asked}) == 1
    with scripted(fault, PREDICTED) as server:
        assert asyncio.run(ask(server.url)).retries == 1


@pytest.mark.parametrize("code", ["invalid_image", "internal", "deadline_exceeded", "unauthorized"])
def test_what_will_not_pass_is_not(code: str) -> None:
    with scripted(refusal(code)) as server, Client(server.url, retries=SOON) as client:
        with pytest.raises(api.ERRORS[code]):
            client.predict(text="a")
        assert len(server.asked) == 1


def test_it_gives_up_with_what_it_was_told_last() -> None:
    with scripted(Cut(), refusal("draining")) as server, Client(server.url, retries=SOON) as client:
        with pytest.raises(api.Draining):
            client.predict(text="a")
        assert len(server.asked) == 4


def test_an_empty_budget_ends_it_for_all_calls_of_a_client() -> None:
    retries = Retries(base_s=0.001, share=0.0, burst=2)
    with scripted(refusal("overloaded")) as server, Client(server.url, retries=retries) as client:
        for _ in range(3):
            with pytest.raises(api.Overloaded):
                client.predict(text="a")
        assert len(server.asked) == 5
        assert client.statistics == api.Statistics(calls=3, retries=2, refused_retries=3)


def test_it_comes_back_when_the_server_says_and_not_before() -> None:
    busy = refusal("overloaded", retry_after="1")
    with scripted(busy, PREDICTED) as server, Client(server.url, retries=SOON) as client:
        client.predict(text="a")
        first, second = server.asked
        assert 1.0 <= second.at_s - first.at_s < 5.0


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("0", 0, 0),
        ("-5", 0, 0),
        ("120", 120, 120),
        ("soon", None, None),
        pytest.param(
            format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 80_000, 86_400, id="tomorrow"
        ),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(said: str, least: float | None, most: float | None) -> None:
    with (
        scripted(refusal("rate_limited", retry_after=said)) as server,
        Client(server.url, retries=Retries(most=0)) as client,
        pytest.raises(api.RateLimited) as raised,
    ):
        client.predict(text="a")
    after_s = raised.value.retry_after_s
    assert (
        after_s == least
        if least is None or most is None
        else after_s is not None and least <= after_s <= most
    )


def test_a_wait_longer_than_the_deadline_is_not_begun() -> None:
    busy = refusal("overloaded", retry_after="60")
    with scripted(busy) as server, Client(server.url) as client:
        started_s = time.monotonic()
        with pytest.raises(api.Overloaded):
            client.predict(text="a", deadline_s=20)
        assert time.monotonic() - started_s < 10
        assert len(server.asked) == 1


def test_the_server_is_told_what_is_left_of_the_time() -> None:
    busy = refusal("overloaded", retry_after="1")
    with scripted(busy, PREDICTED) as server, Client(server.url, retries=SOON) as client:
        client.predict(text="a", deadline_s=20)
        first, second = (int(one.headers["x-request-deadline-ms"]) for one in server.asked)
    assert 10_000 < first <= 20_000
    assert second <= first - 1000


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
)
def test_the_deadline_is_kept_by_the_client_too(said: bytes) -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.predict(text="a", deadline_s=0.3)

    with scripted(Stall(said)) as server, Client(server.url) as client:
        for call in (lambda: client.predict(text="a", deadline_s=0.3), lambda: asyncio.run(ask(server.url))):
            started_s = time.monotonic()
            with pytest.raises(api.DeadlinePassed) as raised:
                call()
            assert 0.25 <= time.monotonic() - started_s < 5
            assert raised.value.request_id == server.asked[-1].headers["x-request-id"]
        assert len(server.asked) == 2, "time that is over is no reason to ask again"


def test_nobody_there() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", retries=SOON) as client:
        with pytest.raises(api.ConnectionFailed) as raised:
            client.predict(text="a")
        assert raised.value.request_id
        assert not client.ready()
        with pytest.raises(api.ConnectionFailed):
            client.health()
        with pytest.raises(api.DeadlinePassed, match="not ready: No answer"):
            client.wait_ready(0.2)
        assert client.statistics == api.Statistics(calls=1, retries=3), "probes neither earn nor take retries"


def test_it_waits_until_the_server_is_ready() -> None:
    ready = Say(200, b'{"status": "ready"}')
    with scripted(refusal("not_ready"), Cut(), ready) as server, Client(server.url) as client:
        client.wait_ready(20)
        assert client.ready()

    async def wait(url: str) -> bool:
        async with AsyncClient(url) as client:
            await client.wait_ready(20)
            return await client.ready()

    with scripted(refusal("not_ready"), Cut(), ready) as server:
        assert asyncio.run(wait(server.url))


def test_waiting_ends_at_once_for_what_no_waiting_helps() -> None:
    with (
        scripted(refusal("not_found")) as server,
        Client(server.url) as client,
        pytest.raises(api.NotFound),
    ):
        client.wait_ready(20)
