"""A bundle runs: any subset, any company, any order, one answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from app.bundle.conformal import set_bounds
from app.bundle.folder import Bundle
from app.bundle.manifest import MODALITIES, ConformalMethod, Modality, subset_name, subsets
from app.bundle.sample import RawInputs
from app.runtime.agreement import fused_logits
from app.runtime.errors import DeviceUnavailable, GoldenMismatch, GraphInvalid, NonFiniteOutput, RunFailed
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device, find_device, open_session
from tests import tiny

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]
CPU = Device("cpu")


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_subset_is_answered(predictor: Predictor, subset: tuple[Modality, ...]) -> None:
    prediction = predictor.predict(tiny.row(3, subset))
    assert prediction.used == subset
    assert set(prediction.missing) == set(MODALITIES) - set(subset)
    assert set(prediction.by_modality) == set(subset)
    probabilities = [one.probability for one in prediction.top]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)


def test_the_answer_is_the_one_computed_by_head(predictor: Predictor) -> None:
    prediction = predictor.predict(RawInputs(image=tiny.png((255, 0, 51))))
    exponents = np.exp([4, 0, 0.8])
    assert prediction.best.label == "red"
    assert [one.label for one in prediction.top] == ["red", "blue", "green"]
    assert prediction.best.probability == pytest.approx(exponents[0] / exponents.sum())


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(SUBSETS)), min_size=1, max_size=9))
def test_a_row_answers_in_company_as_it_does_alone(
    predictor: Predictor, rows: list[tuple[int, tuple[Modality, ...]]]
) -> None:
    samples = [predictor.prepare(tiny.row(seed, subset)) for seed, subset in rows]
    for sample, together in zip(samples, predictor.run(samples), strict=True):
        [alone] = predictor.run([sample])
        np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(together.modality_probabilities, alone.modality_probabilities, atol=1e-5)


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(SUBSETS), st.sets(st.sampled_from(MODALITIES))),
        min_size=1,
        max_size=6,
    )
)
def test_features_that_come_with_a_row_answer_as_its_pixels_do(
    predictor: Predictor, rows: list[tuple[int, tuple[Modality, ...], set[Modality]]]
) -> None:
    """Any modalities of any rows may have been encoded before; no encoder sees them again."""
    samples = [predictor.prepare(tiny.row(seed, subset)) for seed, subset, _ in rows]
    fresh = predictor.run(samples)
    ready = []
    for sample, outputs, (_, subset, known) in zip(samples, fresh, rows, strict=True):
        features = {
            name: vector
            for name, vector in zip(MODALITIES, outputs.features, strict=True)
            if name in known and name in subset
        }
        ready.append(dataclasses.replace(sample, **dict.fromkeys(features), features=features))
    ran = predictor.execute(ready)
    for sample, known_sample, expected, outputs in zip(samples, ready, fresh, ran.rows, strict=True):
        assert known_sample.present == sample.present
        np.testing.assert_allclose(outputs.probabilities, expected.probabilities, atol=1e-6)
        np.testing.assert_allclose(outputs.embedding, expected.embedding, atol=1e-6)
    encoded = {part.part: 0 for part in ran.parts}
    for part in ran.parts:
        encoded[part.part] += part.rows
    for name in MODALITIES:
        assert encoded.get(name, 0) == sum(getattr(sample, name) is not None for sample in ready)


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(SUBSETS), st.booleans()), min_size=1, max_size=6
    )
)
def test_an_explained_row_is_asked_what_each_subset_of_it_would_be(
    predictor: Predictor, rows: list[tuple[int, tuple[Modality, ...], bool]]
) -> None:
    """In the company of any rows, by the split graphs and the fused one, each encoder once."""
    samples = [
        dataclasses.replace(predictor.prepare(tiny.row(seed, subset)), is_explained=is_explained)
        for seed, subset, is_explained in rows
    ]
    ran = predictor.execute(samples)
    for sample, outputs in zip(samples, ran.rows, strict=True):
        assert (outputs.by_subset is not None) == sample.is_explained
        for name, probabilities in (outputs.by_subset or {}).items():
            part = dataclasses.replace(
                sample, **{other: None for other in sample.present if other not in name.split("+")}
            )
            [alone] = predictor.run([dataclasses.replace(part, is_explained=False)])
            np.testing.assert_allclose(probabilities, alone.probabilities, atol=1e-6)
        assert list(outputs.by_subset or {}) == (list(subsets(sample.present)) if sample.is_explained else [])
    encoded = sum(part.rows for part in ran.parts if part.part != "fusion")
    assert encoded == sum(len(sample.present) for sample in samples)
    assert ran.parts[-1].rows == sum(sample.answers for sample in samples)


def test_the_fused_graph_agrees_with_an_explanation(bundle: Bundle, predictor: Predictor) -> None:
    sample = dataclasses.replace(predictor.prepare(tiny.row(4)), is_explained=True)
    [outputs] = predictor.run([sample])
    fused = open_session(bundle.files["fused.onnx"], name="fused.onnx", device=CPU, threads=1)
    for name, probabilities in (outputs.by_subset or {}).items():
        part = dataclasses.replace(sample, **{n: None for n in MODALITIES if n not in name.split("+")})
        exponents = np.exp(fused_logits(fused, [part], bundle.manifest.inputs)[0])
        np.testing.assert_allclose(probabilities, exponents / exponents.sum(), atol=1e-5)


def test_a_row_that_is_not_a_number_harms_no_other(bundle: Bundle) -> None:
    """The encoder divides by the colour of the picture: black has no answer."""
    dividing = tiny.graph(tiny.IMAGE_GRAPH.replace("Div (mean, scale)", "Div (mean, mean)"))
    files = bundle.files | {"encoders/image.onnx": dividing}
    predictor = Predictor.open(Bundle(bundle.manifest, files), device=CPU, threads=1)
    black, grey = (predictor.prepare(RawInputs(image=tiny.png((c, c, c)))) for c in (0, 9))
    [bad, good] = predictor.run([black, grey])
    assert predictor.interpret(good, grey, top_k=1).best.probability == pytest.approx(1 / 3)
    with pytest.raises(NonFiniteOutput):
        predictor.interpret(bad, black, top_k=1)


def test_golden_cases_replay(bundle: Bundle, predictor: Predictor) -> None:
    replayed = replay(bundle, predictor)
    assert replayed.cases == 7
    assert replayed.largest_difference < 1e-6


def test_a_model_that_answers_otherwise_is_caught(bundle: Bundle) -> None:
    other = tiny.graph(tiny.IMAGE_GRAPH.replace("{255.0}", "{250.0}"))
    changed = dataclasses.replace(bundle, files=bundle.files | {"encoders/image.onnx": other})
    with pytest.raises(GoldenMismatch, match="golden case 'image'"):
        replay(changed, Predictor.open(changed, device=CPU, threads=1))


METHODS: tuple[ConformalMethod, ...] = ("lac", "aps")


@pytest.fixture(scope="module", params=METHODS)
def with_sets(request: pytest.FixtureRequest) -> Bundle:
    return tiny.with_sets(request.param)


@pytest.fixture(scope="module")
def choosing(with_sets: Bundle) -> Predictor:
    return Predictor.open(with_sets, device=CPU, threads=1)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(SUBSETS)), min_size=1, max_size=9))
def test_each_row_has_the_set_of_its_own_subset(
    choosing: Predictor, rows: list[tuple[int, tuple[Modality, ...]]]
) -> None:
    predictor, conformal = choosing, choosing.manifest.calibration.conformal
    assert conformal is not None
    samples = [predictor.prepare(tiny.row(seed, subset)) for seed, subset in rows]
    for sample, outputs, (_, subset) in zip(samples, predictor.run(samples), rows, strict=True):
        threshold = conformal.thresholds[subset_name(subset)]
        bounds = set_bounds(outputs.probabilities, threshold, method=conformal.method, tolerance=1e-5)
        assert outputs.prediction_set is not None
        assert bounds.admit(outputs.prediction_set)
        prediction = predictor.interpret(outputs, sample, top_k=1)
        assert prediction.prediction_set is not None
        chosen = prediction.prediction_set.labels
        assert chosen[0] == prediction.best.label
        assert set(chosen) == {tiny.LABELS[index] for index in np.flatnonzero(outputs.prediction_set)}
        assert [outputs.probabilities[tiny.LABELS.index(label)] for label in chosen] == sorted(
            outputs.probabilities[outputs.prediction_set], reverse=True
        )


def test_sets_replay_and_those_of_other_thresholds_are_caught(with_sets: Bundle, choosing: Predictor) -> None:
    assert replay(with_sets, choosing).cases == 7
    calibration = with_sets.manifest.calibration
    assert calibration.conformal is not None
    strict = calibration.conformal.model_copy(update={"lac": NO_MORE, "aps": NO_MORE})
    other = with_sets.manifest.model_copy(
        update={"calibration": calibration.model_copy(update={"conformal": strict})}
    )
    changed = dataclasses.replace(with_sets, manifest=other)
    sentence = r"golden case '.*': the set of labels .* the manifest's (LAC|APS) threshold, 0\."
    with pytest.raises(GoldenMismatch, match=sentence):
        replay(changed, Predictor.open(changed, device=CPU, threads=1))


def test_a_graph_without_the_sets_that_the_manifest_promises_is_named(
    with_sets: Bundle, bundle: Bundle
) -> None:
    plain = bundle.files["fusion.onnx"]
    for graph, message in (
        (plain, r"fusion\.onnx: the graph has no output 'prediction_set'"),
        (tiny.graph(AS_NUMBERS), r"fusion\.onnx: the output 'prediction_set' is not bool"),
    ):
        other = dataclasses.replace(with_sets, files=with_sets.files | {"fusion.onnx": graph})
        predictor = Predictor.open(other, device=CPU, threads=1)
        with pytest.raises(GraphInvalid, match=message):
            predictor.predict(tiny.row(0))


NO_MORE = dict.fromkeys(subsets(MODALITIES), 0.0)
AS_NUMBERS = (
    tiny.fusion_graph(MODALITIES, conformal=tiny.conformal_sets("lac"))
    .replace("bool[rows,3] prediction_set", "uint8[rows,3] prediction_set")
    .replace("prediction_set = Or", "chosen = Or")
    .replace("\n}", "\n    prediction_set = Cast <to = 2> (chosen)\n}")
)


def test_labels_that_stand_alone_are_those_that_reach_their_thresholds() -> None:
    bundle = tiny.multilabel()
    predictor = Predictor.open(bundle, device=CPU, threads=1)
    assert replay(bundle, predictor).cases == 7
    # sigmoid(4 c - 2) of colours 255, 153 and 191: 0.88, 0.60 and 0.73; green's threshold is 0.6
    for colour, labels in (
        ((255, 152, 191), ["red", "blue"]),
        ((255, 155, 0), ["red", "green"]),
        ((0, 0, 0), []),
    ):
        prediction = predictor.predict(RawInputs(image=tiny.png(colour)))
        assert prediction.labels is not None
        assert [one.label for one in prediction.labels] == labels
        assert prediction.prediction_set is None
        assert prediction.by_modality["image"].labels == prediction.labels, "the image is all there is"
        for one, part in zip(
            sorted(prediction.top, key=lambda one: tiny.LABELS.index(one.label)), colour, strict=True
        ):
            assert one.probability == pytest.approx(1 / (1 + np.exp(2 - 4 * part / 255)), abs=1e-6)
    [outputs] = predictor.run([predictor.prepare(tiny.row(0, ("text",)))])
    np.testing.assert_array_equal(
        outputs.modality_probabilities[0], [0.5] * 3, "nothing is known of an absent image"
    )


def test_a_graph_that_is_none_is_named(bundle: Bundle) -> None:
    broken = dataclasses.replace(bundle, files=bundle.files | {"fusion.onnx": b"no graph"})
    with pytest.raises(GraphInvalid, match=r"fusion\.onnx: ONNX Runtime cannot load"):
        Predictor.open(broken, device=CPU, threads=1)


def test_a_graph_with_other_inputs_is_named(bundle: Bundle) -> None:
    swapped = bundle.files | {"encoders/image.onnx": bundle.files["encoders/text.onnx"]}
    predictor = Predictor.open(dataclasses.replace(bundle, files=swapped), device=CPU, threads=1)
    with pytest.raises(GraphInvalid, match=r"encoders/image\.onnx: the graph's inputs are \['text'\]"):
        predictor.predict(tiny.row(0, ("image",)))


class LostDevice:
    """In place of ONNX Runtime's native session: its device fails when it runs."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def run(self, *_: object) -> None:
        raise EPFail("CUDA failure 700\nand the rest of it")


def test_a_device_that_fails_in_a_run_is_an_error_and_not_replaced_by_the_cpu() -> None:
    session: Any = open_session(tiny.graph(tiny.IMAGE_GRAPH), name="image.onnx", device=CPU, threads=1)
    inner = session._session
    inner._sess = LostDevice(inner._sess)
    with pytest.raises(
        RunFailed, match=r"^image\.onnx: ONNX Runtime cannot run this graph: CUDA failure 700$"
    ):
        session.run({"image": np.zeros((1, 8, 8, 3), np.uint8)})


@pytest.mark.parametrize("wanted", ["cuda", "cuda:1", "tpu", "cuda:x", "cuda:²", "cuda:-1", "cuda:٣", ""])
def test_a_device_that_is_not_there_is_an_error(wanted: str) -> None:
    """Never a silent fallback. On a machine with CUDA, only the names that mean nothing are refused."""
    if wanted.startswith("cuda") and find_device("auto").kind == "cuda" and wanted in ("cuda", "cuda:1"):
        assert find_device(wanted).kind == "cuda"
        return
    with pytest.raises(DeviceUnavailable):
        find_device(wanted)


def test_devices_are_named() -> None:
    assert str(find_device("cpu")) == "cpu"
    assert str(Device("cuda", 1)) == "cuda:1"
