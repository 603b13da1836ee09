"""PictureWords: a picture, its written name in some language, and a person who says it; ten kinds of things.

Real triples of three children's programs (Tux Paint stamps, Art4Apps by way of Abecedarium, GCompris voices).
No picture, text or recording of a concept is in two splits: the concept is the group of all three modalities.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import Inputs
from training.data.archives import read_members
from training.data.cache import Cache
from training.data.check import contents_of, wrong_rows
from training.data.checksum import with_checksum
from training.data.dataset import ABSENT, Dataset
from training.data.download import Source, one_of
from training.data.errors import DataCorrupt
from training.data.home import Home
from training.data.items import Texts
from training.data.load import dataset_of, refuse
from training.data.manifest import Entry

LABELS: Final = (
    "action", "animal", "building", "clothes", "food", "household", "nature", "people", "symbol", "transport",
)  # fmt: skip

_ORIGINS: Final = {
    "tuxpaint.zip": "github.com/deepin-community/tuxpaint-stamps at commit 6e3b534 (GPL-2.0-or-later)",
    "art4apps.zip": "github.com/llaske/Abecedarium.activity at commit 7c100c5 (CC-BY-SA-3.0)",
    "gcompris.zip": "github.com/gcompris/GCompris-voices at commit c0e8a74 (GPL-3.0 and others)",
    "index.jsonl.gz": "the three archives: one row for each picture and recording",
    "items.jsonl.gz": "the three archives: one row for each picture, with its texts",
}
# Two editions: the whole set, and one without a half of the test split.
_SHA256: Final = {
    "tuxpaint.zip": (
        "dbfbf133f57b47d6137625ca1878f641c9b9639f341a76cf3d2f5bf4721b0d1d",
        "87d8096547eca224049633bf04c061eaeba9d72fe5f124500b20e7143b81c7d4",
    ),
    "art4apps.zip": (
        "83b1889a1fdd6c812b86fbb24194b88ae0b219c0096fc8f9848452b20541fe8c",
        "f66bc83f602b418aa2db251136ba7e920483bd46c67e7773d948148600f39e3d",
    ),
    "gcompris.zip": (
        "109b4aba80ac77d652d102a9ab7c3960ff16b4df81bbc45887661585af50ebe6",
        "e2778974cbcc3dd01b44ce7aaa89fc6c1b40be08f7eff4c2ba334a642f5b6d4d",
    ),
    "index.jsonl.gz": (
        "47bb2d33ad6dfe9fbbbf1251e8747d335cd916c19cd905ccb452fc0bddde5229",
        "e2522c9c602e23650985a0273ffb02c94a1fd07071d12ae8e0f4a443dd3d2135",
    ),
    "items.jsonl.gz": (
        "4daa4d72c7ac76596519b1c1bf20480c5a0332180b012dca91e569aa9f116b5a",
        "6539b1e3893403d017299c689d27299dedd10808c63cc728bb28902c73140df7",
    ),
}
_SPLITS: Final = {"train": "train", "val": "validation", "test": "test"}
_COLUMNS: Final = ("source", "lang", "speaker", "category", "item")


def sources(sha256: dict[str, tuple[str, ...]] | None = None) -> dict[str, Source]:
    """The five files, by name."""
    return {
        name: Source(
            path=f"picturewords/{name}",
            mirrors=(),
            check=partial(one_of, sha256=digests),
            origin=_ORIGINS[name],
        )
        for name, digests in (sha256 or _SHA256).items()
    }


@dataclass(frozen=True, slots=True)
class PictureWords:
    """Which files are read, and which rows of them."""

    files: dict[str, Source] = field(default_factory=sources)
    all_training_rows: bool = False  # also those without a label, and letters: their class is ABSENT
    other_names: bool = False  # also rows of a training picture's name alone, where nobody says it


def load_picturewords(home: Home, inputs: Inputs, cache: Cache, data: PictureWords | None = None) -> Dataset:
    """Rows with a label that are no letters, in their own splits. Raises DataError."""
    made = data or PictureWords()
    index = read_index(home, made.files)
    chosen = [row for row in index if _counts(row) or (made.all_training_rows and row["split"] == "train")]
    bodies = _bodies(home, made.files, chosen)
    entries = [_entry(row, bodies) for row in chosen]
    named = _named(home, made, chosen) if made.other_names else []
    entries += named
    contents = contents_of(entries, inputs)
    refuse([one for one in wrong_rows(entries, contents, LABELS) if one.kind != "no label"])
    provenance: dict[str, Any] = {
        "name": "PictureWords",
        "sources": {name: _ORIGINS[name] for name in ("tuxpaint.zip", "art4apps.zip", "gcompris.zip")},
        "rows": {split: sum(row["split"] == short for row in chosen) for short, split in _SPLITS.items()},
        "all_training_rows": made.all_training_rows,
        "other_names": len(named),
    }
    return with_checksum(dataset_of(entries, contents, inputs, LABELS, cache, provenance=provenance))


@dataclass(frozen=True, slots=True, eq=False)
class ExtraTexts:
    """What else the training pictures are called, in up to 68 languages: for a text encoder to learn from."""

    texts: Texts
    labels: NDArray[np.int64]  # [texts], ABSENT where the picture has none
    languages: NDArray[np.str_]  # [texts]
    items: NDArray[np.str_]  # [texts], the picture, as in the column `item`


def extra_texts(home: Home, data: PictureWords | None = None) -> ExtraTexts:
    """Distinct for each picture. No string that a row of validation or test holds, whatever its case.

    Raises DataError.
    """
    made = data or PictureWords()
    index = read_index(home, made.files)
    held_out = {_plain(row["text"]) for row in index if row["split"] != "train"}
    label_of = {row["item"]: _label(row) for row in index if row["split"] == "train"}
    found: dict[tuple[str, str], str] = {}  # item and text, to the first language
    for row in _read_lines(home.file(made.files["items.jsonl.gz"])):
        for language, text in row["texts"].items():
            if row["item"] in label_of and text.strip() and _plain(text) not in held_out:
                found.setdefault((row["item"], text), language)
    labels = (label_of[item] for item, _ in found)
    return ExtraTexts(
        texts=Texts(tuple(text for _, text in found)),
        labels=np.array([ABSENT if label is None else LABELS.index(label) for label in labels], np.int64),
        languages=np.array(list(found.values())),
        items=np.array([item for item, _ in found]),
    )


def _named(home: Home, made: PictureWords, chosen: list[dict[str, Any]]) -> list[Entry]:
    """Rows of a text alone, in the languages of the rows that are spoken: no word of another one is asked."""
    known = {(row["item"], row["text"]) for row in chosen}
    group_of = {row["item"]: row["group"] for row in chosen if row["split"] == "train"}
    languages = {row["text_lang"] for row in chosen}
    extra = extra_texts(home, made)
    found = zip(
        extra.texts.strings,
        extra.labels.tolist(),
        extra.languages.tolist(),
        extra.items.tolist(),
        strict=True,
    )
    return [
        Entry(
            id=f"{item}#{language}",
            split="train",
            image=None,
            text=text,
            audio=None,
            labels=(LABELS[label],),
            group=group_of[item],
            columns={"source": "", "lang": language, "speaker": "", "category": "", "item": item},
        )
        for text, label, language, item in found
        if label != ABSENT and language in languages and item in group_of and (item, text) not in known
    ]


def read_index(home: Home, files: dict[str, Source]) -> list[dict[str, Any]]:
    """One row for each example: id, item, label, group, text, image, audio, split, and more."""
    return list(_read_lines(home.file(files["index.jsonl.gz"])))


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    except (OSError, EOFError, ValueError) as error:
        raise DataCorrupt(f"{path.name} is not a complete list of rows. Fetch it again.") from error


def _counts(row: dict[str, Any]) -> bool:
    """Letters of the alphabet are left out: there is nothing to tell apart."""
    return row["label"] is not None and not row["alphabet"]


def _label(row: dict[str, Any]) -> str | None:
    return row["label"] if _counts(row) else None


def _plain(text: str) -> str:
    return text.casefold().strip(" .!")


def _bodies(home: Home, files: dict[str, Source], rows: list[dict[str, Any]]) -> dict[tuple[str, str], bytes]:
    """Archive and name, to content."""
    names: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        names[row["image_zip"]].append(row["image"])
        names[row["audio_zip"]].append(row["audio"])
    return {
        (archive, name): body
        for archive, held in sorted(names.items())
        for name, body in read_members(home.file(files[archive]), held).items()
    }


def _entry(row: dict[str, Any], bodies: dict[tuple[str, str], bytes]) -> Entry:
    label = _label(row)
    return Entry(
        id=row["id"],
        split=_SPLITS[row["split"]],
        image=bodies[row["image_zip"], row["image"]],
        text=row["text"],
        audio=bodies[row["audio_zip"], row["audio"]],
        labels=None if label is None else (label,),
        group=row["group"],
        columns={name: row[name] for name in _COLUMNS},
    )
