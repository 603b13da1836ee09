from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from training.encoders.norm import BatchNorm1d, BatchNorm2d

_ROWS = 12
_SHARES = ((6, 6), (9, 3), (12, 0))  # rows of the two processes
_STEPS = 20
_TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, kernel_size=3, bias=False)
        self.norm = BatchNorm2d(4)
        self.second = nn.Linear(4, 3, bias=False)
        self.last = BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.tanh(self.norm(self.first(x))).mean(dim=(2, 3))
        answer: Tensor = self.last(self.second(seen))
        return answer


def _train(rows: slice, dtype: torch.dtype) -> dict[str, Tensor]:
    """What 20 steps make of the net, and what the last says of the gradient with respect to the input."""
    torch.manual_seed(5)
    net = _Net().to(dtype)
    batch, wanted = torch.randn(_ROWS, 2, 6, 6, dtype=dtype) + 1, torch.randn(_ROWS, 3, dtype=dtype)
    here = batch[rows].requires_grad_()
    for _ in range(_STEPS):
        net.zero_grad()
        here.grad = None
        ((net(here) - wanted[rows]).square().sum() / _ROWS).backward()
        for parameter in net.parameters():
            assert parameter.grad is not None
            if dist.is_initialized():
                dist.all_reduce(parameter.grad)
            parameter.data -= 0.05 * parameter.grad  # an optimiser would import the compiler: seconds
    assert here.grad is not None
    return {**net.state_dict(), "input gradient": here.grad}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for share in _SHARES:
        rows = slice(share[0]) if rank == 0 else slice(share[0], None)
        for dtype in _TOLERANCES:
            torch.save(_train(rows, dtype), f"{folder}/{share[0]}-{dtype}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes made of the net, for each way to share the rows."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(_process, args=(str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("share", _SHARES, ids=str)
def test_two_processes_train_as_one(together: Path, share: tuple[int, int], dtype: torch.dtype) -> None:
    alone, atol = _train(slice(None), dtype), _TOLERANCES[dtype]
    first, second = (torch.load(together / f"{share[0]}-{dtype}-{rank}.pt") for rank in (0, 1))
    gradient = torch.cat([first.pop("input gradient"), second.pop("input gradient")])
    torch.testing.assert_close(gradient, alone.pop("input gradient"), atol=atol, rtol=0)
    for found in (first, second):
        torch.testing.assert_close(found, alone, atol=atol, rtol=0)


def test_on_one_process_it_is_torchs_own() -> None:
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    for x in torch.randn(3, 4, 3, 5, 5) * 2 + 1:
        torch.testing.assert_close(ours(x), theirs(x), atol=0, rtol=0)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=0, rtol=0)


@pytest.mark.parametrize("rows", [0, 1])
def test_values_without_a_variance_are_normalised_as_in_evaluation(rows: int) -> None:
    norm = BatchNorm1d(3)
    norm(torch.randn(8, 3) * 2 + 1)
    before = {name: values.clone() for name, values in norm.state_dict().items()}
    x = torch.randn(rows, 3)
    torch.testing.assert_close(norm(x), norm.eval()(x))
    torch.testing.assert_close(norm.state_dict(), before)
