"""The training loop: AdamW with one cycle, resumable at any step, alone or as one of several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from app.bundle.manifest import Modality
from training.fit.chance import seed_of
from training.fit.distributed import World
from training.fit.draw import Draw, Drawer
from training.fit.modulation import MODALITY, factors, slowed
from training.fit.objective import accuracy_of, loss_of
from training.fit.state import (
    State,
    load_state,
    optimiser_tensors,
    prefixed,
    restore_optimiser,
    save_state,
    unprefixed,
)
from training.fusion.contract import Fused
from training.model import Model
from training.recipe import Recipe


class Diverged(Exception):
    """The run cannot be gone on with: its loss or its weights are no numbers."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is; `loss` is of this step's batch, `accuracy` of this process's share of it."""

    done: int
    steps: int
    loss: float
    accuracy: float


Tensors = tuple[Tensor, ...] | list[Tensor]
Report = Callable[[Step], None]
Validate = Callable[[Model, int], float]  # after so many epochs: a loss, lower is better


@dataclass(frozen=True, slots=True)
class Saving:
    """Where a run's state lies, and what identifies the run: only the same one goes on from it."""

    folder: Path
    run: str
    every_s: float


@dataclass(slots=True)
class History:
    """What is known about a run beside its weights."""

    losses: list[float] = field(default_factory=list)  # of each step
    epochs: int = 0
    validation: list[float] = field(default_factory=list)  # after each epoch, where it is looked at
    best: float = float("inf")
    best_epoch: int = 0
    seconds: float = 0.0  # of all processes that the run took, one after the other
    resumed_at: int = 0  # the step that this process began with


def fit(
    model: Model,
    drawer: Drawer,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    report: Report,
    world: World | None = None,
    validate: Validate | None = None,
    saving: Saving | None = None,
) -> History:
    """Optimise `model` in place; leaves it in evaluation mode, with the best or the average of its weights.

    Raises Diverged, or EncoderUnfit.
    """
    drawer.teach(model)
    run = _Run(model, drawer, recipe, seed=seed, device=device, world=world or World(), saving=saving)
    drawer.keep_constants(model)
    run.resume()
    while not run.is_over:
        run.step(report)
        if run.at_epoch_end:
            run.end_epoch(validate)
        run.save_if_due()
    run.finish()
    run.history.seconds = run.seconds
    return run.history


class _Run:
    def __init__(
        self,
        model: Model,
        drawer: Drawer,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        world: World,
        saving: Saving | None,
    ) -> None:
        self._schedule, self._task = recipe.schedule, recipe.task
        self._draw, self._seed, self._device, self._saving = drawer, seed, device, saving
        self._world = world
        self._model = model.to(device).train()
        _lay_out(self._model, torch.channels_last)  # the faster layout for convolutions on a CPU
        objective = _Objective(self._model, recipe, device)
        self._wrapped = world.wrapped(objective, leaves_out=self._schedule.tower_epochs > 0)
        self.steps = self._schedule.epochs * drawer.steps_per_epoch
        self._optimiser = _optimiser(model, recipe)
        self._cycle = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser,
            [group["lr"] for group in self._optimiser.param_groups],
            total_steps=self.steps + 1,
        )
        self._average = _average(model, self._schedule.average)
        self._best: dict[str, Tensor] = {}
        self._done = 0
        self._started_s = self._saved_s = time.monotonic()
        self.history = History()

    @property
    def is_over(self) -> bool:
        patience = self._schedule.patience
        is_tired = patience is not None and self.history.epochs - self.history.best_epoch >= patience
        return self._done >= self.steps or (is_tired and self.at_epoch_end)

    @property
    def seconds(self) -> float:
        return self.history.seconds + time.monotonic() - self._started_s

    @property
    def at_epoch_end(self) -> bool:
        return self._done > 0 and self._done % self._draw.steps_per_epoch == 0

    def step(self, report: Report) -> None:
        schedule = self._schedule
        in_towers = self._done < schedule.tower_epochs * self._draw.steps_per_epoch
        draw = self._draw(self._done, drop=0.0 if in_towers else schedule.drop_modality)
        draw = draw.to(self._device)
        torch.manual_seed(seed_of(self._seed, "dropout", self._done) + self._world.rank)
        alone = in_towers or not self._model.fusion.is_joint
        loss, fused = self._wrapped(draw, auxiliary_alone=alone)
        self._optimiser.zero_grad(set_to_none=True)
        (loss * self._world.size).backward()  # gradients become means over processes
        nn.utils.clip_grad_norm_(self._model.parameters(), schedule.clip_norm)
        with slowed(self._optimiser, {} if in_towers else self._modulation(fused, draw)):
            self._optimiser.step()
        self._cycle.step()
        if self._average is not None:
            self._average.update_parameters(self._model)
        self._done += 1
        value = self._world.total(loss.detach()).item()
        if not math.isfinite(value):
            raise Diverged(f"The loss is no number at step {self._done}. Lower --learning-rate.")
        self.history.losses.append(value)
        report(Step(self._done, self.steps, value, accuracy_of(fused.logits, draw.targets, self._task)))

    def _modulation(self, fused: Fused, draw: Draw) -> dict[Modality, float]:
        strength = self._schedule.modulation
        if not strength:
            return {}
        return factors(self._model.names, fused, draw, strength=strength, world=self._world)

    def end_epoch(self, validate: Validate | None) -> None:
        self.history.epochs += 1
        if validate is None or self._schedule.patience is None:
            return
        candidate = self._candidate()
        value = self._world.from_first(lambda: validate(candidate.eval(), self.history.epochs), self._device)
        self._model.train()
        self.history.validation.append(value)
        if value < self.history.best:
            self.history.best, self.history.best_epoch = value, self.history.epochs
            self._best = {name: values.clone() for name, values in candidate.state_dict().items()}

    def finish(self) -> None:
        chosen = self._best or self._candidate().state_dict()
        self._model.load_state_dict(chosen)
        if not all(weights.isfinite().all() for weights in self._model.parameters()):
            raise Diverged(f"Weights are no numbers after step {self._done}. Lower --learning-rate.")
        _lay_out(self._model.eval(), torch.contiguous_format)

    def _candidate(self) -> Model:
        """The weights that would be kept if the run ended now."""
        if self._average is None:
            return self._model
        averaged = self._average.module
        assert isinstance(averaged, Model)
        return averaged

    # --- going on after a kill ----------------------------------------------------------------

    def save_if_due(self) -> None:
        saving = self._saving
        if saving is None or not self._world.is_first:
            return
        if self._done < self.steps and time.monotonic() - self._saved_s < saving.every_s:
            return
        tensors = prefixed("model", self._model.state_dict())
        tensors |= prefixed("optimiser", optimiser_tensors(self._optimiser)) | prefixed("best", self._best)
        if self._average is not None:
            tensors |= prefixed("average", self._average.state_dict())
        save_state(saving.folder, State(tensors, self._facts()), run=saving.run)
        self._saved_s = time.monotonic()

    def resume(self) -> None:
        """From the saved state of the same run, if there is one."""
        saving = self._saving
        if saving is None or (state := load_state(saving.folder, run=saving.run)) is None:
            return
        self._model.load_state_dict(unprefixed("model", state.tensors))
        restore_optimiser(self._optimiser, unprefixed("optimiser", state.tensors))
        if self._average is not None:
            self._average.load_state_dict(unprefixed("average", state.tensors))
        self._best = unprefixed("best", state.tensors)
        self._done = state.facts["done"]
        for group, known in zip(self._optimiser.param_groups, state.facts["groups"], strict=True):
            group |= known | {"betas": tuple(known["betas"])}
        self._cycle.load_state_dict(state.facts["cycle"])
        self.history = History(**(state.facts["history"] | {"resumed_at": self._done}))

    def _facts(self) -> dict[str, Any]:
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self._optimiser.param_groups
        ]
        cycle = {name: value for name, value in self._cycle.state_dict().items() if not callable(value)}
        return {
            "done": self._done,
            "groups": groups,
            "cycle": cycle,
            "history": asdict(self.history) | {"seconds": self.seconds},
        }


class _Objective(nn.Module):
    """The forward pass with its loss: what has no part in the loss is seen to have none.

    What the model said comes beside it without gradients.
    """

    def __init__(self, model: Model, recipe: Recipe, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._schedule, self._task, self._kind = recipe.schedule, recipe.task, device.type
        self._is_bfloat16 = self._schedule.is_bfloat16 and multiplies_bfloat16(device)

    def forward(self, draw: Draw, *, auxiliary_alone: bool) -> tuple[Tensor, Fused]:
        with torch.autocast(self._kind, dtype=torch.bfloat16, enabled=self._is_bfloat16):
            fused: Fused = self.model(draw.batch)
        loss = loss_of(fused, draw, self._schedule, self._task, auxiliary_alone=auxiliary_alone)
        said = (fused.logits, fused.embedding, fused.modality_logits)
        return loss, Fused(*(values.detach() for values in said))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the processor itself does: where torch imitates it, a step takes many times as long."""
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _optimiser(model: Model, recipe: Recipe) -> torch.optim.AdamW:
    """Pretrained weights learn at a rate of their own; frozen ones are left out. A group for each encoder."""
    schedule = recipe.schedule
    encoders = [model.encoder(name) for name in model.names]
    encoded = {id(one) for encoder in encoders for one in encoder.parameters()}
    rest = (one for one in model.parameters() if one.requires_grad and id(one) not in encoded)
    groups: list[tuple[Modality | None, float, list[nn.Parameter]]] = [
        (None, schedule.learning_rate, list(rest))
    ]
    for name, encoder in zip(model.names, encoders, strict=True):
        pretrained = schedule.learning_rate * schedule.pretrained_rate
        groups.append((name, schedule.learning_rate, list(encoder.own_parameters())))
        groups.append((name, pretrained, list(encoder.pretrained_parameters())))
    return torch.optim.AdamW(
        [{"params": held, "lr": rate, MODALITY: name} for name, rate, held in groups if held],
        weight_decay=schedule.weight_decay,
    )


def _average(model: Model, keep: float) -> AveragedModel | None:
    if not keep:
        return None
    follow = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]

    def following(held: Tensors, current: Tensors, count: Tensor | int) -> None:
        """Of one dtype each. What counts or is a factor of a hash has no mean that is worth anything."""
        if held[0].is_floating_point():
            follow(held, current, count)
        else:
            for mine, theirs in zip(held, current, strict=True):
                mine.copy_(theirs)

    return AveragedModel(model, multi_avg_fn=following, use_buffers=True)


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's own types do not know it
