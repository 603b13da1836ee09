"""Every random choice of a run comes from the run's seed and the number of the step or epoch it is made in.

So a run that goes on after a kill needs no state of any generator, and processes that share a batch draw
the same one.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import torch

Purpose = Literal["pairs", "order", "step", "dropout", "folds"]
_PURPOSES: Final[tuple[Purpose, ...]] = ("pairs", "order", "step", "dropout", "folds")


def seed_of(seed: int, purpose: Purpose, number: int) -> int:
    """A 63-bit seed of its own for each purpose and step."""
    mixed = np.random.SeedSequence([seed, _PURPOSES.index(purpose), number])
    return int(mixed.generate_state(1, np.uint64)[0] >> 1)


def generator_of(seed: int, purpose: Purpose, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, purpose, number))


def make_repeatable(*, seed: int, threads: int) -> None:
    """One seed, one result: on the same kind of CPU, with the same libraries and number of threads.

    A GPU has no repeatable way for some steps, such as a backbone's; there torch warns and goes on.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a fifth of the time
    torch.set_num_threads(threads)
