"""Texts for each split, drawn from number words, digit signs, carrier phrases and misspellings.

Correctly spelt words are a closed lexicon that all splits share: there is no other "seven". Misspelt
strings are not shared: none of validation or test is ever seen in training, in any case or carrier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.items import Texts
from training.data.misspellings import garble, misspellings
from training.data.number_words import CARRIERS, digit_signs, number_words, surface


@dataclass(frozen=True, slots=True)
class TextMix:
    """Shares of what is drawn; the rest are plain words. A sum of at most 1."""

    signs: float
    carriers: float
    misspelt: float
    garbled: float = 0.0
    garble_rate: float = 0.0  # of characters


@dataclass(frozen=True, slots=True, eq=False)
class NumberTexts:
    texts: Texts
    labels: NDArray[np.int64]  # [items]
    is_misspelt: NDArray[np.bool_]  # [items]


@dataclass(frozen=True, slots=True)
class _Stock:
    """What one class can be drawn from."""

    words: tuple[str, ...]
    signs: tuple[str, ...]
    misspelt: tuple[str, ...]


def draw_texts(mix: TextMix, *, split: str, per_class: int, seed: int) -> NumberTexts:
    """`per_class` strings for each digit."""
    rng = np.random.default_rng([seed, ("train", "validation", "test").index(split)])
    words, slips = number_words(), misspellings(number_words())
    held_out = frozenset(slips["validation"]) | frozenset(slips["test"])
    stocks = _stocks(words, slips[split])
    rows: list[tuple[str, int, bool]] = []
    for digit in range(10):
        for _ in range(per_class):
            text, is_misspelt = _draw(stocks[digit], mix, held_out, rng)
            rows.append((text, digit, is_misspelt))
    strings, labels, flags = zip(*rows, strict=True)
    return NumberTexts(Texts(strings), np.array(labels, np.int64), np.array(flags, np.bool_))


def _stocks(words: dict[str, int], slips: dict[str, int]) -> dict[int, _Stock]:
    def of(digit: int, texts: dict[str, int]) -> tuple[str, ...]:
        return tuple(text for text, meaning in texts.items() if meaning == digit)

    signs = digit_signs()
    return {d: _Stock(words=of(d, words), signs=of(d, signs), misspelt=of(d, slips)) for d in range(10)}


def _draw(
    stock: _Stock, mix: TextMix, held_out: frozenset[str], rng: np.random.Generator
) -> tuple[str, bool]:
    kind = rng.random()
    if kind < mix.signs:
        return _dress(_pick(stock.signs, rng), rng, carrier=rng.random() < 0.5), False
    kind -= mix.signs
    if kind < mix.misspelt:
        return _dress(_pick(stock.misspelt, rng), rng, carrier=False), True
    word = _pick(stock.words, rng)
    kind -= mix.misspelt
    if kind < mix.garbled:
        damaged = garble(word, rate=mix.garble_rate, rng=rng)
        return (word if surface(damaged) in held_out else damaged), False
    return _dress(word, rng, carrier=kind - mix.garbled < mix.carriers), False


def _dress(text: str, rng: np.random.Generator, *, carrier: bool) -> str:
    """Lower, upper or title case, perhaps inside a phrase."""
    cased = (text, text.upper(), text.title())[rng.choice(3, p=(0.6, 0.2, 0.2))]
    return _pick(CARRIERS, rng).format(cased) if carrier else cased


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]
