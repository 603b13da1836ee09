"""What is wrong with a manifest's rows, all of it at once: every input is opened, hashed and decoded.

Nothing is repaired. Decoding is serving's own, so what is fit here is fit there, and a refusal has the same
reason in both places.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from app.bundle.decode import decode_audio, decode_image, decode_text
from app.bundle.errors import InputError
from app.bundle.manifest import AudioInput, ImageInput, Inputs, Modality, TextInput, subset_name
from training.data.cache import Advance, digest_of, silent
from training.data.manifest import Body, Entry, read_body

SPLITS: Final = ("train", "validation", "test")

Kind = Literal[
    "missing file",
    "undecodable",
    "no modality",
    "duplicate id",
    "in two splits",
    "group in two splits",
    "unknown split",
    "no label",
    "unknown label",
    "empty split",
    "too few labels",
    "never together",
    "not in training",
]

# For a check before there is a model: the formats and the content count, limits are those of a large one.
_ANY_INPUTS: Final = Inputs(
    image=ImageInput(
        encoder="image.onnx", features=1, max_bytes=2**28, resize=1, height=1, width=1, max_pixels=10**8
    ),
    text=TextInput(
        encoder="text.onnx",
        features=1,
        max_bytes=2**28,
        tokenizer="tokenizer.json",
        pad_id=0,
        max_tokens=1,
        max_characters=2**26,
    ),
    audio=AudioInput(
        encoder="audio.onnx",
        features=1,
        max_bytes=2**30,
        sample_rate=16_000,
        min_samples=1,
        max_seconds=3_600,
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Kind
    message: str
    rows: tuple[str, ...]  # ids, in the manifest's order; none of what is wrong with all of them together


@dataclass(frozen=True, slots=True)
class Findings:
    """`classes` and `subsets`: rows for each split and label, and for each split and set of inputs."""

    found: tuple[Finding, ...]
    rows: int
    classes: dict[str, dict[str, int]]
    subsets: dict[str, dict[str, int]]

    @property
    def is_clean(self) -> bool:
        return not self.found

    def as_json(self) -> dict[str, Any]:
        return {"clean": self.is_clean, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Contents:
    """Which input each row holds, by the sha256 of its bytes; only modalities that are read."""

    digests: dict[Modality, tuple[str | None, ...]]  # one for each row; None is absent, or missing
    bodies: dict[Modality, dict[str, Body]]  # distinct ones
    missing: tuple[Finding, ...]


def check(
    entries: Sequence[Entry],
    inputs: Inputs | None,
    labels: tuple[str, ...] | None,
    *,
    advance: Advance = silent,
) -> Findings:
    """Everything that is wrong; `labels` are the known ones, without them those that training rows have.

    `inputs` are what a model is to read. Without them all is read that there is, with limits that are wider
    than any model's, and nothing says which modalities must be together.
    """
    modalities = inputs.names if inputs is not None else ()
    inputs = inputs or _ANY_INPUTS
    contents = contents_of(entries, inputs)
    reasons = {name: _undecodable(contents, inputs, name, advance) for name in contents.bodies}
    return Findings(
        found=(
            *wrong_sets(entries, modalities),
            *contents.missing,
            *undecodable_rows(entries, contents, reasons),
            *wrong_rows(entries, contents, labels),
        ),
        rows=len(entries),
        classes=_by_split((entry.split, label) for entry in entries for label in entry.labels or ()),
        subsets=_by_split((entry.split, _subset(entry, inputs.names)) for entry in entries),
    )


def contents_of(entries: Sequence[Entry], inputs: Inputs) -> Contents:
    """Opens and hashes every input, and decodes none."""
    digests: dict[Modality, tuple[str | None, ...]] = {}
    bodies: dict[Modality, dict[str, Body]] = {}
    missing: list[Finding] = []
    for name in inputs.names:
        known: dict[Path, str] = {}  # one picture may be in many rows
        column: list[str | None] = []
        held = bodies.setdefault(name, {})
        for entry in entries:
            body, digest = entry.body(name), None
            if body is not None:
                try:
                    digest = known.get(body) if isinstance(body, Path) else None
                    digest = digest or digest_of(body)
                except OSError as error:
                    missing.append(_missing(entry, name, error))
                else:
                    held.setdefault(digest, body)
                    if isinstance(body, Path):
                        known[body] = digest
            column.append(digest)
        digests[name] = tuple(column)
    return Contents(digests=digests, bodies=bodies, missing=tuple(missing))


def wrong_rows(
    entries: Sequence[Entry], contents: Contents, labels: tuple[str, ...] | None
) -> Iterator[Finding]:
    """All that can be seen without decoding."""
    for entry in entries:
        if not any(entry.holds(name) for name in contents.digests):
            read = ", ".join(contents.digests)
            yield Finding("no modality", f"the row holds nothing that is read ({read})", (entry.id,))
    repeated = _rows_by(entries, ([entry.id] for entry in entries))
    for name, rows in repeated.items():
        if len(rows) > 1:
            yield Finding("duplicate id", f"{len(rows)} rows are called '{name}'", _ids(rows))
    yield from _leaks(entries, contents)
    yield from _wrong_labels(entries, labels)


def wrong_sets(entries: Sequence[Entry], modalities: Sequence[Modality]) -> Iterator[Finding]:
    """What no single row is to blame for, of a model that reads `modalities`."""
    yield from empty_splits(entries)
    labels = labels_of(entries)
    if len(labels) < 2:
        told = f"only '{labels[0]}'" if labels else "none"
        yield Finding("too few labels", f"of two at least, the training rows have {told}", ())
    split_of = {name: [entry for entry in entries if entry.split == name] for name in SPLITS}
    for name in ("validation", "test"):
        if split_of[name] and not any(_holds_all(entry, modalities) for entry in split_of[name]):
            yield Finding(
                "never together",
                f"no row of the split '{name}' holds {' and '.join(modalities)} together, so nothing says "
                "how they answer together. Bring such rows, or leave a modality out",
                (),
            )
    for modality in modalities:
        if split_of["train"] and not any(entry.holds(modality) for entry in split_of["train"]):
            told = f"no training row has {modality}. Bring such rows, or leave its encoder out"
            yield Finding("not in training", told, ())


def empty_splits(entries: Sequence[Entry]) -> Iterator[Finding]:
    held = {entry.split for entry in entries}
    for name in SPLITS:
        if name not in held:
            told = f"no row has the split '{name}'. A set needs {', '.join(SPLITS)}"
            yield Finding("empty split", told, ())


def _holds_all(entry: Entry, modalities: Iterable[Modality]) -> bool:
    return all(entry.holds(name) for name in modalities)


def undecodable_rows(
    entries: Sequence[Entry], contents: Contents, reasons: Mapping[Modality, Mapping[str, str]]
) -> Iterator[Finding]:
    for name, by_digest in reasons.items():
        for entry, digest in zip(entries, contents.digests[name], strict=True):
            if digest is not None and digest in by_digest:
                yield Finding("undecodable", f"{name}: {by_digest[digest]}", (entry.id,))


def _undecodable(contents: Contents, inputs: Inputs, name: Modality, advance: Advance) -> dict[str, str]:
    """Digest to the decoder's reason."""
    decode, reasons = _decoder(inputs, name), {}
    bodies = contents.bodies[name]
    for done, (digest, body) in enumerate(bodies.items(), start=1):
        try:
            decode(read_body(body))
        except InputError as error:
            reasons[digest] = error.message
        advance(name, done=done, total=len(bodies))
    return reasons


def _decoder(inputs: Inputs, name: Modality) -> Callable[[bytes], object]:
    spec = inputs.encoder(name)
    if isinstance(spec, ImageInput):
        return lambda body: decode_image(body, spec)
    if isinstance(spec, TextInput):
        return lambda body: decode_text(body, spec)
    return lambda body: decode_audio(body, spec)


def _missing(entry: Entry, name: Modality, error: OSError) -> Finding:
    body = entry.body(name)
    assert isinstance(body, Path), "only files can be missing"
    reason = "is not there" if isinstance(error, FileNotFoundError) else "cannot be read as a file"
    return Finding("missing file", f"{name}: {body} {reason}", (entry.id,))


def _leaks(entries: Sequence[Entry], contents: Contents) -> Iterator[Finding]:
    """Images and recordings alone; a text only with all else, since many rows may share a word."""
    for name in contents.digests:
        if name != "text":
            shared = _rows_by(entries, ([digest] if digest else [] for digest in contents.digests[name]))
            yield from _split_twice(shared, "in two splits", f"the same {name}")
    texts = contents.digests.get("text", (None,) * len(entries))
    alone = (
        [digest] if digest and _subset(entry, contents.digests) == "text" else []
        for entry, digest in zip(entries, texts, strict=True)
    )
    yield from _split_twice(_rows_by(entries, alone), "in two splits", "the same text, and nothing else,")
    groups = _rows_by(entries, ([entry.group] if entry.group else [] for entry in entries))
    for group, rows in groups.items():
        yield from _split_twice({group: rows}, "group in two splits", f"group '{group}'")


def _split_twice(shared: Mapping[str, Sequence[Entry]], kind: Kind, what: str) -> Iterator[Finding]:
    for rows in shared.values():
        splits = sorted({row.split for row in rows})
        if len(splits) > 1:
            yield Finding(kind, f"{what} is in {' and '.join(splits)}", _ids(rows))


def _wrong_labels(entries: Sequence[Entry], labels: tuple[str, ...] | None) -> Iterator[Finding]:
    for entry in entries:
        if entry.split not in SPLITS:
            said = f"'{entry.split}'" if entry.split else "nothing"
            yield Finding("unknown split", f"the split is {said}, not {', '.join(SPLITS)}", (entry.id,))
        if entry.labels is None:
            yield Finding("no label", "the row has no label", (entry.id,))
    trained = labels_of(entries)
    for label, rows in _rows_by(entries, (entry.labels or () for entry in entries)).items():
        if labels is not None and label not in labels:
            yield Finding("unknown label", f"'{label}' is not one of the labels", _ids(rows))
        elif label not in trained:
            yield Finding("unknown label", f"'{label}' is not a label of any training row", _ids(rows))


def labels_of(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Those of training rows, sorted."""
    return tuple(
        sorted({label for entry in entries if entry.split == "train" for label in entry.labels or ()})
    )


def _rows_by(entries: Sequence[Entry], keys: Iterable[Iterable[str]]) -> dict[str, list[Entry]]:
    rows: dict[str, list[Entry]] = defaultdict(list)
    for entry, held in zip(entries, keys, strict=True):
        for key in held:
            rows[key].append(entry)
    return rows


def _ids(rows: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(row.id for row in rows)


def _subset(entry: Entry, read: Iterable[Modality]) -> str:
    return subset_name(tuple(name for name in read if entry.holds(name))) or "nothing"


def _by_split(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    counted = Counter(pairs)
    splits = sorted(
        {split for split, _ in counted}, key=lambda name: (name not in SPLITS, _place(name), name)
    )
    return {
        split: {name: count for (at, name), count in sorted(counted.items()) if at == split}
        for split in splits
    }


def _place(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)
