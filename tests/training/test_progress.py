from __future__ import annotations

import io

import pytest
from rich.console import Console

from training.fit.loop import Step
from training.progress import stages


def shown(steps: list[Step]) -> str:
    """What stands on the screen at the end."""
    screen = io.StringIO()
    with stages(Console(file=screen, width=120, force_terminal=True, color_system=None))("train") as report:
        for step in steps:
            report(step)
    return screen.getvalue()


@pytest.mark.parametrize(
    "steps",
    [
        [Step(500, 1_000, 1.0, 0.9)],  # of a run that goes on
        [Step(1, 2, 1.0, 0.9), Step(2, 2, 1.0, 0.9)],
        [Step(1, 2, 7.0, 0.1), Step(2, 2, 7.0, 0.1), Step(1, 2, 1.0, 0.9)],  # of one that begins again
    ],
)
def test_running_means_begin_with_the_first_step_that_is_seen(steps: list[Step]) -> None:
    assert "loss 1.000  accuracy 90.0%" in shown(steps)


def test_a_later_step_moves_the_means_a_little() -> None:
    steps = [Step(done, 1_000, 1.0, 0.5) for done in range(500, 530)] + [Step(530, 1_000, 2.0, 1.0)]
    assert "loss 1.050  accuracy 52.5%" in shown(steps)
