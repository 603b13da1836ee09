"""Progress on a terminal: training steps with loss and accuracy, downloads with bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.data.cache import Advance as AdvanceDecoding
from training.data.download import Advance
from training.fit.loop import Report, Step

Stage = Callable[[str], AbstractContextManager[Report]]

_SMOOTHING: Final = 0.95  # of the figures beside the bar: one batch alone says little


def stages(console: Console) -> Stage:
    """Opens one bar for each named stage."""

    @contextmanager
    def stage(name: str) -> Iterator[Report]:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.1%}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as progress:
            task = progress.add_task(name, total=None, loss=0.0, accuracy=0.0)
            yield _Smoothed(progress, task)

    return stage


@contextmanager
def silent(_: str) -> Iterator[Report]:
    """A stage that shows nothing."""
    yield lambda _: None


class _Smoothed:
    """Shows running means; a run that starts again at step 1 starts them again."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._seen, self._loss, self._accuracy = 0, 0.0, 0.0

    def __call__(self, step: Step) -> None:
        self._seen = (
            1 if step.done == 1 else self._seen + 1
        )  # a run that goes on has not seen its first steps
        keep = min(_SMOOTHING, (self._seen - 1) / self._seen)
        self._loss = keep * self._loss + (1 - keep) * step.loss
        self._accuracy = keep * self._accuracy + (1 - keep) * step.accuracy
        self._progress.update(
            self._task, completed=step.done, total=step.steps, loss=self._loss, accuracy=self._accuracy
        )


@contextmanager
def downloads(console: Console) -> Iterator[Advance]:
    """One bar for each file."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, *, done_bytes: int, total_bytes: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total_bytes)
            progress.update(tasks[name], completed=done_bytes, total=total_bytes)

        yield advance


@contextmanager
def decoding(console: Console) -> Iterator[AdvanceDecoding]:
    """One bar for each modality; it goes when all are done."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(modality: str, *, done: int, total: int) -> None:
            if modality not in tasks:
                tasks[modality] = progress.add_task(f"decode {modality}", total=total)
            progress.update(tasks[modality], completed=done)

        yield advance
