"""Two processes that share every batch learn what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training.fake_sets import FakeSets
from training.fit.distributed import World

ROOT = Path(__file__).parents[3]
SCRIPT = "tests.training.fit.train_shared"


Left = tuple[dict[str, Tensor], dict[str, Any]]  # weights and facts


def start(sets: Path, out: Path, *, processes: int, how: str) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = [*torchrun, "-m", SCRIPT] if processes > 1 else ["-m", SCRIPT]
    out.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *script, sets, out, how], cwd=ROOT, capture_output=True, text=True, check=False
    )


def trained(sets: Path, out: Path, *, processes: int, how: str) -> Left:
    """What the first process left."""
    done = start(sets, out, processes=processes, how=how)
    assert done.returncode == 0, done.stderr
    return load_file(out / "weights.safetensors"), json.loads((out / "facts.json").read_text())


@pytest.fixture(scope="module")
def by_two(fake_sets: FakeSets, tmp_path_factory: pytest.TempPathFactory) -> Left:
    return trained(fake_sets.folder, tmp_path_factory.mktemp("two"), processes=2, how="joint")


def assert_alike(one: Left, two: Left) -> None:
    assert (one[1]["world"], two[1]["world"]) == (1, 2)
    assert two[1]["losses"] == pytest.approx(one[1]["losses"], abs=1e-5)
    assert two[1]["validation"] == pytest.approx(one[1]["validation"], abs=1e-5)
    learnt = [
        name for name in one[0] if name.startswith(("encoders.", "fusion."))
    ]  # the rest is fitted later
    assert len(learnt) > 50
    for name in learnt:
        difference = (one[0][name].double() - two[0][name].double()).abs().max().item()
        assert difference <= 1e-5, f"{name}: {difference:.1e}"


def test_two_processes_learn_what_one_does(fake_sets: FakeSets, tmp_path: Path, by_two: Left) -> None:
    alone = trained(fake_sets.folder, tmp_path, processes=1, how="joint")
    assert len(alone[1]["losses"]) == 20
    assert_alike(alone, by_two)


@pytest.mark.thorough
def test_towers_alone_modulation_and_averages_are_shared_too(fake_sets: FakeSets, tmp_path: Path) -> None:
    """In an epoch of towers alone no process has a gradient for what joins them."""
    alone = trained(fake_sets.folder, tmp_path / "one", processes=1, how="towers")
    assert_alike(alone, trained(fake_sets.folder, tmp_path / "two", processes=2, how="towers"))


@pytest.mark.thorough
def test_two_processes_go_on_where_they_were(fake_sets: FakeSets, tmp_path: Path, by_two: Left) -> None:
    assert start(fake_sets.folder, tmp_path, processes=2, how="cut").returncode != 0
    weights, facts = trained(fake_sets.folder, tmp_path, processes=2, how="joint")
    assert facts["resumed_at"] == 7
    assert facts["losses"] == by_two[1]["losses"]
    for name, values in by_two[0].items():
        assert torch.equal(values, weights[name]), name


def test_shares_are_the_whole_batch_in_order() -> None:
    for rows in (0, 1, 5, 29):
        shares = [list(range(rows))[World(rank, 3).share(rows)] for rank in range(3)]
        assert [row for share in shares for row in share] == list(range(rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
