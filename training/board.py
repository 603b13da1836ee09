"""What a run tells while it goes on, as files that TensorBoard shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.fit.loop import Report, Step
from training.progress import Stage


class Board:
    """Open it with `board`. Everything goes to one event file."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def stage(self, shown: Stage) -> Stage:
        """The same stages, whose figures are written too."""

        @contextmanager
        def opened(name: str) -> Iterator[Report]:
            with shown(name) as report:

                def write(step: Step) -> None:
                    report(step)
                    self._writer.add_scalar(f"{name}/loss", step.loss, step.done)
                    self._writer.add_scalar(f"{name}/accuracy", step.accuracy, step.done)

                yield write

        return opened

    def watch(self, epoch: int, loss: float) -> None:
        self._writer.add_scalar("validation/loss", loss, epoch)


@contextmanager
def board(folder: Path) -> Iterator[Board]:
    # Importing it takes seconds, and few runs need it.
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        yield Board(writer)
