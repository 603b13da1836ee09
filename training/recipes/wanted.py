"""Which recipe, and what was said otherwise about it: all that makes the same recipe again for export."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from training.fusion.contract import COMBINATIONS, Level, Method
from training.recipe import Recipe
from training.recipes.finetune import FINETUNE, OwnRows, finetune
from training.recipes.registry import RECIPES

WANTED_FILE: Final = "recipe.json"
NAMES: Final = (*RECIPES, FINETUNE)


class RecipeUnfit(Exception):
    """There is no such recipe, or it cannot be made as it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """None leaves what the recipe says. `own_rows` is for `finetune`, and only for it."""

    recipe: str
    fusion: str | None = None  # LEVEL/METHOD
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    own_rows: OwnRows | None = None

    def make(self) -> Recipe:
        """Raises RecipeUnfit, or what `finetune` raises."""
        if self.recipe not in NAMES:
            raise RecipeUnfit(f"'{self.recipe}' is not a recipe. Choose one of: {', '.join(NAMES)}.")
        if (self.own_rows is None) is (self.recipe == FINETUNE):
            raise RecipeUnfit(f"--manifest and --encoder are needed by {FINETUNE}, and by no other recipe.")
        recipe = RECIPES[self.recipe]() if self.own_rows is None else finetune(self.own_rows)
        told = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        changes: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
        recipe = replace(recipe, schedule=replace(recipe.schedule, **changes))
        return recipe if self.fusion is None else recipe.with_fusion(*_combination(self.fusion))


def save_wanted(folder: Path, wanted: Wanted) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WANTED_FILE).write_text(json.dumps(asdict(wanted), indent=1) + "\n", encoding="utf-8")


def load_wanted(folder: Path, recipe: str) -> Wanted:
    """What `folder` was trained with; the recipe as it is where nothing was saved. Raises RecipeUnfit."""
    path = folder / WANTED_FILE
    if not path.exists():
        return Wanted(recipe=recipe)
    told = json.loads(path.read_bytes())
    own = told.pop("own_rows")
    rows = None if own is None else OwnRows(**own | {"tune": tuple(own["tune"])})
    wanted = Wanted(**told, own_rows=rows)
    if wanted.recipe != recipe:
        raise RecipeUnfit(f"{folder} was trained by the recipe {wanted.recipe}, not by {recipe}.")
    return wanted


def _combination(fusion: str) -> tuple[Level, Method]:
    for level, method in COMBINATIONS:
        if fusion == f"{level}/{method}":
            return level, method
    known = ", ".join(f"{level}/{method}" for level, method in COMBINATIONS)
    raise RecipeUnfit(f"'{fusion}' is no fusion. Choose one of: {known}.")
