"""Number words with one slip of the finger, and which split may see each of them.

The rule: two neighbouring letters swapped, one dropped, one doubled, or one replaced by a neighbour on a
QWERTY keyboard, anywhere in a word of three letters or more. What a slip makes of the words of two digits,
or what is a word itself, is left out. A string's sha256 decides its split, so no string is in two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from training.data.number_words import surface, unambiguous

_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_CURATED: Final[dict[str, int]] = {
    # English
    "ziro": 0, "zeero": 0, "wun": 1, "tow": 2, "tree": 3, "thre": 3, "threee": 3, "fore": 4, "foor": 4,
    "fiv": 5, "faiv": 5, "siks": 6, "sevn": 7, "sevan": 7, "eigt": 8, "eihgt": 8, "eigth": 8, "ate": 8,
    "nien": 9, "nain": 9,
    # French
    "sero": 0, "deu": 2, "troi": 3, "trios": 3, "quattre": 4, "catre": 4, "sinq": 5, "cinc": 5, "sept'": 7,
    "sèpt": 7, "uit": 8, "neufe": 9, "noeuf": 9,
    # German
    "ains": 1, "zwai": 2, "drai": 3, "fier": 4, "führ": 4, "funf": 5, "fuenf": 5, "fümf": 5, "seks": 6,
    "sex": 6, "siben": 7, "siebn": 7, "ahct": 8, "acth": 8, "noin": 9, "neuen": 9,
    # Spanish
    "sinco": 5, "cuarto": 4, "quatro": 4, "seiz": 6, "ciete": 7, "siette": 7, "hocho": 8, "osho": 8,
    "nuebe": 9, "nuebve": 9, "zero": 0,
}  # fmt: skip
_SPLITS: Final = ("train",) * 8 + ("validation", "test")  # eighty, ten, ten per cent


def misspellings(words: dict[str, int]) -> dict[str, dict[str, int]]:
    """Split name -> misspelt surface form -> digit."""
    slips = [(surface(slip), digit) for word, digit in words.items() for slip in single_slips(word)]
    found = unambiguous([*slips, *((surface(text), digit) for text, digit in _CURATED.items())])
    split: dict[str, dict[str, int]] = {name: {} for name in ("train", "validation", "test")}
    for text, digit in found.items():
        if text not in words:
            split[split_of(text)][text] = digit
    return split


def split_of(text: str) -> str:
    return _SPLITS[hashlib.sha256(text.encode()).digest()[0] % len(_SPLITS)]


def single_slips(word: str) -> Iterator[str]:
    """All misspellings of a word by the rule above."""
    if len(word) < 3:
        return
    for at, letter in enumerate(word):
        head, tail = word[:at], word[at + 1 :]
        yield head + tail
        yield head + letter + letter + tail
        if tail and tail[0] != letter:
            yield head + tail[0] + letter + tail[1:]
        for key in _neighbours(letter):
            yield head + key + tail


def garble(text: str, *, rate: float, rng: np.random.Generator) -> str:
    """Damage each character with probability `rate`: dropped, doubled, swapped with the next, or replaced."""
    letters = list(text)
    for at in range(len(letters)):
        if rng.random() >= rate:
            continue
        damage = rng.integers(4)
        if damage == 0:
            letters[at] = ""
        elif damage == 1:
            letters[at] *= 2
        elif damage == 2 and at + 1 < len(letters):
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        else:
            letters[at] = chr(ord("a") + int(rng.integers(26)))
    return "".join(letters).strip() or "?"


def _neighbours(letter: str) -> str:
    for row in _ROWS:
        at = row.find(letter)
        if at >= 0:
            return row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    return ""
