"""The cache never mixes two inputs, never grows over its bound, and has every input encoded once."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.bundle.folder import Bundle
from app.bundle.manifest import MODALITIES, Modality
from app.bundle.sample import InputWarning, RawInputs, Sample
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from app.serving.cache import ENTRY_BYTES, Claim, Encoded, Encodings, FeatureCache, Lookup
from app.serving.engine import Answer, Engine, Limits
from app.serving.model import LiveModel
from app.serving.schedule import Priority
from tests import tiny
from tests.serving.test_batcher import Told

KEYS = [bytes([letter]) for letter in b"abcdefgh"]


def vector(width: int, fill: float = 0.0) -> Encoded:
    return Encoded(np.full(width, fill, np.float32))


class BoundedLru(RuleBasedStateMachine):
    """Against a list of keys, the most recently used last."""

    @initialize(room=st.integers(0, 6 * (ENTRY_BYTES + 400)))
    def start(self, room: int) -> None:
        self.room, self.evictions = room, 0
        self.cache = FeatureCache(max_bytes=room, evicted=self.count)
        self.known: list[tuple[bytes, int, float]] = []

    def count(self) -> None:
        self.evictions += 1

    @rule(key=st.sampled_from(KEYS), width=st.integers(1, 400), fill=st.floats(0, 1, width=32))
    def put(self, key: bytes, width: int, fill: float) -> None:
        before = self.evictions
        self.cache.put(key, vector(width, fill))
        if ENTRY_BYTES + 4 * width > self.room:
            assert self.evictions == before, "what cannot fit drives nothing out"
            return
        self.known = [*(entry for entry in self.known if entry[0] != key), (key, width, fill)]
        gone = 0
        while sum(ENTRY_BYTES + 4 * width for _, width, _ in self.known) > self.room:
            self.known.pop(0)
            gone += 1
        assert self.evictions == before + gone

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: bytes) -> None:
        expected = [entry for entry in self.known if entry[0] == key]
        found = self.cache.get(key)
        assert (found is None) == (not expected)
        if found is not None:
            np.testing.assert_array_equal(found.features, np.full(expected[0][1], expected[0][2], np.float32))
            self.known = [*(entry for entry in self.known if entry[0] != key), *expected]

    @invariant()
    def keeps_to_its_bound(self) -> None:
        assert self.cache.size_bytes == sum(ENTRY_BYTES + 4 * width for _, width, _ in self.known)
        assert self.cache.size_bytes <= self.room
        assert len(self.cache) == len(self.known)


TestBoundedLru = BoundedLru.TestCase


# --- keys -------------------------------------------------------------------------------


def live(bundle: Bundle) -> LiveModel:
    return LiveModel(Predictor.open(bundle, device=Device("cpu"), threads=1))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> LiveModel:
    return live(bundle)


@given(st.lists(st.binary(min_size=8, max_size=8), min_size=2, unique=True))
def test_inputs_of_equal_size_never_share_a_key(model: LiveModel, bodies: list[bytes]) -> None:
    keys = [key for body in bodies for key in model.encoding_keys(RawInputs(body, body, body)).values()]
    assert len(set(keys)) == 3 * len(bodies), "nor do an image, a text and a sound of the same bytes"


def test_a_key_changes_with_whatever_changes_the_features(bundle: Bundle) -> None:
    """Each entry of the preparation, the tokenizer and the encoder; and with nothing else."""
    manifest = bundle.manifest
    digests = {manifest.encoding_digest(name) for name in MODALITIES}
    assert len(digests) == 3
    for name in MODALITIES:
        spec = manifest.inputs.encoder(name)
        for entry in type(spec).model_fields.keys() - {"encoder", "tokenizer"}:
            value = getattr(spec, entry)
            other = spec.model_copy(update={entry: f"no {value}" if isinstance(value, str) else value + 1})
            inputs = manifest.inputs.model_copy(update={name: other})
            digests.add(manifest.model_copy(update={"inputs": inputs}).encoding_digest(name))
        for path in [spec.encoder, *([spec.tokenizer] if name == "text" else [])]:
            record = manifest.files[path].model_copy(update={"sha256": "0" * 64})
            files = manifest.files | {path: record}
            digests.add(manifest.model_copy(update={"files": files}).encoding_digest(name))
    assert len(digests) == 3 + (9 + 5 + 5) + 4
    other_version = manifest.model_copy(update={"version": 2, "labels": ("a", "b", "c")})
    assert {other_version.encoding_digest(name) for name in MODALITIES} <= digests


# --- many rows at once -------------------------------------------------------------------


class Rows:
    """Rows that claim, encode for a few turns of the loop, and may fail or be cancelled on the way."""

    def __init__(self, *, max_bytes: int) -> None:
        self.encodings = Encodings(FeatureCache(max_bytes=max_bytes))
        self.encoded: Counter[bytes] = Counter()

    async def play(self, keys: Mapping[Modality, bytes], *, lane: str, turns: int, fails: bool) -> Claim:
        with self.encodings.claim(keys, lane=lane) as claim:
            await claim.join(timeout_s=30)
            rest = [name for name in keys if name not in claim.ready]
            for _ in range(turns):
                await asyncio.sleep(0)
            if fails:
                raise ValueError
            self.encoded.update(keys[name] for name in rest)
            features = {name: np.array([keys[name][0]], np.float32) for name in keys}
            self.encodings.keep(claim, Sample(), features)
        for name, known in claim.ready.items():
            assert known.features.tolist() == [keys[name][0]], "another input's features"
        return claim


ROW = st.tuples(
    st.dictionaries(st.sampled_from(MODALITIES), st.sampled_from("abc"), min_size=1).map(
        lambda chosen: {name: f"{letter}{name}".encode() for name, letter in chosen.items()}
    ),
    st.sampled_from(["interactive", "batch"]),
    st.integers(0, 5),
    st.sampled_from(["well", "well", "well", "fails", "leaves"]),
)


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20), st.integers(0, 2**32), st.sampled_from([0, 10**6]))
def test_whatever_happens_nobody_waits_for_ever(
    rows: list[tuple[dict[Modality, bytes], str, int, str]], seed: int, max_bytes: int
) -> None:
    chance = random.Random(seed)  # noqa: S311

    async def scenario() -> None:
        played = Rows(max_bytes=max_bytes)
        tasks = []
        for keys, lane, turns, fate in rows:
            row = played.play(keys, lane=lane, turns=turns, fails=fate == "fails")
            tasks.append(asyncio.create_task(row))
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        for task, fate in zip(tasks, fates, strict=True):
            if fate == "leaves":
                task.cancel()
        async with asyncio.timeout(2):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        answered = [isinstance(result, Claim) for result in results]
        assert all(answer for answer, fate in zip(answered, fates, strict=True) if fate == "well")
        assert not played.encodings.being_encoded
        if max_bytes and set(fates) == {"well"}:
            assert max(played.encoded.values()) <= 2, "once in each lane"

    fates = [fate for *_, fate in rows]
    asyncio.run(scenario())


def test_the_same_new_input_is_encoded_once() -> None:
    async def scenario() -> None:
        rows = Rows(max_bytes=10**6)
        calls = (rows.play({"image": b"a"}, lane="interactive", turns=3, fails=False) for _ in range(9))
        claims = await asyncio.gather(*calls)
        assert rows.encoded == {b"a": 1}
        assert Counter(claim.lookups["image"] for claim in claims) == {Lookup.MISS: 1, Lookup.JOINED: 8}

    asyncio.run(scenario())


def test_who_waits_for_one_that_leaves_encodes_it() -> None:
    async def scenario() -> None:
        rows = Rows(max_bytes=10**6)
        first = asyncio.create_task(rows.play({"text": b"a"}, lane="interactive", turns=99, fails=False))
        second = asyncio.create_task(rows.play({"text": b"a"}, lane="interactive", turns=1, fails=False))
        await asyncio.sleep(0)
        first.cancel()
        claim = await second
        assert claim.lookups == {"text": Lookup.MISS}
        assert rows.encoded == {b"a": 1}

    asyncio.run(scenario())


def test_an_interactive_row_does_not_wait_for_a_batch_row() -> None:
    async def scenario() -> None:
        rows = Rows(max_bytes=10**6)
        slow = asyncio.create_task(rows.play({"text": b"a"}, lane="batch", turns=10**6, fails=False))
        await asyncio.sleep(0)
        await rows.play({"text": b"a"}, lane="interactive", turns=1, fails=False)
        assert not slow.done()
        slow.cancel()

    asyncio.run(scenario())


def test_features_that_are_not_numbers_are_not_kept() -> None:
    async def scenario() -> None:
        encodings = Encodings(FeatureCache(max_bytes=10**6))
        with encodings.claim({"text": b"a", "image": b"b"}, lane="batch") as claim:
            features = {"text": np.array([np.nan], np.float32), "image": np.ones(1, np.float32)}
            encodings.keep(claim, Sample(), features)
        assert encodings.cache.get(b"a") is None
        assert encodings.cache.get(b"b") is not None

    asyncio.run(scenario())


# --- in the engine -----------------------------------------------------------------------


class Watched:
    """A live model that remembers what it was asked to prepare."""

    def __init__(self, bundle: Bundle) -> None:
        self.model = live(bundle)
        self.prepared: list[RawInputs] = []
        prepare = self.model.predictor.prepare

        def watched(raw: RawInputs) -> Sample:
            self.prepared.append(raw)
            return prepare(raw)

        self.model.predictor.prepare = watched  # type: ignore[assignment]


def ask(bundle: Bundle, rows: list[RawInputs], *, cached: bool) -> tuple[list[Answer], Watched]:
    """One after the other."""

    async def scenario() -> list[Answer]:
        cache = FeatureCache(max_bytes=2**20)
        limits = Limits(max_batch_size=8, max_rows=8, max_bytes=2**20, hang_s=10)
        async with Engine(limits, decode_threads=1, observer=Told(), cache=cache) as engine:
            answers = []
            for raw in rows:
                with engine.admit(
                    watched.model.costs, priority=Priority.INTERACTIVE, timeout_s=30, size_bytes=1
                ) as place:
                    answers.append(await place.answer(watched.model, raw, top_k=3, cached=cached))
            return answers

    watched = Watched(bundle)
    return asyncio.run(scenario()), watched


def test_only_what_is_new_is_decoded(bundle: Bundle) -> None:
    first, second = tiny.row(1), tiny.row(2)
    mixed = dataclasses.replace(first, text=second.text)
    _, watched = ask(bundle, [first, mixed, first], cached=True)
    assert watched.prepared == [first, RawInputs(text=second.text)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*(st.integers(0, 3) for _ in MODALITIES)).filter(any), min_size=1, max_size=12))
def test_a_row_from_the_cache_answers_as_it_does_without(bundle: Bundle, rows: list[tuple[int, ...]]) -> None:
    """0 leaves a modality out; else the number picks an input. One text is too long and warned about."""

    def raw(chosen: tuple[int, ...]) -> RawInputs:
        image, text, audio = (
            getattr(tiny.row(seed), name) if seed else None
            for name, seed in zip(MODALITIES, chosen, strict=True)
        )
        return RawInputs(image=image, text=b"a" * 99 if chosen[1] == 3 else text, audio=audio)

    asked = [raw(chosen) for chosen in rows]
    cached, _ = ask(bundle, asked, cached=True)
    plain, _ = ask(bundle, asked, cached=False)
    for one, other in zip(cached, plain, strict=True):
        np.testing.assert_allclose(one.outputs.probabilities, other.outputs.probabilities, atol=1e-6)
        assert one.prediction.used == other.prediction.used
        assert one.warnings == other.warnings
    assert all(isinstance(warning, InputWarning) for one in cached for warning in one.warnings)
