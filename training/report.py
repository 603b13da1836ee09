"""The figures of a run as rows of text: one source for the table on the screen and the one in the card."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.choose import Choice
from training.seeds import OverSeeds

if TYPE_CHECKING:  # of an extra of its own
    from training.search import Searched

SCORE_HEADER: Final = ("accuracy", "95 % interval", "macro F1", "NLL")
LABELS_HEADER: Final = ("micro F1", "95 % interval", "macro F1", "NLL")
_ECE: Final = {"ece": "ECE", "ece_debiased": "debiased", "ece_noise": "of noise alone"}
SETS_HEADER: Final = ("covered", "error", "mean size", "groups", "covered with the top class")
GATES_HEADER: Final = ("gate", "limit", "measured", "where", "met")
_HEADER_WIDTH: Final = 10  # on a terminal; a longer title goes on below

Rows = list[tuple[str, ...]]


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def score_header(metrics: dict[str, Any]) -> tuple[str, ...]:
    some = next(iter(metrics["test"].values()))
    errors = (title for name, title in _ECE.items() if name in some)
    return (*(SCORE_HEADER if _is_single(metrics) else LABELS_HEADER), *errors)


def tells_noise(metrics: dict[str, Any]) -> bool:
    """Metrics of a bundle from before tell the calibration error as it was measured, and no more."""
    return "ece_noise" in next(iter(metrics["test"].values()))


def subset_rows(scores: dict[str, Any]) -> Rows:
    """One row for each subset of modalities, or for each value of a column."""
    return [(name, *_score_cells(scored)) for name, scored in scores.items()]


def coverage_rows(coverage: dict[str, Any], method: str) -> Rows:
    """What conformal sets hold: as promised, and as people see them."""
    return [
        (
            subset,
            percent(found["share"]),
            f"{100 * found['standard_error']:.2f}",
            f"{found['mean_size']:.2f}",
            str(found["groups"]),
            percent(found["seen_share"]),
        )
        for subset, found in coverage[method].items()
    ]


def stranger_rows(strangers: dict[str, float]) -> Rows:
    """Accuracy of a tower trained without each source, and the mean."""
    mean = sum(strangers.values()) / len(strangers)
    return [*((name, percent(share)) for name, share in strangers.items()), ("mean", percent(mean))]


def gate_rows(gates: list[dict[str, Any]]) -> Rows:
    """What a variant had to reach and did, as `training.export.gates` tells it."""
    met = {True: "yes", False: "no", None: "not measured"}
    return [
        (
            gate["name"],
            f"{gate['rule']} {gate['limit']:.4g}",
            "" if gate["measured"] is None else f"{gate['measured']:.4f}",
            gate["where"] or gate["note"] or "",
            met[gate["is_met"]],
        )
        for gate in gates
    ]


def print_gates(gates: list[dict[str, Any]], console: Console) -> None:
    _print(console, GATES_HEADER, gate_rows(gates), title="against float32")
    by_subset = [gate for gate in gates if gate["where"]]
    if by_subset:
        rows = [
            (subset, *(f"{gate['parts'][subset]:.4f}" for gate in by_subset))
            for subset in by_subset[0]["parts"]
        ]
        _print(console, ("modalities", *(gate["name"] for gate in by_subset)), rows)


def gain(scores: dict[str, Any]) -> float:
    """Points by which all modalities beat the best single one."""
    best = max(_headline(scored)["value"] for subset, scored in scores.items() if "+" not in subset)
    everything = max(scores, key=lambda subset: subset.count("+"))
    return 100 * float(_headline(scores[everything])["value"] - best)


def print_metrics(metrics: dict[str, Any], console: Console) -> None:
    header = score_header(metrics)
    for name in ("test", "degraded"):
        if metrics[name] is not None:
            title = f"{metrics['rows']} test rows" + (", degraded" if name == "degraded" else "")
            _print(console, ("modalities", *header), subset_rows(metrics[name]), title=title)
    if metrics["coverage"] is not None:
        level = metrics["coverage"]["level"]
        rows = coverage_rows(metrics["coverage"], "lac")
        _print(console, ("modalities", *SETS_HEADER), rows, title=f"{100 * level:.0f} % sets")
    if metrics["strangers"] is not None:
        _print(console, ("left out of training", "accuracy"), stranger_rows(metrics["strangers"]))
    spoiled = " degraded" if metrics["degraded"] is not None else ""
    points = gain(metrics["degraded"] or metrics["test"])
    console.print(f"On{spoiled} test rows all modalities beat the best single one by {points:.1f} points.")


def print_choice(choice: Choice, console: Console) -> None:
    rows: Rows = []
    for name, nll in choice.nll.items():
        against = choice.against_first.get(name)
        interval = against.nll.measured.interval if against else None
        less = f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else ""
        rows.append((name, f"{nll:.4f}", less, percent(choice.accuracy[name])))
    header = ("fusion", "NLL", "less the first's, 95 %", "accuracy")
    _print(console, header, rows, title="Validation rows, mean over the subsets of modalities")
    console.print(f"Chosen: {choice.chosen}.")


def print_seeds(
    scores: dict[str, dict[str, OverSeeds]], losses: list[float], best: int, console: Console
) -> None:
    names = tuple(next(iter(scores.values())))
    rows = [(subset, *(_over(of[name]) for name in names)) for subset, of in scores.items()]
    _print(console, ("modalities", *names), rows, title=f"Mean of {len(losses)} seeds, 95 % interval")
    told = ", ".join(f"{loss:.4f}" for loss in losses)
    console.print(f"Seed {best} is published: the lowest loss on validation rows of {told}.")


def print_search(found: Searched, console: Console) -> None:
    console.print(
        f"{found.trials} trials, {found.pruned} of them pruned. Lowest loss on validation rows "
        f"{found.loss:.4f}:"
    )
    for name, value in found.best.items():
        console.print(f"  {name}  {value:.3g}" if isinstance(value, float) else f"  {name}  {value}")


def _over(seeds: OverSeeds) -> str:
    return f"{seeds.mean:.4f}" if seeds.margin is None else f"{seeds.mean:.4f} ± {seeds.margin:.4f}"


def _print(console: Console, header: tuple[str, ...], rows: Rows, *, title: str | None = None) -> None:
    """Narrow enough for 80 columns, and where it is not, no name of a row is cut."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(header[0], no_wrap=True)
    for name in header[1:]:
        table.add_column(fill(name, _HEADER_WIDTH), no_wrap="interval" in name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    console.print()


def _is_single(metrics: dict[str, Any]) -> bool:
    return "accuracy" in next(iter(metrics["test"].values()))


def _headline(scored: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = scored["accuracy"] if "accuracy" in scored else scored["micro_f1"]
    return found


def _score_cells(scored: dict[str, Any]) -> tuple[str, ...]:
    headline = _headline(scored)
    interval = headline["interval"]
    return (
        percent(headline["value"]),
        f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}" if interval else "",
        percent(scored["macro_f1"]["value"]),
        f"{scored['nll']['value']:.3f}",
        *(percent(scored[name]["value"]) for name in _ECE if name in scored),
    )
