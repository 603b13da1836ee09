"""When do remedies for unequal modalities help? The same recipe trained without any, and with each.

    python -m benchmarks.imbalance RECIPE --data FOLDER [--epochs N] [--seeds N]

A joint fusion that learns from its joint answer alone may lean on the modality that is quickest to learn
and leave the others' encoders behind. The table shows for each remedy what all modalities reach together and
what each encoder is worth alone, read by a probe: a logistic regression on its frozen features (the model's
own heads are part of a remedy). Mean over the seeds, and the spread between them.

* none: the joint loss only
* heads: a head for every modality in the loss, as every recipe has (auxiliary weight 0.5)
* towers first: encoders learn on their heads alone for a third of the epochs, then together
* OGM: heads, and the encoder of the modality that is ahead learns more slowly (Peng et al., CVPR 2022)
* heads, dropout: heads, and modalities dropped at random, which is the default of the recipes
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from training.batch import Stock
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.encodings import Encodings, encode, rows_with
from training.progress import stages
from training.recipe import Recipe, Schedule
from training.recipes.registry import RECIPES
from training.run import evaluation_rows, preparer_of, train

_PROBE_STEPS: Final = 100  # of L-BFGS


def remedies(schedule: Schedule) -> dict[str, Schedule]:
    bare = replace(schedule, auxiliary_weight=0.0, drop_modality=0.0)
    third = max(1, schedule.epochs // 3)
    return {
        "none": bare,
        "heads": replace(bare, auxiliary_weight=0.5),
        "towers first": replace(bare, auxiliary_weight=0.5, tower_epochs=third),
        "OGM": replace(bare, auxiliary_weight=0.5, modulation=0.5),
        "heads, dropout": replace(bare, auxiliary_weight=0.5, drop_modality=0.3),
    }


def measure(recipe: Recipe, dataset: Dataset, *, seed: int, console: Console) -> dict[str, float]:
    """Test accuracy of all modalities together, and of a probe on each encoder's features."""
    trained = train(recipe, dataset, seed=seed, stage=stages(console))
    tokenize = preparer_of(recipe, trained.tokenizer_json)
    encoded = {
        name: encode(trained.model, Stock(split.items, recipe.inputs, tokenize), split.items.counts)
        for name, split in (("train", dataset.train), ("test", dataset.test))
    }
    everything = "+".join(recipe.inputs.names)
    answered = encoded["test"].answers(evaluation_rows(dataset.test), everything)
    found = {"together": float((answered.probabilities.argmax(axis=1) == answered.rows.targets).mean())}
    return found | {name: probe(encoded, dataset, name, seed=seed) for name in recipe.inputs.names}


def probe(encoded: dict[str, Encodings], dataset: Dataset, name: str, *, seed: int) -> float:
    """Accuracy of a logistic regression on frozen features, fitted and asked on rows that bring `name`."""
    features, targets = {}, {}
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        rows = rows_with(split.pairing.rows(seed), name)
        at = ("image", "text", "audio").index(name)
        features[part] = encoded[part].features[name][rows.items[:, at]].double()  # type: ignore[index]
        targets[part] = torch.from_numpy(rows.targets)
    mean, deviation = features["train"].mean(0), features["train"].std(0) + 1e-6
    scaled = {part: (values - mean) / deviation for part, values in features.items()}
    weights = torch.zeros(scaled["train"].shape[1] + 1, int(targets["train"].max()) + 1, dtype=torch.double)
    weights.requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe")

    def logits(part: str) -> torch.Tensor:
        return scaled[part] @ weights[1:] + weights[0]

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(logits("train"), targets["train"])
        value = value + 1e-4 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)
    return float((logits("test").argmax(dim=1) == targets["test"]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("data"))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    recipe, console = RECIPES[given.recipe]().with_fusion("feature", "concat"), Console()
    dataset = recipe.load(Home(given.data), Cache(given.cache / "decoded"))
    schedule = replace(recipe.schedule, epochs=given.epochs or recipe.schedule.epochs)
    table = Table("remedy", "together", *(f"{name} alone" for name in recipe.inputs.names))
    for name, remedy in remedies(schedule).items():
        runs = [
            measure(replace(recipe, schedule=remedy), dataset, seed=seed, console=console)
            for seed in range(given.seeds)
        ]
        columns = [np.array([run[key] for run in runs]) for key in runs[0]]
        table.add_row(name, *(f"{100 * c.mean():.1f} ± {100 * c.std():.1f} %" for c in columns))
        console.print(table)


if __name__ == "__main__":
    main()
