"""Several processes that share every batch, as torchrun starts them; one process alone is the plain case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class World:
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """The process that saves, prints, calibrates and exports."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This process's rows of a batch: as even as can be, in order, together all."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Gradients become means over the processes during backward."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, broadcast_buffers=False)


@contextmanager
def joined_world() -> Iterator[World]:
    """The processes that torchrun started (it sets RANK and WORLD_SIZE), or this one alone."""
    if not distributed.is_torchelastic_launched():
        yield World()
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    try:
        yield World(rank=distributed.get_rank(), size=distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
