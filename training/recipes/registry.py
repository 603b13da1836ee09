"""The recipes by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from training.recipe import Recipe
from training.recipes.article import article
from training.recipes.avt_digits import avt_digits
from training.recipes.digits import digits
from training.recipes.picturewords import picturewords
from training.recipes.xor import xor

RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    "digits": digits,
    "avt_digits": avt_digits,
    "picturewords": picturewords,
    "article": article,
    "xor": xor,
}
