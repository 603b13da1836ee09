from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from app.bundle.folder import read_bundle
from training.report import print_metrics

MODELS = Path(__file__).parents[2] / "models"


def printed(metrics: dict[str, object], *, width: int) -> str:
    screen = io.StringIO()
    print_metrics(metrics, Console(file=screen, width=width))
    return screen.getvalue()


def metrics() -> dict[str, object]:
    """Of a model that is committed here, with what is measured since."""
    found = dict(read_bundle(MODELS / "digits/2").manifest.metrics)
    for name in ("test", "degraded"):
        found[name] = {
            subset: {**scored, "ece_debiased": scored["ece"], "ece_noise": scored["ece"]}
            for subset, scored in found[name].items()
        }
    return found | {"strangers": {"[red]ann[/red]": 0.5}}


def test_80_columns_hold_every_row_of_figures_in_one_line() -> None:
    lines = printed(metrics(), width=80).splitlines()
    [first] = (line for line in lines if line.startswith("image+text+audio 98.20 %"))
    assert " ".join(first.split()).endswith(" 98.20 % 97.9-98.5 98.22 % 0.129 7.51 % 7.51 % 7.51 %")
    assert sum(line.startswith("image+text+audio ") for line in lines) == 3  # test, degraded, sets
    assert not any("…" in line for line in lines)


def test_names_of_rows_are_whole_where_there_is_less_room() -> None:
    lines = printed(metrics(), width=60).splitlines()
    for subset in ("image+text", "image+audio", "text+audio", "image+text+audio"):
        assert sum(line.startswith(f"{subset} ") for line in lines) == 3


def test_a_value_is_told_as_it_is_written() -> None:
    assert "[red]ann[/red] 50.00 %" in " ".join(printed(metrics(), width=80).split())
