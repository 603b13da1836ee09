"""Two bundles on the same rows in turns, in one process: which is faster, whatever else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.bundle.sample import Sample
from app.runtime.predictor import Predictor

BATCHES: Final = (1, 32)  # rows
_DRAWS: Final = 1_000
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median seconds of the challenger over those of the champion: below 1 it is faster."""

    rows: int  # of each batch
    rounds: int
    champion_s: float
    challenger_s: float
    value: float
    interval: tuple[float, float]  # 95 %, by bootstrap over rounds


Race = Callable[[Predictor, Predictor, list[Sample]], tuple[Ratio, ...]]
"""Champion, challenger, rows with all modalities; a ratio for each of `BATCHES`."""


def race(
    champion: Predictor,
    challenger: Predictor,
    samples: list[Sample],
    *,
    rounds: int = 300,
    least_rounds: int = 30,
    seconds: float = 15.0,
) -> tuple[Ratio, ...]:
    """Encoders and fusion, as the server runs them; at most `seconds` for each batch size, if it can be."""
    return tuple(
        _ratio(champion, challenger, samples, rows=rows, rounds=(least_rounds, rounds), seconds=seconds)
        for rows in BATCHES
    )


def _ratio(
    champion: Predictor,
    challenger: Predictor,
    samples: list[Sample],
    *,
    rows: int,
    rounds: tuple[int, int],
    seconds: float,
) -> Ratio:
    pairs: list[tuple[float, float]] = []
    batches = [[samples[(start + at) % len(samples)] for at in range(rows)] for start in range(8)]
    for batch in batches[:3]:  # caches and frequencies settle
        _seconds(champion, batch)
        _seconds(challenger, batch)
    started = time.perf_counter()
    while len(pairs) < rounds[0] or (len(pairs) < rounds[1] and time.perf_counter() - started < seconds):
        batch = batches[len(pairs) % len(batches)]
        if len(pairs) % 2:  # neither is always the one that finds the other's data in the caches
            second = _seconds(challenger, batch)
            pairs.append((_seconds(champion, batch), second))
        else:
            pairs.append((_seconds(champion, batch), _seconds(challenger, batch)))
    times = np.array(pairs)
    drawn = np.random.default_rng(_SEED).integers(len(pairs), size=(_DRAWS, len(pairs)))
    medians = np.median(times[drawn], axis=1)
    low, high = np.quantile(medians[:, 1] / medians[:, 0], (0.025, 0.975)).tolist()
    champion_s, challenger_s = np.median(times, axis=0).tolist()
    return Ratio(
        rows=rows,
        rounds=len(pairs),
        champion_s=champion_s,
        challenger_s=challenger_s,
        value=challenger_s / champion_s,
        interval=(low, high),
    )


def _seconds(predictor: Predictor, batch: list[Sample]) -> float:
    started = time.perf_counter()
    predictor.run(batch)
    return time.perf_counter() - started
