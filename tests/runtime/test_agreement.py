"""A bundle whose graphs answer one row in two ways is found out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.bundle.folder import Bundle
from app.bundle.golden import dump_golden, load_golden
from app.runtime.agreement import SIZES, check_agreement
from app.runtime.errors import GraphsDisagree
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from tests import tiny

CPU = Device("cpu")


def opened(bundle: Bundle) -> Predictor:
    return Predictor.open(bundle, device=CPU, threads=1)


@pytest.mark.parametrize("make", [tiny.make, tiny.with_sets, tiny.multilabel])
def test_a_sound_bundle_agrees_in_every_subset_and_batch(make: object) -> None:
    assert callable(make)
    bundle = make()
    found = check_agreement(bundle, opened(bundle))
    assert len(found.subsets) == 7
    rows = 7 + 6  # the golden cases, and what is left of the one that has everything
    assert found.answers == 2 * sum(-(-rows // size) * size for size in SIZES)
    assert max(found.split_difference, found.fused_difference) <= 1e-5


def test_a_bundle_of_fewer_modalities_agrees_too() -> None:
    bundle = tiny.make(modalities=("text", "audio"))
    assert check_agreement(bundle, opened(bundle)).subsets == ("text", "audio", "text+audio")


def test_golden_cases_without_logits_are_held_to_themselves(bundle: Bundle) -> None:
    older = with_cases(bundle, {"logits": None})
    assert check_agreement(older, opened(older)).answers == check_agreement(bundle, opened(bundle)).answers


def test_logits_that_are_not_those_of_export_are_named(bundle: Bundle) -> None:
    moved = with_cases(bundle, {"logits": (9.0, 1.0, 1.0)})
    with pytest.raises(GraphsDisagree, match="golden case 'image': in a batch of 1 the encoders and the"):
        check_agreement(moved, opened(moved))


def test_a_fused_graph_of_another_model_is_named(bundle: Bundle) -> None:
    text = tiny.fusion_graph(bundle.manifest.inputs.names).replace("{4.0}", "{4.001}")
    fused = tiny.fused_graph(bundle.manifest.inputs.names, tiny.graph(text))
    other = replace(bundle, files={**bundle.files, "fused.onnx": fused})
    with pytest.raises(GraphsDisagree, match="the fused graph differ by"):
        check_agreement(other, opened(other))


def test_a_graph_that_answers_by_its_neighbours_is_found(bundle: Bundle) -> None:
    """Its sum is over the batch too, so that a row alone is answered as at export."""
    leaking = tiny.graph(
        tiny.IMAGE_GRAPH.replace("axes = {1, 2}", "axes = {1, 2}, int64[1] rows_axis = {0}").replace(
            "features = Div (mean, scale)",
            "own = Div (mean, scale)\n all = ReduceMean <keepdims = 1> (own, rows_axis)\n"
            " half = Add (own, all)\n two = Add (scale, scale)\n one = Div (two, scale)\n"
            " features = Div (half, one)",
        )
    )
    other = replace(bundle, files={**bundle.files, "encoders/image.onnx": leaking})
    mixed = with_cases(other, {"logits": None})
    mixed = replace(mixed, files={**mixed.files, "golden/blue.png": tiny.png((0, 0, 250))})
    cases = load_golden(mixed.manifest, mixed.files)
    changed = (*cases[:-1], cases[-1].model_copy(update={"image": "golden/blue.png"}))
    mixed = replace(mixed, files={**mixed.files, "golden/cases.json": dump_golden(changed)})
    with pytest.raises(GraphsDisagree, match="in a batch of 5 the encoders and the fusion differ"):
        check_agreement(mixed, opened(mixed))


def with_cases(bundle: Bundle, change: dict[str, object]) -> Bundle:
    cases = load_golden(bundle.manifest, bundle.files)
    changed = dump_golden(tuple(case.model_copy(update=change) for case in cases))
    return replace(bundle, files={**bundle.files, "golden/cases.json": changed})
