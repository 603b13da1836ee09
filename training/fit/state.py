"""A run's state as one file that is always whole: a run killed at any moment goes on from the last one."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

STATE_FILE: Final = "state.safetensors"


@dataclass(frozen=True, slots=True)
class State:
    """`tensors` are named by what they belong to: `model.…`, `average.…`, `best.…`, `optimiser.…`."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]  # JSON-able: the step, the schedule's place, the history


def save_state(folder: Path, state: State, *, run: str) -> None:
    """Written aside and renamed. `run` identifies what may go on from it."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{STATE_FILE}.{os.getpid()}"
    whole = {name: values.detach().contiguous() for name, values in state.tensors.items()}
    save_file(whole, aside, metadata={"run": run, "facts": json.dumps(state.facts)})
    aside.replace(folder / STATE_FILE)


def load_state(folder: Path, *, run: str) -> State | None:
    """None where there is none, or only that of another run, or a damaged one, of which it warns."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as saved:
            told = saved.metadata() or {}
            if told.get("run") != run:
                return None
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError:
        warnings.warn(f"{path} is damaged. The run starts at its first step.", stacklevel=2)
        return None
    return State(tensors, json.loads(told["facts"]))


def forget_states(folder: Path) -> None:
    """Of a run that is over: nothing goes on from them."""
    shutil.rmtree(folder, ignore_errors=True)


def prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": values.clone() for key, values in tensors.items()}


def unprefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): values for key, values in tensors.items() if key.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments by the number of the parameter."""
    state: dict[int, dict[str, Tensor]] = optimiser.state_dict()["state"]
    return {f"{at}.{name}": values for at, held in state.items() for name, values in held.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Only the moments: the groups and their rates are the schedule's."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, values in tensors.items():
        at, name = key.split(".")
        state.setdefault(int(at), {})[name] = values
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
