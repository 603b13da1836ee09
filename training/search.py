"""Look for a recipe's settings by Optuna: what gives the lowest loss on validation rows, test rows unseen.

Trials are sampled by TPE (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011) and pruned at
the median of the others' after each epoch. They are kept in a file: a search that was interrupted goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import optuna

from training.fit.loop import Diverged
from training.fusion.contract import COMBINATIONS
from training.recipe import Recipe
from training.run import Watch

STUDY_FILE: Final = "search.sqlite3"
_FIRST_AT_RANDOM: Final = 5  # trials before the others' are believed

Objective = Callable[[Recipe, Watch], float]  # trains, told of each epoch; gives the loss of validation rows


@dataclass(frozen=True, slots=True)
class Searched:
    """`best` is of all trials of the study, those of earlier calls too."""

    trials: int
    pruned: int
    loss: float
    best: dict[str, Any]


def search(
    recipe: Recipe,
    objective: Objective,
    folder: Path,
    *,
    trials: int,
    seed: int,
    provenance: Mapping[str, Any],
) -> Searched:
    """`trials` more of them, beside those of the same recipe on data of the same `provenance`.

    A trial that diverges is pruned. Raises Diverged where all did.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY_FILE}",
        study_name=_study_name(recipe, provenance),
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_FIRST_AT_RANDOM),
    )
    # Trials that are there count: the same seed again would draw those at random again.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + len(study.trials), n_startup_trials=_FIRST_AT_RANDOM
    )

    def run(trial: optuna.Trial) -> float:
        def prune(epoch: int, loss: float) -> None:
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            return objective(suggested(recipe, trial), prune)
        except Diverged as error:
            raise optuna.TrialPruned(str(error)) from error

    study.optimize(run, n_trials=trials)
    if not study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        raise Diverged(
            f"None of {len(study.trials)} trials ended with a loss. They try up to ten times the recipe's "
            f"own learning rate, {recipe.schedule.learning_rate:g}: ask for more --trials, or lower it."
        )
    pruned = sum(one.state is optuna.trial.TrialState.PRUNED for one in study.trials)
    return Searched(len(study.trials), pruned, study.best_value, dict(study.best_params))


def _study_name(recipe: Recipe, provenance: Mapping[str, Any]) -> str:
    """Losses of other epochs, or of other data, are no measure for these."""
    told = json.dumps({"settings": recipe.settings(), "data": provenance}, sort_keys=True, default=str)
    return f"{recipe.name}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def suggested(recipe: Recipe, trial: optuna.Trial) -> Recipe:
    """The recipe with six settings as the trial says: around its own rate and width, the others in full."""
    own, heads = recipe.schedule, recipe.fusion.heads
    groups = max(2, recipe.fusion.width // heads)  # heads divide every width
    schedule = replace(
        own,
        learning_rate=trial.suggest_float(
            "learning_rate", own.learning_rate / 10, own.learning_rate * 10, log=True
        ),
        weight_decay=trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
        drop_modality=trial.suggest_float("drop_modality", 0.0, 0.6),
        auxiliary_weight=trial.suggest_float("auxiliary_weight", 0.1, 2.0, log=True),
        patience=own.patience if own.patience is not None else own.epochs,  # validation is what prunes
    )
    chosen = trial.suggest_categorical("fusion", [f"{level}/{method}" for level, method in COMBINATIONS])
    wide = trial.suggest_categorical("width", [heads * (groups // 2), heads * groups, heads * 2 * groups])
    fusion = replace(recipe.fusion, width=wide, embedding=wide)
    level, method = next(one for one in COMBINATIONS if "/".join(one) == chosen)
    return replace(recipe, schedule=schedule, fusion=fusion).with_fusion(level, method)
