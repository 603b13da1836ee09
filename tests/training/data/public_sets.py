"""The public sets in their published layouts, small and made here; MNIST and FSDD are in fake_sets.py."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import lzma
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.data.media import png, recorded, sound
from tests.training.fake_sets import VALIDATION_IMAGES, FakeSets
from training.data import article, avt_digits, noise
from training.data.article import PICTURES, TOPICS, Article
from training.data.avt_digits import AvtDigits
from training.data.download import Source
from training.data.picturewords import PictureWords, sources

LANGUAGES = ("aa", "bb", "cc_XX", "cc", "dd@latin", "ee", "ff", "ru", "uk", "be", "hy", "ko", "th")
_CYRILLIC, _OTHER = ("ru", "uk", "be"), {"hy": "Զ", "ko": "공", "th": "ก"}


def avt_digits_set(folder: Path, digits: FakeSets) -> AvtDigits:
    """Three languages for test, two for validation; noise is named for its fold."""
    words = [
        {"digit": digit, "lang": lang, "text": _word(lang, digit)}
        for digit in range(10)
        for lang in LANGUAGES
    ]
    words.append({"digit": 3, "lang": "sr", "text": "Drvo"})
    words += [{"digit": digit, "lang": "sr", "text": f"sr{digit}"} for digit in (1, 2)]
    lines = "".join(json.dumps(word) + "\n" for word in words)
    clips = {f"audio/{fold}/{take}.ogg": fold for fold in range(1, 6) for take in range(2)}
    told = [{"file": name, "class": f"noise {fold}", "fold": fold} for name, fold in clips.items()]
    sounds = {name: sound(at, seconds=0.7, rate_hz=16_000, kind="OGG") for at, name in enumerate(clips)}
    return AvtDigits(
        images=digits.data.images,
        recordings=digits.data.recordings,
        speakers=digits.data.speakers,
        words=_zipped(folder, avt_digits.WORDS, {"number_words.jsonl": lines.encode()}),
        noise=_zipped(folder, noise.SOURCE, {"meta.csv": _table(told), **sounds}),
        validation_images=VALIDATION_IMAGES,
        train_draws=3,
        held_out_draws=2,
        test_languages=3,
        validation_languages=3,
    )


def _word(locale: str, digit: int) -> str:
    """Regions of one language have the same words."""
    language = locale.split("_")[0].split("@")[0]
    letter = "ж" if language in _CYRILLIC else _OTHER.get(language, "w")
    return f"{letter}{language}{digit}."


def article_set(folder: Path, digits: FakeSets) -> Article:
    """Four training and two test pictures, six and two articles of each class; the first is sent twice."""
    pictures = [
        {"file": f"{split}/{name}/{number}.png", "split": split, "class": name}
        for split, count in (("train", 4), ("test", 2))
        for name in PICTURES
        for number in range(count)
    ]
    bodies = {told["file"]: png(at, side=32) for at, told in enumerate(pictures)}
    news = [
        {
            "id": number,
            "split": split,
            "topic": topic,
            "title": f"{topic} {number}",
            "body": f"{split}\n" * 40,
        }
        for split, count in (("train", 6), ("test", 2))
        for topic in TOPICS
        for number in range(count)
    ]
    news.append({**news[-1], "split": "train"})
    path = folder / article.REUTERS.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress("".join(json.dumps(row) + "\n" for row in news).encode()))
    return Article(
        images=_zipped(folder, article.CIFAR10, {"labels.csv": _table(pictures), **bodies}),
        news=_pinned(folder, article.REUTERS),
        recordings=digits.data.recordings,
        speakers=digits.data.speakers,
        validation_share=0.25,
    )


# id, concept, label, alphabet, lang, text, split; each concept has one picture, each row its recording
_ROWS: tuple[tuple[str, str, str | None, bool, str, str, str], ...] = (
    ("dog-en", "dog", "animal", False, "en", "A dog.", "train"),
    ("dog-fr", "dog", "animal", False, "fr", "Un chien.", "train"),
    ("cake-en", "cake", "food", False, "en", "cake", "train"),
    ("b-en", "b", "symbol", True, "en", "B", "train"),
    ("star-en", "star", None, False, "en", "star", "train"),
    ("cat-en", "cat", "animal", False, "en", "A cat.", "val"),
    ("bread-en", "bread", "food", False, "en", "bread", "test"),
    ("moon-en", "moon", None, False, "en", "moon", "test"),
)


def picturewords_set(folder: Path) -> PictureWords:
    """Two training concepts with a label, one of letters, one without; one concept in each other split."""
    rows = [
        {
            "id": name, "item": f"abc/{concept}", "source": "abecedarium", "category": "some", "label": label,
            "alphabet": is_letter, "group": f"abc/{concept}", "lang": lang, "speaker": f"voice-{lang}",
            "text": text, "text_lang": lang, "image_zip": "art4apps.zip", "image": f"images/{concept}.png",
            "audio_zip": "gcompris.zip" if lang == "fr" else "art4apps.zip", "audio": f"audio/{name}.ogg",
            "split": split,
        }
        for name, concept, label, is_letter, lang, text, split in _ROWS
    ]  # fmt: skip
    held: dict[str, dict[str, bytes]] = {"art4apps.zip": {}, "gcompris.zip": {}, "tuxpaint.zip": {}}
    for at, row in enumerate(rows):
        held["art4apps.zip"][str(row["image"])] = png(hash_of(str(row["image"])), mode="RGBA")
        held[str(row["audio_zip"])][str(row["audio"])] = recorded(_tone(at), rate_hz=16_000, kind="OGG")
    texts = {
        "dog": {"en": "A dog.", "de": "Ein Hund.", "da": "bread"},  # the last is what a test row says
        "cake": {"en": "cake", "fr": "gâteau", "sv": "kaka", "nb": "kaka"},
        "star": {"de": "Stern"},
        "cat": {"de": "Eine Katze."},
    }
    items = [{"item": f"abc/{concept}", "texts": told} for concept, told in texts.items()]
    (folder / "picturewords").mkdir(parents=True)
    for name, members in held.items():
        (folder / "picturewords" / name).write_bytes(_zip(members))
    for name, lines in (("index.jsonl.gz", rows), ("items.jsonl.gz", items)):
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        (folder / "picturewords" / name).write_bytes(gzip.compress(body, mtime=0))
    names = [*held, "index.jsonl.gz", "items.jsonl.gz"]
    return PictureWords(sources({name: (_sha256(folder / "picturewords" / name),) for name in names}))


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _tone(number: int) -> Any:
    return (0.4 * np.sin(np.arange(3_200) * (0.05 + 0.01 * number))).astype(np.float32)


def _table(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _zip(members: dict[str, bytes]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return body.getvalue()


def _zipped(folder: Path, source: Source, members: dict[str, bytes]) -> Source:
    (folder / source.path).parent.mkdir(parents=True, exist_ok=True)
    (folder / source.path).write_bytes(_zip(members))
    return _pinned(folder, source)


def _pinned(folder: Path, source: Source) -> Source:
    return replace(source, sha256=_sha256(folder / source.path))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
