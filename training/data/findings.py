"""What a check found, on a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.data.check import Findings

_SHOWN_ROWS: Final = 8  # of one finding; --json has all
_SHOWN_FINDINGS: Final = 100


def print_findings(findings: Findings, console: Console) -> None:
    """What is wrong with which rows, then how many rows there are of what."""
    if findings.found:
        console.print(_problems(findings))
    if (more := len(findings.found) - _SHOWN_FINDINGS) > 0:
        console.print(f"… and {more} more. --json FILE has all.")
    console.print(_counts("rows with label", findings.classes))
    console.print(_counts("rows with", findings.subsets))
    verdict = "nothing is wrong" if findings.is_clean else f"{len(findings.found)} findings"
    console.print(f"{findings.rows} rows: {verdict}.", highlight=False)


def _problems(findings: Findings) -> Table:
    table = Table("what", "rows", "why", box=None, pad_edge=False)
    for one in findings.found[:_SHOWN_FINDINGS]:
        more = len(one.rows) - _SHOWN_ROWS
        rows = ", ".join(one.rows[:_SHOWN_ROWS]) + (f" and {more} more" if more > 0 else "")
        table.add_row(f"[red]{one.kind}[/red]", escape(rows), escape(one.message))
    return table


def _counts(title: str, by_split: dict[str, dict[str, int]]) -> Table:
    """One line for each name, one column for each split."""
    table = Table(title, box=None, pad_edge=False)
    for split in by_split:
        table.add_column(escape(split) or "(no split)", justify="right")
    for name in sorted({name for counts in by_split.values() for name in counts}):
        table.add_row(escape(name), *(str(counts.get(name, 0)) for counts in by_split.values()))
    return table
