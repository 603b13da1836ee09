"""The figures of a run as rows of text: one source for the table on the screen and the one in the card."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table

SUBSET_HEADER: Final = (
    "modalities", "clean", "95 % interval", "NLL", "ECE", "degraded", "95 % interval", "NLL", "ECE",
)  # fmt: skip


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def subset_rows(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row for each subset of modalities, clean figures and then degraded ones."""
    return [
        (subset, *_score_cells(clean), *_score_cells(metrics["degraded"][subset]))
        for subset, clean in metrics["clean"].items()
    ]


def further_rows(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """What one modality does on inputs that the clean table mixes or leaves out."""
    named = {
        "text alone, correctly spelt": metrics["known_texts"],
        "text alone, misspellings never seen in training": metrics["unseen_misspellings"],
        "image alone, dark strokes on white": metrics["inverted_images"],
    }
    return [(name, *_score_cells(scored)) for name, scored in named.items()]


def speaker_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Accuracy of the audio tower trained without each speaker, and the mean."""
    found: dict[str, float] = metrics["unseen_speakers"]
    mean = sum(found.values()) / len(found)
    return [*((speaker, percent(share)) for speaker, share in found.items()), ("mean", percent(mean))]


def gain(metrics: dict[str, Any]) -> float:
    """Points by which all modalities beat the best single one on degraded rows."""
    degraded = metrics["degraded"]
    best = max(scored["accuracy"] for subset, scored in degraded.items() if "+" not in subset)
    everything = max(degraded, key=lambda subset: subset.count("+"))
    return 100 * float(degraded[everything]["accuracy"] - best)


def print_metrics(metrics: dict[str, Any], console: Console) -> None:
    for name, columns in (("clean", slice(1, 5)), ("degraded", slice(5, 9))):  # each fits 80 columns
        table = Table("modalities", *SUBSET_HEADER[columns], title=f"{metrics['rows']} test rows, {name}")
        for row in subset_rows(metrics):
            table.add_row(row[0], *row[columns])
        console.print(table)
    further = Table("on its own", "accuracy", "95 % interval", "NLL", "ECE")
    for row in further_rows(metrics):
        further.add_row(*row)
    console.print(further)
    speakers = Table("speaker left out of training", "accuracy, audio alone")
    for speaker_row in speaker_rows(metrics):
        speakers.add_row(*speaker_row)
    console.print(speakers)
    console.print(f"Degraded rows: all modalities beat the best single one by {gain(metrics):.1f} points.")


def _score_cells(scored: dict[str, Any]) -> tuple[str, str, str, str]:
    low, high = scored["interval"]
    return (
        percent(scored["accuracy"]),
        f"{100 * low:.1f}-{100 * high:.1f}",
        f"{scored['nll']:.3f}",
        f"{100 * scored['ece']:.1f} %",
    )
