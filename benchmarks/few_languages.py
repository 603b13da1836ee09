"""What can a calibration error over twenty languages show? Of text alone on avt_digits, again and again.

    python -m benchmarks.few_languages --data DIR [--draws 60]

The recipe's test languages are not looked at. Of all others twenty are drawn, evenly over families as the
recipe draws them, and text alone is taught on the rest; answers to words of the rest, each without its own
language, give the temperature. Then the twenty are asked. Beside what the model says stand:

* a perfect model: the same probabilities, and digits drawn by them, so that no error is left but chance;
* levels: so many confidences and no more, of as many words each, the mean of what the model says there
  (scaling-binning, Kumar et al., NeurIPS 2019), which chance blurs less, and which say less.

For each the mean over the draws, and in which share of them ECE is at most 5 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from training.alone import recipe_alone
from training.batch import Stock
from training.calibrate.temperature import fit_temperature, independent_rows
from training.data.avt_digits import AvtDigits, Word, languages_of, read_words, texts_of
from training.data.dataset import Dataset, PairedByClass, Split
from training.data.home import Home
from training.data.items import Items
from training.encodings import Encodings, encode
from training.measure.scores import Score, score
from training.progress import silent
from training.recipes.avt_digits import avt_digits
from training.run import evaluation_rows, preparer_of, train

_LEVELS: Final = (5, 3, 2, 1)
_ASKED: Final = 0.05  # of an ECE
_RESAMPLES: Final = 10  # for intervals that nobody looks at

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Said:
    """Of the words of some languages, each by a model that does not know its language."""

    logits: torch.Tensor  # [words, digits]
    targets: NDArray[np.int64]
    groups: NDArray[np.int64]

    def probabilities(self, temperature: float) -> Floats:
        found: Floats = (self.logits.double() / temperature).softmax(dim=1).numpy()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=60)
    given = parser.parse_args()
    words = read_words(Home(given.data))
    tested = languages_of(words, AvtDigits())["test"]
    others = tuple(word for word in words if word.language not in tested)
    found: dict[str, list[Score]] = {}
    for draw in range(given.draws):
        known, asked = taught_and_asked(others, draw=draw)
        for name, figures in figures_of(known, asked, rng=np.random.default_rng(draw)):
            found.setdefault(name, []).append(figures)
    Console().print(table_of(found))


def taught_and_asked(words: Sequence[Word], *, draw: int) -> tuple[Said, Said]:
    dealt = languages_of(words, AvtDigits(seed=draw, validation_languages=0))
    rest, drawn = (
        _split([word for word in words if word.language in dealt[name]]) for name in ("train", "test")
    )
    whole = avt_digits()
    assert whole.alone is not None, "text is taught alone"
    recipe = recipe_alone(whole, whole.alone)
    recipe = replace(recipe, schedule=replace(recipe.schedule, threads=1))
    trained = train(recipe, Dataset(rest, rest, drawn, provenance={}), seed=draw, stage=silent)
    tokenize = preparer_of(recipe, trained.tokenizer_json)

    def said(split: Split, *, left_out: bool) -> Said:
        model = trained.model.train(left_out)  # in training a word's own language is not heard
        return _said(encode(model, Stock(split.items, recipe.inputs, tokenize), split.items.counts), split)

    return said(rest, left_out=True), said(drawn, left_out=False)


def figures_of(known: Said, asked: Said, *, rng: np.random.Generator) -> Iterator[tuple[str, Score]]:
    """By name, each with how the answers `asked` for are scored."""
    targets = torch.from_numpy(known.targets)
    wrong = (known.logits.argmax(dim=1) != targets).numpy()
    units = independent_rows(wrong, known.groups)
    temperature = fit_temperature(known.logits, targets, units=units)
    heard, answers = known.probabilities(temperature), asked.probabilities(temperature)

    def scored(probabilities: Floats, truth: NDArray[np.int64]) -> Score:
        return score(probabilities, truth, asked.groups, draws=_RESAMPLES)

    yield "the model", scored(answers, asked.targets)
    yield (
        "a perfect model",
        scored(answers, (answers.cumsum(axis=1) < rng.random((len(answers), 1))).sum(axis=1)),
    )
    for count in _LEVELS:
        name = f"{count} levels" if count > 1 else "one level"
        yield name, scored(in_levels(answers, heard, count=count), asked.targets)


def in_levels(answers: Floats, heard: Floats, *, count: int) -> Floats:
    """The same order of digits in every row, with the nearest of `count` confidences that `heard` has."""
    sure = heard.max(axis=1)
    edges = np.quantile(sure, np.linspace(0, 1, count + 1)[1:-1])
    level = np.searchsorted(edges, sure)
    means = np.array([sure[level == at].mean() for at in range(count)])
    confidence = answers.max(axis=1, keepdims=True)
    wanted = means[np.searchsorted(edges, confidence)]
    digits = answers.shape[1]
    top = (answers == confidence).astype(np.float64)
    towards = np.where(wanted > confidence, top, 1 / digits)
    reach = np.where(wanted > confidence, 1.0, 1 / digits) - confidence
    share = (wanted - confidence) / np.where(reach == 0, 1, reach)
    return (1 - share) * answers + share * towards


def table_of(found: dict[str, list[Score]]) -> Table:
    table = Table("answers", "right %", "NLL", "Brier", "ECE %", "<= 5 %", "debiased %", "<= 5 %", box=None)
    for name, figures in found.items():
        columns = {
            key: np.array([getattr(one, key).value for one in figures])
            for key in ("accuracy", "nll", "brier", "ece", "ece_debiased")
        }
        means = {key: float(values.mean()) for key, values in columns.items()}
        table.add_row(
            name,
            f"{100 * means['accuracy']:.1f}",
            f"{means['nll']:.3f}",
            f"{means['brier']:.3f}",
            f"{100 * means['ece']:.1f}",
            f"{(columns['ece'] <= _ASKED).mean():.2f}",
            f"{100 * means['ece_debiased']:.1f}",
            f"{(columns['ece_debiased'] <= _ASKED).mean():.2f}",
        )
    return table


def _split(words: Sequence[Word]) -> Split:
    texts, labelled = texts_of(words)
    return Split(Items(texts=texts), PairedByClass({"text": labelled}, anchor="text"))


def _said(encodings: Encodings, split: Split) -> Said:
    rows = evaluation_rows(split)
    logits = encodings.raw(rows, torch.ones(len(rows), 1, dtype=torch.bool)).logits
    return Said(logits, rows.targets.astype(np.int64), rows.groups[:, 1])


if __name__ == "__main__":
    main()
