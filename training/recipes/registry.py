"""The recipes by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from training.recipe import Recipe
from training.recipes.digits import digits
from training.recipes.picturewords import picturewords

RECIPES: Final[dict[str, Callable[[], Recipe]]] = {"digits": digits, "picturewords": picturewords}
