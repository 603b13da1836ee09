from __future__ import annotations

from typing import Any

import pytest

from training.fusion.build import build_fusion
from training.fusion.contract import COMBINATIONS, FusionSpec


def spec(**changed: Any) -> FusionSpec:
    return FusionSpec(**{"level": "feature", "method": "concat", "width": 8, "embedding": 8, **changed})


def test_there_are_ten_methods_at_two_levels_and_five_at_the_third() -> None:
    assert len(set(COMBINATIONS)) == 25
    assert [level for level, _ in COMBINATIONS].count("prediction") == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"level": "late"}, "no level 'late'. There are: feature, model, prediction"),
        ({"method": "stacking"}, "no method 'stacking' at feature level. There are: concat, multiply, sum"),
        (
            {"level": "prediction"},
            "'concat' at prediction level. There are: mean, weighted, multiply, log_linear, stacking",
        ),
        ({"level": "prediction", "method": "mean", "embedding": 9}, "set embedding to width, 8, not 9"),
        ({"method": "attention", "heads": 3}, "width 8 cannot be divided among 3 heads"),
        ({"method": "bottleneck", "blocks": 1}, "bottleneck needs 2 blocks"),
        ({"width": 0}, "width must be at least 1, not 0"),
        ({"rank": -1}, "rank must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_a_spec_that_cannot_be_built_says_why(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        spec(**changed)


def test_film_needs_its_conditioner() -> None:
    with pytest.raises(ValueError, match=r"no modality 'text' to condition on\. There are: image, audio\."):
        build_fusion(
            spec(method="film"),
            widths=(3, 4),
            labels=2,
            task="classification",
            modalities=("image", "audio"),
        )


def test_every_modality_needs_a_width() -> None:
    with pytest.raises(ValueError, match="2 widths for 3 modalities"):
        build_fusion(spec(), widths=(3, 4), labels=2, task="classification")
