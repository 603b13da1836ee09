"""AVT-Digits: three hard ways to say a digit, none of which is enough alone.

* image: MNIST, each picture redrawn from four numbers (principal components fitted on the training images);
* audio: FSDD in ESC-10 noise, the ratio drawn uniformly from -12 to 0 dB;
* text: number words of people's translations, measured in languages that training never saw.

Rows are paired by digit inside a split, so given the digit the modalities are independent. Everything is
drawn from one seed. It stands for the set called AV-MNIST, of which there is no build that can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import Inputs
from training.data import noise as esc10
from training.data.archives import read_members
from training.data.checksum import with_checksum
from training.data.dataset import Dataset, PairedByClass, Split
from training.data.download import Source
from training.data.fsdd import COMMIT, FINGERPRINTS, Recordings, archive_source, load_fsdd
from training.data.home import Home
from training.data.items import Clips, Images, Items, Labelled, Texts
from training.data.mnist import Handwritten, load_mnist, sources
from training.data.noise import Noise, load_noise, mixed
from training.data.principal import Components, fit_components

LABELS: Final = tuple("0123456789")

# Of the set that the defaults build from the published files, for 28 x 28 pixels and 8 kHz. Another version
# of a decoder or resampler may round a sample otherwise and so give another one.
CHECKSUM: Final = "0a646ffe0bffe54ae72eaaad4636f594c4efbee8f62a1245d8c3ef1f4b60a32b"

WORDS: Final = Source(
    path="digits_multilingual/digits_multilingual.zip",
    mirrors=(),
    sha256="60a42b31a5a84057ef64160e052bde11ac9c0241507a5d6aa7353a4bc4cf361a",
    origin=(
        "github.com/deepin-community/tuxpaint-stamps at commit 6e3b534, stamps/symbols/math/N.txt "
        "(as number_words.jsonl: digit, lang, text)"
    ),
)
_WRONG_WORDS: Final = {("sr", 3)}  # upstream writes "tree" for "three"
_SPLITS: Final = ("train", "validation", "test")
# Languages that are read by the help of their relatives, near and far; all others stand alone here.
_FAMILIES: Final = (
    # Romance, and Esperanto, which was made from it
    frozenset({"an", "ast", "ca", "eo", "es", "fr", "gl", "it", "oc", "pt", "ro", "vec"}),
    # Germanic
    frozenset({"af", "da", "de", "en", "is", "nb", "nl", "nn", "sv"}),
    # Slavic
    frozenset({"be", "bg", "cs", "hr", "mk", "pl", "ru", "sk", "sl", "sr", "uk"}),
    # Celtic, Baltic, Iranian and Indic, and single branches: Indo-European, too
    frozenset({"cy", "ga", "gd", "lt", "lv", "fa", "ku", "gu", "hi", "el", "hy", "sq"}),
    # Afro-Asiatic, Austronesian, Bantu, Uralic: each has two here at least
    frozenset({"am", "ar", "he", "kab", "id", "ms", "sw", "zu", "fi", "hu"}),
)
_SNR_STEP_DB: Final = 3  # of the column that accuracy is sliced by

# ESC-10's fold 5 is for test. Validation must be to training what test is, or thresholds fitted on it would
# promise too much: unheard noise, from unheard sources. So it takes a whole fold, too, and leaves three.
_NOISE_FOLDS: Final = {"train": (1, 2, 3), "validation": (4,), "test": (5,)}


@dataclass(frozen=True, slots=True)
class AvtDigits:
    """Which files are read, and every number that the set is made by."""

    images: dict[str, Source] = field(default_factory=sources)
    recordings: Source = field(default_factory=archive_source)
    speakers: dict[str, str] = field(default_factory=lambda: dict(FINGERPRINTS))
    noise: Source = esc10.SOURCE
    words: Source = WORDS
    validation_images: int = 5_000  # of the 60,000 for training
    components: int = 4
    snr_db: tuple[float, float] = (-12, 0)
    train_draws: int = 8  # noisy versions of each recording
    held_out_draws: int = 4
    test_languages: int = 20
    validation_languages: int = 15
    seed: int = 20_240_607


def load_avt_digits(home: Home, inputs: Inputs, data: AvtDigits | None = None) -> Dataset:
    """Raises DataError."""
    made = data or AvtDigits()
    assert inputs.image is not None
    assert inputs.audio is not None
    train, test = (load_mnist(home, inputs.image, made.images, part=part) for part in ("train", "t10k"))
    learnt, held_out = train.split(held_out=made.validation_images)
    components = fit_components(_grey(learnt), count=made.components)
    images = {"train": learnt, "validation": held_out, "test": test}
    spoken = load_fsdd(home, inputs.audio, made.recordings, speakers=made.speakers)
    noises = load_noise(home, inputs.audio, made.noise)
    words = read_words(home, made.words)
    languages = languages_of(words, made)

    def split(name: str) -> Split:
        written_by_hand = images[name]
        labels = written_by_hand.labels
        clips, heard = _noisy(name, spoken, noises, made)
        texts, written = texts_of([word for word in words if word.language in languages[name]])
        return Split(
            items=Items(
                images=Images(components.redraw(_grey(written_by_hand))[..., None]), texts=texts, clips=clips
            ),
            pairing=PairedByClass(
                {
                    "image": Labelled(labels=labels, groups=written_by_hand.groups),
                    "text": written,
                    "audio": heard,
                }
            ),
        )

    return with_checksum(
        Dataset(
            train=split("train"),
            validation=split("validation"),
            test=split("test"),
            provenance=_provenance(made, components, languages),
        )
    )


def _grey(written: Handwritten) -> NDArray[np.uint8]:
    return written.images.pixels[..., 0]


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    digit: int
    language: str  # without region or script: what differs by those alone is not unseen


def read_words(home: Home, source: Source = WORDS) -> tuple[Word, ...]:
    """Distinct words of each language, in the order of the file. Raises DataError."""
    path = home.file(source)
    lines = read_members(path, ["number_words.jsonl"])["number_words.jsonl"].decode("utf-8").splitlines()
    words = (
        Word(text=told["text"], digit=int(told["digit"]), language=_language(told["lang"]))
        for told in map(json.loads, lines)
    )
    return tuple(dict.fromkeys(word for word in words if (word.language, word.digit) not in _WRONG_WORDS))


def _language(locale: str) -> str:
    """`pt_BR` and `sr@latin` are `pt` and `sr`."""
    return locale.split("_")[0].split("@")[0]


def languages_of(words: Sequence[Word], made: AvtDigits) -> dict[str, frozenset[str]]:
    """Split to languages, none in two.

    Dealt kind by kind in equal parts. How well a new language is read depends on whether training knows
    its relatives, so validation must be as foreign as test to stand for it: a fifth of each has none.
    """
    kinds = {word.language: _kind(word.language) for word in words}
    shuffled: list[str] = np.random.default_rng([made.seed, 0]).permutation(sorted(kinds)).tolist()
    order = sorted(shuffled, key=kinds.__getitem__)
    test = _evenly(order, made.test_languages)
    rest = [language for language in order if language not in test]
    validation = _evenly(rest, made.validation_languages)
    return {"test": test, "validation": validation, "train": frozenset(rest) - validation}


def _evenly(ordered: Sequence[str], count: int) -> frozenset[str]:
    """So many, as far from each other in the order as can be."""
    size = len(ordered)
    return frozenset(ordered[(2 * at + 1) * size // (2 * count)] for at in range(count))


def _kind(language: str) -> int:
    """The number of its family, or the next one: alone."""
    return next((number for number, family in enumerate(_FAMILIES) if language in family), len(_FAMILIES))


def texts_of(words: Sequence[Word]) -> tuple[Texts, Labelled]:
    """Words of one language are one group: a model that cannot read its script fails on all of them."""
    languages = np.array([word.language for word in words])
    return Texts(tuple(word.text for word in words)), Labelled(
        labels=np.array([word.digit for word in words], np.int64),
        groups=np.unique(languages, return_inverse=True)[1].astype(np.int64),
        columns={"language": languages},
    )


def _noisy(
    split: str, spoken: Recordings, noises: Sequence[Noise], made: AvtDigits
) -> tuple[Clips, Labelled]:
    """Every recording of the split several times, each time in other noise; its versions are one group."""
    index = spoken.indices
    chosen = {"train": index >= 10, "validation": (index >= 5) & (index < 10), "test": index < 5}[split]
    rows = np.repeat(np.flatnonzero(chosen), made.train_draws if split == "train" else made.held_out_draws)
    rng = np.random.default_rng([made.seed, 1, _SPLITS.index(split)])
    around = [noise for noise in noises if noise.fold in _NOISE_FOLDS[split]]
    drawn = [around[at] for at in rng.integers(len(around), size=len(rows))]
    snr_db = rng.uniform(*made.snr_db, size=len(rows))
    clips = Clips.of(
        mixed(spoken.clips[int(row)], noise.samples, snr_db=float(ratio), rng=rng)
        for row, noise, ratio in zip(rows, drawn, snr_db, strict=True)
    )
    lowest_db = (np.floor(snr_db / _SNR_STEP_DB) * _SNR_STEP_DB).astype(np.int64)
    return clips, Labelled(
        labels=spoken.labels[rows],
        groups=rows.astype(np.int64),
        columns={
            "speaker": spoken.speakers[rows],
            "noise": np.array([noise.kind for noise in drawn]),
            "snr_db": np.array([f"{low} to {low + _SNR_STEP_DB}" for low in lowest_db]),
        },
    )


def _provenance(
    made: AvtDigits, components: Components, languages: dict[str, frozenset[str]]
) -> dict[str, Any]:
    return {
        "images": {
            "name": "MNIST",
            "sha256": {name: source.sha256 for name, source in made.images.items()},
            "components": made.components,
            "share_of_variance": round(float(components.shares.sum()), 4),
        },
        "recordings": {
            "name": "Free Spoken Digit Dataset",
            "commit": COMMIT,
            "licence": "CC-BY-SA-4.0",
            "speakers": made.speakers,
        },
        "noise": {
            "name": "ESC-10",
            "licence": "CC-BY-3.0",
            "sha256": made.noise.sha256,
            "snr_db": list(made.snr_db),
            "folds": {name: list(folds) for name, folds in _NOISE_FOLDS.items()},
            "draws": {"train": made.train_draws, "held out": made.held_out_draws},
        },
        "texts": {
            "name": "Tux Paint stamps, number words",
            "licence": "GPL-2.0-or-later",
            "sha256": made.words.sha256,
            "languages": {name: sorted(held) for name, held in languages.items()},
        },
        "seed": made.seed,
    }
