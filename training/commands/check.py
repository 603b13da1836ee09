"""`check`: is every row of a manifest fit to train on?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.bundle.manifest import Inputs, Modality, Task
from training.commands.options import Encoders, encoders_of
from training.commands.publishing import CONSOLE
from training.commands.refusing import refusing
from training.data.check import check as check_entries
from training.data.findings import print_findings
from training.data.manifest import read_manifest
from training.encoders.sources import source_of
from training.progress import decoding


def check(
    manifest: Annotated[
        Path, typer.Argument(help="JSONL, CSV or Parquet: id, image, text, audio, label, split.")
    ],
    labels: Annotated[
        str | None, typer.Option(help="Known labels, separated by commas; else those of training rows.")
    ] = None,
    encoder: Encoders = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write what is found there, too.")
    ] = None,
    task: Annotated[
        Task, typer.Option(help="One label for each row, or any number, separated by ;")
    ] = "classification",
) -> None:
    """Open and decode every input of a manifest: exit 0 if all rows are fit to train on, 2 if not.

    With the encoders that `train finetune` is to have, just what it would refuse is found: only what they
    read, and by their limits.
    """
    known = None if labels is None else tuple(label.strip() for label in labels.split(","))
    with refusing():
        if json_file is not None:  # what cannot be written is better told before an hour of decoding
            json_file.parent.mkdir(parents=True, exist_ok=True)
        entries = read_manifest(manifest, task=task)
        inputs = _inputs_of(encoders_of(encoder)) if encoder else None
        with decoding(CONSOLE) as advance:
            findings = check_entries(entries, inputs, known, advance=advance)
        print_findings(findings, CONSOLE)
        if json_file is not None:
            told = json.dumps(findings.as_json(), indent=1, ensure_ascii=False)
            json_file.write_text(told + "\n", encoding="utf-8")
    if not findings.is_clean:
        raise typer.Exit(2)


def _inputs_of(encoders: dict[Modality, str]) -> Inputs:
    return Inputs(**{name: source_of(name, said, is_frozen=True).reads for name, said in encoders.items()})
