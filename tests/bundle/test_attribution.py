"""Contributions of modalities keep the laws that single them out, and are those of the definition."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bundle.attribution import explain, shapley
from app.bundle.manifest import MODALITIES, Modality, subset_name, subsets
from tests import tiny

PLAYERS = [tuple(name.split("+")) for name in subsets(MODALITIES)]


@st.composite
def games(draw: st.DrawFn) -> tuple[dict[str, float], tuple[Modality, ...], float]:
    """Values in the range that logarithms of float32 probabilities have."""
    players = draw(st.sampled_from(PLAYERS))
    nats = st.floats(-88, 0)
    return {name: draw(nats) for name in subsets(players)}, players, draw(nats)


@given(games())
def test_contributions_add_up_to_what_all_say_beyond_nothing(
    game: tuple[dict[str, float], tuple[Modality, ...], float],
) -> None:
    values, players, base = game
    found = shapley(values, players, base=base)
    assert tuple(found) == players
    assert sum(found.values()) == pytest.approx(values[subset_name(players)] - base, abs=1e-9)
    if len(players) == 1:
        assert found == {players[0]: values[players[0]] - base}, "alone it has all of it"


@given(games())
def test_a_contribution_is_the_mean_gain_over_all_orders(
    game: tuple[dict[str, float], tuple[Modality, ...], float],
) -> None:
    values, players, base = game
    with_nothing = {"": base, **values}
    gains: dict[Modality, list[float]] = {player: [] for player in players}
    for order in permutations(players):
        names = [
            subset_name(tuple(one for one in players if one in order[:count]))
            for count in range(len(order) + 1)
        ]
        for player, before, after in zip(order, names, names[1:], strict=False):
            gains[player].append(with_nothing[after] - with_nothing[before])
    found = shapley(values, players, base=base)
    for player, each in gains.items():
        assert found[player] == pytest.approx(sum(each) / len(each), abs=1e-9)


@given(games(), st.data())
def test_what_changes_nothing_contributes_nothing(
    game: tuple[dict[str, float], tuple[Modality, ...], float], data: st.DataObject
) -> None:
    values, players, base = game
    idle = data.draw(st.sampled_from(players))
    for name in values:
        rest = "+".join(one for one in name.split("+") if one != idle)
        values[name] = values[rest] if rest else base
    assert shapley(values, players, base=base)[idle] == pytest.approx(0, abs=1e-9)


@given(games(), st.data())
def test_those_who_say_the_same_contribute_the_same(
    game: tuple[dict[str, float], tuple[Modality, ...], float], data: st.DataObject
) -> None:
    values, players, base = game
    one, other = (data.draw(st.sampled_from(players)) for _ in range(2))
    swapped = {one: other, other: one}
    for name in values:
        alike = [name, subset_name(tuple(p for p in players if swapped.get(p, p) in name.split("+")))]
        values[name] = values[min(alike)]
    found = shapley(values, players, base=base)
    assert found[one] == pytest.approx(found[other], abs=1e-9)


def test_the_base_is_the_prior_and_even_where_there_is_none() -> None:
    said = {"text": np.array([0.1, 0.0, 0.9], np.float32)}
    plain = tiny.make(modalities=("text",)).manifest
    calibration = plain.calibration.model_copy(update={"prior": (0.25, 0.0, 0.75)})
    known = plain.model_copy(update={"calibration": calibration})
    many = plain.model_copy(update={"task": "multilabel"})
    for manifest, share, is_even in ((known, 0.75, False), (plain, 1 / 3, True), (many, 0.5, True)):
        found = explain(said, np.intp(2), ("text",), manifest)
        assert (found.label, found.is_base_even) == ("blue", is_even)
        assert found.base == pytest.approx(math.log(share))
        assert found.contributions == {"text": pytest.approx(math.log(0.9) - math.log(share))}
    never = explain(said, np.intp(1), ("text",), known)
    assert never.contributions == {"text": 0.0}, "what rounds to 0 has a logarithm all the same"
    assert never.subsets["text"].label == "blue"
