"""Two processes that share every batch learn what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.training.fake_sets import FakeSets
from training.fit.distributed import World

ROOT = Path(__file__).parents[3]
SCRIPT = "tests.training.fit.train_shared"


def trained(sets: Path, out: Path, *, processes: int, how: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts that the first process left."""
    out.mkdir()
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    start = [*torchrun, "-m", SCRIPT] if processes > 1 else ["-m", SCRIPT]
    done = subprocess.run(
        [sys.executable, *start, sets, out, how], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return load_file(out / "weights.safetensors"), json.loads((out / "facts.json").read_text())


@pytest.mark.parametrize("how", ["joint", "towers"])
def test_two_processes_learn_what_one_does(fake_sets: FakeSets, tmp_path: Path, how: str) -> None:
    alone, said_alone = trained(fake_sets.folder, tmp_path / "one", processes=1, how=how)
    shared, said_shared = trained(fake_sets.folder, tmp_path / "two", processes=2, how=how)
    assert (said_alone["world"], said_shared["world"]) == (1, 2)
    assert len(said_alone["losses"]) == (20 if how == "joint" else 10)
    assert said_shared["losses"] == pytest.approx(said_alone["losses"], abs=1e-5)
    assert said_shared["validation"] == pytest.approx(said_alone["validation"], abs=1e-5)
    assert alone.keys() == shared.keys()
    learnt = [name for name in alone if name.startswith(("encoders.", "fusion."))]  # the rest is fitted later
    assert len(learnt) > 50
    for name in learnt:
        difference = (alone[name].double() - shared[name].double()).abs().max().item()
        assert difference <= 1e-5, f"{name}: {difference:.1e}"


def test_shares_are_the_whole_batch_in_order() -> None:
    for rows in (0, 1, 5, 29):
        shares = [list(range(rows))[World(rank, 3).share(rows)] for rank in range(3)]
        assert [row for share in shares for row in share] == list(range(rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
