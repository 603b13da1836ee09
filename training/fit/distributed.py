"""Several processes that share every batch, as torchrun starts them; one process alone is the plain case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class World:
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """The process that saves, prints, measures and exports."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This process's rows of a batch: as even as can be, in order, together all."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def wrapped(self, module: nn.Module, *, leaves_out: bool) -> nn.Module:
        """Gradients become means over the processes during backward.

        `leaves_out` says that there are steps in which some parameter has no part in what the module gives.
        """
        if self.size == 1:
            return module
        # Buffers are the same everywhere by themselves: encoders/norm.py shares its moments.
        return DistributedDataParallel(module, forward_sync_buffers=False, find_unused_parameters=leaves_out)

    def total(self, value: Tensor) -> Tensor:
        """The sum of what every process has."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def from_first(self, make: Callable[[], float], device: torch.device) -> float:
        """What the first process makes; the others wait for it, so that all decide alike."""
        if self.size == 1:
            return make()
        told = torch.tensor([make() if self.is_first else 0.0], dtype=torch.float64, device=device)
        distributed.broadcast(told, src=0)
        return told.item()

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """The first process goes through the block, then the others: what it leaves on disk is there."""
        if self.size > 1 and not self.is_first:
            distributed.barrier()
        yield
        if self.size > 1 and self.is_first:
            distributed.barrier()


@contextmanager
def joined_world() -> Iterator[World]:
    """The processes that torchrun started (it sets RANK and WORLD_SIZE), or this one alone."""
    if not distributed.is_torchelastic_launched():
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(distributed.get_node_local_rank())
    # A backend for each kind of device: a run on the CPU of a machine with GPUs exchanges by gloo.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(rank=distributed.get_rank(), size=distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
