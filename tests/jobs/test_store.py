"""The database of jobs: whoever claims, dies, comes late or splits, each row is finished once."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from app.jobs.errors import JobNotFound, StoreFailed, TooMany
from app.jobs.job import Chunk, Claim, Outcome, Source, State, Wanted
from app.jobs.sqlite import NEXT, SqliteStore

WANTED = Wanted("tiny", 1, "d", 1)
LEASE_S = 10.0


def chunks(*sizes: int) -> list[Chunk]:
    firsts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [Chunk(first, rows, 10 * first, 10 * rows) for first, rows in zip(firsts, sizes, strict=True)]


def outcome(chunk: Chunk) -> Outcome:
    """A line for each row: its position."""
    told = "".join(f"{chunk.first + place}\n" for place in range(chunk.rows))
    return Outcome(told.encode(), b"", chunk.rows, 0)


def told(store: SqliteStore, job_id: str) -> list[int]:
    """Positions in the job's results."""
    found: list[int] = []
    after = -1
    while (said := store.output(job_id, "results", after=after)) is not None:
        after, body = said
        found += map(int, body.split())
    return found


class Workers(RuleBasedStateMachine):
    """Two processes on one database, and a clock that jumps."""

    claims: Bundle[Claim] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stores = [SqliteStore(self.folder / "jobs.db") for _ in range(2)]
        self.now_s = 0.0
        self.totals: dict[str, int] = {}
        self.ended: set[str] = set()  # cancelled
        self.finished: Counter[tuple[str, int]] = Counter()

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    @rule(sizes=st.lists(st.integers(1, 3), max_size=3), at=st.integers(0, 1))
    def submit(self, sizes: list[int], at: int) -> None:
        job_id = f"job{len(self.totals)}"
        job = self.stores[at].add(job_id, Source(), WANTED, chunks(*sizes), now_s=0, most=100)
        assert job.total == sum(sizes)
        self.totals[job_id] = job.total

    @rule(target=claims, at=st.integers(0, 1))
    def claim(self, at: int) -> object:
        claim = self.stores[at].claim(now_s=self.now_s, lease_s=LEASE_S, at_s=0)
        return multiple() if claim is None else claim

    @rule(claim=consumes(claims), at=st.integers(0, 1))
    def finish(self, claim: Claim, at: int) -> None:
        if self.stores[at].finish(claim, outcome(claim.chunk), at_s=0) is not None:
            for place in range(claim.chunk.rows):
                self.finished[claim.job.id, claim.chunk.first + place] += 1

    @rule(claim=claims, at=st.integers(0, 1))
    def finish_and_forget_that(self, claim: Claim, at: int) -> None:
        self.finish(claim, at)

    @rule(claim=consumes(claims), at=st.integers(0, 1), is_attempt=st.booleans())
    def give_back(self, claim: Claim, at: int, *, is_attempt: bool) -> None:
        self.stores[at].release(claim, is_attempt=is_attempt)

    @rule(claim=consumes(claims), at=st.integers(0, 1))
    def split(self, claim: Claim, at: int) -> None:
        first, offset = claim.chunk.first, claim.chunk.offset
        pieces = [Chunk(first + place, 1, offset + 10 * place, 10) for place in range(claim.chunk.rows)]
        self.stores[at].split(claim, pieces)

    @rule(claim=claims, at=st.integers(0, 1))
    def renew(self, claim: Claim, at: int) -> None:
        self.stores[at].renew(claim, now_s=self.now_s, lease_s=LEASE_S)

    @rule(seconds=st.sampled_from([1.0, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.totals)
    @rule(pick=st.integers(0, 9), at=st.integers(0, 1))
    def cancel(self, pick: int, at: int) -> None:
        job_id = f"job{pick % len(self.totals)}"
        if self.stores[at].cancel(job_id, at_s=0):
            self.ended.add(job_id)

    @rule(at=st.integers(0, 1))
    def restart(self, at: int) -> None:
        self.stores[at].close()
        self.stores[at] = SqliteStore(self.folder / "jobs.db")
        self.stores[at].release_all()

    @invariant()
    def each_row_was_finished_once_and_counts(self) -> None:
        for job_id, total in self.totals.items():
            job = self.stores[0].get(job_id, owner="")
            done = sorted(place for name, place in self.finished if name == job_id)
            assert all(self.finished[job_id, place] == 1 for place in done)
            assert told(self.stores[1], job_id) == done
            assert job.scored == len(done)
            if job_id in self.ended:
                assert job.state is State.CANCELLED
            else:
                assert (job.state is State.COMPLETED) == (len(done) == total)


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "jobs.db")


def test_the_oldest_job_comes_first(store: SqliteStore) -> None:
    for name in ("a", "b"):
        store.add(name, Source(), WANTED, chunks(1, 1), now_s=0, most=9)
    taken = [store.claim(now_s=0, lease_s=LEASE_S, at_s=0) for _ in range(5)]
    assert [(one.job.id, one.chunk.first) for one in taken if one] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert taken[4] is None
    store.close()


def test_a_claim_looks_at_no_more_than_it_takes(tmp_path: Path, store: SqliteStore) -> None:
    """Large jobs that wait would else make every claim slow, in the one thread of the database."""
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        plan = [step for *_, step in database.execute(f"EXPLAIN QUERY PLAN {NEXT}", (0.0,))]
    assert len(plan) == 2
    assert not any("TEMP B-TREE" in step for step in plan), plan
    store.close()


def test_a_claim_that_ran_out_is_another_attempt(store: SqliteStore) -> None:
    store.add("a", Source(), WANTED, chunks(2), now_s=0, most=9)
    first = store.claim(now_s=0, lease_s=LEASE_S, at_s=0)
    assert store.claim(now_s=LEASE_S - 1, lease_s=LEASE_S, at_s=0) is None
    second = store.claim(now_s=LEASE_S, lease_s=LEASE_S, at_s=0)
    assert first is not None
    assert second is not None
    assert (first.attempts, second.attempts) == (1, 2)
    assert store.finish(first, outcome(first.chunk), at_s=0) is None, "it came too late"
    store.release(second, is_attempt=False)
    third = store.claim(now_s=LEASE_S, lease_s=LEASE_S, at_s=0)
    assert third is not None
    assert third.attempts == 2, "what is given back was no attempt"
    store.release(third, is_attempt=True)
    fourth = store.claim(now_s=LEASE_S, lease_s=LEASE_S, at_s=0)
    assert fourth is not None
    assert fourth.attempts == 3, "what failed was one"
    store.close()


def test_what_is_deleted_leaves_nothing(store: SqliteStore) -> None:
    store.add("a", Source(), WANTED, chunks(*[1] * 200), now_s=0, most=9)
    claim = store.claim(now_s=0, lease_s=LEASE_S, at_s=0)
    assert claim is not None
    number = store.delete("a")
    assert number is not None
    assert store.delete("a") is None
    steps = 0
    while store.clear(number):
        steps += 1
    assert steps > 200 / 64, "others have their turn between"
    assert store.finish(claim, outcome(claim.chunk), at_s=0) is None
    assert store.output("a", "results", after=-1) is None
    with pytest.raises(JobNotFound):
        store.get("a", owner="")
    assert store.backlog().rows == 0
    store.close()


def test_there_are_so_many_unfinished_jobs_and_no_more(store: SqliteStore) -> None:
    store.add("a", Source(), WANTED, chunks(1), now_s=0, most=1)
    with pytest.raises(TooMany):
        store.add("b", Source(), WANTED, chunks(1), now_s=0, most=1)
    store.cancel("a", at_s=0)
    assert store.add("b", Source(), WANTED, chunks(1), now_s=0, most=1).id == "b"
    store.close()


def test_a_disk_that_was_full_costs_nothing_but_time(tmp_path: Path, store: SqliteStore) -> None:
    store.add("a", Source(), WANTED, chunks(1, 1), now_s=0, most=9)
    claim = store.claim(now_s=0, lease_s=LEASE_S, at_s=0)
    assert claim is not None
    much = Outcome(b"x" * 2**20, b"", 1, 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, before[1]))
        for _ in range(2):
            with pytest.raises(StoreFailed):
                store.finish(claim, much, at_s=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert store.get("a", owner="").scored == 0
    assert store.finish(claim, much, at_s=0) is not None
    assert store.get("a", owner="").scored == 1
    store.close()
    again = SqliteStore(tmp_path / "jobs.db")
    assert again.output("a", "results", after=-1) == (0, much.results)
    again.close()
