"""Train a model on pairs that are drawn anew in every epoch, and the audio tower alone without a speaker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.bundle.manifest import MODALITIES
from training.augment import augment_images, augment_sounds
from training.data.corpus import Clips, Split
from training.data.pairs import ClassRows
from training.encoders.build import build_encoder
from training.model import Model, audio_spec
from training.recipe import Recipe, Schedule
from training.rows import ModelInputs, Rows, Sounds, as_rgb, without_padding


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is; `loss` and `accuracy` are of this step's batch."""

    done: int
    steps: int
    loss: float
    accuracy: float


Report = Callable[[Step], None]


def make_repeatable(schedule: Schedule, *, seed: int) -> None:
    """One seed, one result: on the same kind of CPU, with the same libraries and number of threads."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a fifth of the time
    torch.set_num_threads(schedule.threads)


def fit(model: Model, rows: Rows, split: Split, recipe: Recipe, *, seed: int, report: Report) -> None:
    """Optimise `model` in place; leaves it in evaluation mode."""
    schedule = recipe.schedule
    generator = torch.Generator().manual_seed(seed)
    per_epoch = -(-len(split.images.labels) // schedule.batch_size)
    steps = schedule.epochs * per_epoch
    optimiser, cycle = _optimiser(model, schedule, steps=steps)
    draw = _Drawer(rows, split, recipe, generator)
    _lay_out(model.train(), torch.channels_last)  # the faster layout for convolutions on a CPU
    for done, chosen in enumerate(_batches(len(split.images.labels), schedule, generator), start=1):
        inputs, labels = draw(chosen)
        present = draw_presence(len(labels), drop=schedule.drop_modality, generator=generator)
        fused = model(inputs.image, inputs.text, inputs.audio, inputs.audio_length, present)
        loss = fused_loss(fused.logits, fused.modality_logits, present, labels, schedule)
        _step(model, optimiser, cycle, loss, schedule)
        report(Step(done, steps, loss.item(), _accuracy(fused.logits, labels)))
    _lay_out(model.eval(), torch.contiguous_format)


def fused_loss(
    logits: Tensor, modality_logits: Tensor, present: Tensor, labels: Tensor, schedule: Schedule
) -> Tensor:
    """Cross entropy of the joint answer, and of what each present modality says alone."""
    smoothing = schedule.label_smoothing
    joint = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    each = nn.functional.cross_entropy(
        modality_logits.flatten(0, 1),
        labels.repeat_interleave(present.shape[1]),
        label_smoothing=smoothing,
        reduction="none",
    )
    alone = torch.where(present.flatten(), each, 0.0).sum() / present.sum()
    return joint + schedule.auxiliary_weight * alone


def draw_presence(rows: int, *, drop: float, generator: torch.Generator) -> Tensor:
    """Bool [rows, modalities]: each dropped with its own chance, drawn again where all would be gone."""
    present = torch.rand(rows, len(MODALITIES), generator=generator) >= drop
    while (gone := ~present.any(dim=1)).any():
        present[gone] = torch.rand(int(gone.sum()), len(MODALITIES), generator=generator) >= drop
    return present


class _Drawer:
    """Augmented training batches: the chosen images, each with a random text and recording of its class."""

    def __init__(self, rows: Rows, split: Split, recipe: Recipe, generator: torch.Generator) -> None:
        self._rows, self._split, self._recipe, self._generator = rows, split, recipe, generator
        self._texts, self._clips = ClassRows.of(split.texts.labels), ClassRows.of(split.clips.labels)

    def __call__(self, chosen: Tensor) -> tuple[ModelInputs, Tensor]:
        recipe, generator = self._recipe, self._generator
        text_spec, audio_spec = recipe.inputs.text, recipe.inputs.audio
        assert text_spec is not None
        assert audio_spec is not None
        labels = self._split.images.labels[chosen.numpy()]
        clips = self._rows.sounds.take(self._row_of(self._clips, labels))
        sounds = augment_sounds(clips, recipe.audio_augmentation, generator, rate_hz=audio_spec.sample_rate)
        text = self._rows.text[self._row_of(self._texts, labels)]
        inputs = ModelInputs(
            image=as_rgb(augment_images(self._rows.grey[chosen], recipe.image_augmentation, generator)),
            text=without_padding(text, pad_id=text_spec.pad_id),
            audio=sounds.samples,
            audio_length=sounds.length,
        )
        return inputs, torch.from_numpy(labels)

    def _row_of(self, rows: ClassRows, labels: NDArray[np.int64]) -> Tensor:
        chance = torch.rand(len(labels), generator=self._generator, dtype=torch.float64).numpy()
        return torch.from_numpy(rows.draw(labels, chance))


# --- one tower, to hear strangers -----------------------------------------------------------------


class _Listener(nn.Module):
    """The audio tower with a head of its own."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        spec = recipe.inputs.audio
        assert spec is not None
        self.tower = build_encoder(audio_spec(recipe), spec, vocabulary=None)
        self.head = nn.Linear(spec.features, len(recipe.labels))

    def forward(self, sounds: Sounds) -> Tensor:
        logits: Tensor = self.head(self.tower(sounds.samples, sounds.length).pooled)
        return logits


def accuracy_on_strangers(clips: Clips, recipe: Recipe, *, seed: int, report: Report) -> dict[str, float]:
    """For each speaker: a tower trained on all others, tested on every recording of this one."""
    found: dict[str, float] = {}
    for speaker in sorted(set(clips.speakers.tolist())):
        listener = _fit_listener(clips.where(clips.speakers != speaker), recipe, seed=seed, report=report)
        stranger = clips.where(clips.speakers == speaker)
        with torch.inference_mode():
            logits = listener(Sounds.of(stranger))
        found[speaker] = _accuracy(logits, torch.from_numpy(stranger.labels))
    return found


def _fit_listener(clips: Clips, recipe: Recipe, *, seed: int, report: Report) -> _Listener:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    spec, schedule = recipe.inputs.audio, recipe.schedule
    assert spec is not None
    listener = _Listener(recipe).train()
    sounds, labels = Sounds.of(clips), torch.from_numpy(clips.labels)
    batch = max(2, min(schedule.batch_size // 2, len(labels) // 4))
    steps = recipe.speaker_epochs * (len(labels) // batch)
    optimiser, cycle = _optimiser(listener, schedule, steps=steps)
    for done in range(1, steps + 1):
        chosen = torch.randint(len(labels), (batch,), generator=generator)
        heard = augment_sounds(
            sounds.take(chosen), recipe.audio_augmentation, generator, rate_hz=spec.sample_rate
        )
        logits = listener(heard)
        loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=schedule.label_smoothing)
        _step(listener, optimiser, cycle, loss, schedule)
        report(Step(done, steps, loss.item(), _accuracy(logits, labels[chosen])))
    return listener.eval()


# --- both -----------------------------------------------------------------------------------------


def _optimiser(
    model: nn.Module, schedule: Schedule, *, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.learning_rate, total_steps=steps + 1)
    return optimiser, cycle


def _step(
    model: nn.Module,
    optimiser: torch.optim.AdamW,
    cycle: torch.optim.lr_scheduler.OneCycleLR,
    loss: Tensor,
    schedule: Schedule,
) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
    optimiser.step()
    cycle.step()


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's own types do not know it


def _batches(rows: int, schedule: Schedule, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(schedule.epochs):
        order = torch.randperm(rows, generator=generator)
        yield from torch.split(order, schedule.batch_size)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).float().mean().item()
