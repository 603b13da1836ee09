from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from app.bundle.errors import ManifestInvalid
from app.bundle.folder import Bundle, read_bundle
from app.bundle.manifest import Inputs, Modality, subsets
from app.bundle.sample import Arrays, Sample
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device, open_session
from tests.training.fake_sets import FakeSets
from training.__main__ import app
from training.batch import Stock
from training.checkpoint import (
    Checkpoint,
    CheckpointInvalid,
    load_checkpoint,
    save_checkpoint,
    vocabulary_size,
)
from training.data.dataset import Dataset
from training.encoders.specs import ConvText
from training.encoders.spectrogram import LogMel
from training.evaluate import measure_answers
from training.export.bundle import bundle_folder, parity_samples, publish
from training.export.gates import Gate, Rule, Verdict, size_gate, speed_gates
from training.export.graphs import export_graphs
from training.export.packing import LOSSLESS, Stored, ancestors, pack, rounded, spell_out_waves
from training.export.precision import batches_of, int8_encoder
from training.export.race import BATCHES, Ratio, race
from training.export.variants import GatesFailed, Made, Origin, make_variant, origin_of
from training.model import Model
from training.progress import silent
from training.recipe import Augmentation, Recipe
from training.recipes.digits import digits
from training.recipes.registry import RECIPES
from training.run import preparer_of, tokenizer_of, train

CPU = Device("cpu")
PAIRED = subsets(("image", "audio"))
RNG = np.random.default_rng(5)


def raced(value: float) -> tuple[Ratio, ...]:
    """What a race says whose outcome is known: a test's machine has other work to do."""
    return tuple(Ratio(rows, 30, 0.001, 0.001 * value, value, (value - 0.1, value + 0.1)) for rows in BATCHES)


def faster(champion: Predictor, challenger: Predictor, samples: list[Sample]) -> tuple[Ratio, ...]:
    assert champion is not challenger
    assert samples
    return raced(0.7)


def slower(champion: Predictor, challenger: Predictor, samples: list[Sample]) -> tuple[Ratio, ...]:
    del champion, challenger, samples
    return raced(1.0)


def ruining(graph: onnx.ModelProto, name: Modality, seen: list[Arrays]) -> onnx.ModelProto:
    """A quantiser that loses the order of an encoder's largest weights."""
    made = int8_encoder(graph, name, seen)
    largest = max(made.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights = numpy_helper.to_array(largest)
    shuffled = RNG.permutation(weights.reshape(-1)).reshape(weights.shape)
    largest.CopyFrom(numpy_helper.from_array(shuffled, largest.name))
    return made


@pytest.fixture(scope="module")
def wide(recipe: Recipe) -> Recipe:
    """As wide as the real one: of a narrower bundle the drawn pictures and sounds are a third already.

    Without texts, of which so short a training learns too little for answers that hold still.
    """
    full = digits()
    return replace(
        full,
        load=recipe.load,
        inputs=Inputs(image=full.inputs.image, audio=full.inputs.audio),
        encoders={name: full.encoders[name] for name in ("image", "audio")},
        schedule=replace(recipe.schedule, epochs=20),
        augmentation=Augmentation(),
        degradation=None,
        strangers=None,
    )


@pytest.fixture(scope="module")
def known(dataset: Dataset) -> Dataset:
    """Test rows that were learnt: of rows that a model guesses at, a hair's breadth changes the answer."""
    return replace(dataset, train=dataset.test)


@pytest.fixture(scope="module")
def out(wide: Recipe, known: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and its float32 bundle, version 4."""
    folder = tmp_path_factory.mktemp("out")
    trained = train(wide, known, seed=0, stage=silent)
    _, found = measure_answers(
        trained.model,
        recipe=wide,
        split=known.test,
        tokenizer_json=trained.tokenizer_json,
        conformal=trained.calibrated.conformal,
    )
    fields = (trained.model, wide.labels, trained.tokenizer_json, trained.calibrated, trained.run)
    save_checkpoint(folder, Checkpoint(*fields, found.summary()))
    loaded = load_checkpoint(folder, wide)
    graphs = export_graphs(loaded.model, wide.inputs)
    publish(loaded, wide, graphs, known.test, bundle_folder(folder, wide, number=4), number=4)
    return folder


@pytest.fixture(scope="module")
def origin(out: Path, wide: Recipe) -> Origin:
    return origin_of(out, load_checkpoint(out, wide), wide, number=4)


@pytest.fixture(scope="module")
def made(origin: Origin, known: Dataset, out: Path) -> Made:
    return make_variant(origin, known, out, precision="int8", measure_speed=faster)


@pytest.fixture(scope="module")
def bundle(made: Made) -> Bundle:
    return read_bundle(made.published.folder)


# --- a variant that is published ----------------------------------------------------------------


def test_a_variant_is_a_model_of_its_own_that_names_its_origin(
    made: Made, bundle: Bundle, origin: Origin
) -> None:
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == ("digits-int8", 4)
    assert made.published.folder.parts[-3:] == ("bundle", "digits-int8", "4")
    assert manifest.variant is not None
    assert (manifest.variant.precision, manifest.variant.of) == ("int8", origin.bundle.manifest.digest)
    assert replay(bundle, Predictor.open(bundle, device=CPU, threads=1)).cases > 3


def test_the_gates_are_kept_with_their_numbers(made: Made, bundle: Bundle, origin: Origin) -> None:
    gates = {gate["name"]: gate for gate in bundle.manifest.metrics["gates"]}
    assert list(gates) == [
        "accuracy lost", "same answers", "calibration error added", "size", "time for 1 row",
        "time for 32 rows",
    ]  # fmt: skip
    assert all(gate["is_met"] for gate in gates.values())
    assert set(gates["same answers"]["parts"]) == set(PAIRED)
    sizes = [sum(len(body) for body in one.files.values()) for one in (bundle, origin.bundle)]
    assert gates["size"]["measured"] == pytest.approx(sizes[0] / sizes[1], abs=0.003)  # the card is longer
    assert made.verdict.as_json() == bundle.manifest.metrics["gates"]
    assert "## Variant" in bundle.files["README.md"].decode()
    assert "time for 32 rows" in bundle.files["README.md"].decode()


def test_calibration_is_fitted_again_on_its_own_answers(bundle: Bundle, origin: Origin) -> None:
    own, exact = bundle.manifest.calibration, origin.bundle.manifest.calibration
    assert set(own.temperature) == set(PAIRED)
    assert all(own.temperature[subset] != exact.temperature[subset] for subset in PAIRED)
    assert all(own.temperature[s] == pytest.approx(exact.temperature[s], rel=0.2) for s in PAIRED)
    assert own.conformal is not None
    assert exact.conformal is not None
    assert own.conformal.lac != exact.conformal.lac
    assert own.prior == exact.prior


def test_golden_inputs_stay_and_answers_are_its_own(bundle: Bundle, origin: Origin) -> None:
    inputs = {path for path in bundle.files if path.startswith("golden/") and path != "golden/cases.json"}
    assert inputs
    assert all(bundle.files[path] == origin.bundle.files[path] for path in inputs)
    assert bundle.files["golden/cases.json"] != origin.bundle.files["golden/cases.json"]


def test_convolutions_compute_with_integers_and_the_spectrogram_does_not(bundle: Bundle) -> None:
    graph = onnx.load_from_string(bundle.files["encoders/audio.onnx"])
    makers = {name: node for node in graph.graph.node for name in node.output}
    exact = ancestors(graph, "Log")
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    quantised = [node for node in convolutions if makers[node.input[0]].op_type == "DequantizeLinear"]
    assert len(convolutions) == 6
    assert len(quantised) == 4  # not the Fourier transform and not the first that reads the picture
    assert not exact & {node.name for node in quantised}
    assert all("DequantizeLinear" not in name for name in exact)


def test_rows_alone_and_together_answer_alike(
    made: Made, bundle: Bundle, origin: Origin, wide: Recipe, dataset: Dataset
) -> None:
    """Ranges are fixed before, so neighbours cannot change them, as they do with dynamic quantisation."""
    predictor = Predictor.open(bundle, device=CPU, threads=1)
    samples = [replace(s, audio=None) for s in parity_samples(origin.checkpoint, wide, dataset.test)[:16]]
    for together, sample in zip(predictor.run(samples), samples, strict=True):
        [alone] = predictor.run([sample])
        np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-5)
    assert made.published.parity.fused_difference <= 1e-4


def test_of_a_text_all_convolutions_and_the_table_are_small(recipe: Recipe, dataset: Dataset) -> None:
    alone = replace(
        recipe,
        inputs=Inputs(text=recipe.inputs.text),
        encoders={"text": ConvText(channels=32, width=16)},
    )
    tokenizer_json = tokenizer_of(alone, dataset)
    torch.manual_seed(0)
    model = Model(alone, vocabulary=vocabulary_size(tokenizer_json)).eval()
    exact = onnx.load_from_string(export_graphs(model, alone.inputs)["encoders/text.onnx"])
    stock = Stock(dataset.train.items, alone.inputs, preparer_of(alone, tokenizer_json))
    seen = batches_of(stock, "text", dataset.train.items.counts["text"])
    small = int8_encoder(exact, "text", seen)
    assert len(small.SerializeToString()) < 0.45 * len(exact.SerializeToString())
    assert sum(node.op_type == "DequantizeLinear" for node in small.graph.node) >= 3 * 3
    assert "model.encoders.text.embed.weight/packed" in {one.name for one in small.graph.initializer}
    expected, found = (
        open_session(one.SerializeToString(), name="text", device=CPU, threads=1).run(seen[0])["features"]
        for one in (exact, small)
    )
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


# --- and one that is not ------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_slower_variant_is_refused_and_leaves_nothing(
    origin: Origin, known: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(GatesFailed, match=r"2 of 6 gates failed: time for 1 row \(1\.1\), time for 32 rows"):
        make_variant(origin, known, tmp_path, precision="int8", measure_speed=slower)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.thorough
def test_a_quantiser_that_ruins_weights_is_refused(origin: Origin, known: Dataset, tmp_path: Path) -> None:
    with pytest.raises(GatesFailed, match=r"same answers \(0\.") as failure:
        make_variant(origin, known, tmp_path, precision="int8", measure_speed=faster, convert=ruining)
    failed = {gate.name for gate in failure.value.verdict.failed}
    assert {"accuracy lost", "same answers"} <= failed
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.thorough
def test_a_variant_for_another_device_may_be_published_untimed(
    origin: Origin, known: Dataset, tmp_path: Path
) -> None:
    """The environment of the tests has ONNX Runtime for CPUs, so float16 cannot be timed in it."""
    made = make_variant(
        origin,
        known,
        tmp_path,
        precision="float16",
        is_untimed_allowed=True,
        measure_speed=faster,
    )
    manifest = read_bundle(made.published.folder).manifest
    assert manifest.variant is not None
    assert manifest.variant.precision == "float16"
    assert [gate["is_met"] for gate in manifest.metrics["gates"]] == [True] * 4 + [None] * 2


def test_a_bundle_of_another_checkpoint_is_not_taken(origin: Origin, out: Path) -> None:
    calibrated = origin.checkpoint.calibrated
    other = replace(calibrated, temperatures=dict.fromkeys(calibrated.temperatures, 1.5))
    with pytest.raises(CheckpointInvalid, match="was not exported from the checkpoint"):
        origin_of(out, replace(origin.checkpoint, calibrated=other), origin.recipe, number=4)


def test_a_failed_gate_is_named_and_the_exit_code_is_3(
    monkeypatch: pytest.MonkeyPatch, wide: Recipe, out: Path, fake_sets: FakeSets, tmp_path: Path
) -> None:
    """float16 without a GPU: what nobody could time is refused."""
    monkeypatch.setitem(RECIPES, "digits", lambda: wide)
    arguments = ("digits", "--out", str(out), "--precision", "float16", "--version", "4")
    where = ("--data", str(fake_sets.folder), "--cache", str(tmp_path))
    result = CliRunner().invoke(app, ["variant", *arguments, *where])
    assert result.exit_code == 3, result.output
    assert (
        "2 of 6 gates failed: time for 1 row (not measured), time for 32 rows (not measured)" in result.output
    )
    assert not (out / "bundle/digits-float16").exists()


def test_a_folder_without_the_float32_bundle_is_refused(wide: Recipe, out: Path, origin: Origin) -> None:
    with pytest.raises(ManifestInvalid):
        origin_of(out, origin.checkpoint, wide, number=9)


# --- gates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "measured", "is_met"),
    [
        ("at most", 1.0, True), ("at most", 1.1, False), ("at least", 1.0, True), ("at least", 0.9, False),
        ("below", 1.0, False), ("below", 0.9, True), ("below", None, False),
        ("at most", math.nan, False), ("at least", math.nan, False),
    ],
)  # fmt: skip
def test_a_gate_is_met_by_its_rule_and_by_nothing_unknown(
    rule: Rule, measured: float | None, *, is_met: bool
) -> None:
    assert Gate("any", rule, 1.0, measured).is_met == is_met


def test_only_what_was_not_measured_may_be_excused() -> None:
    gates = (size_gate("int8", size_bytes=40, of_bytes=100), *speed_gates(None, BATCHES))
    assert [gate.name for gate in Verdict(gates).failed] == ["size", "time for 1 row", "time for 32 rows"]
    assert [gate.name for gate in Verdict(gates, is_untimed_allowed=True).failed] == ["size"]


def test_the_whole_interval_of_a_ratio_must_be_below_1() -> None:
    assert [gate.is_met for gate in speed_gates(raced(0.95), BATCHES)] == [False, False]
    assert [gate.is_met for gate in speed_gates(raced(0.85), BATCHES)] == [True, True]


def test_a_race_of_a_bundle_with_itself_is_a_draw(origin: Origin, wide: Recipe, dataset: Dataset) -> None:
    samples = parity_samples(origin.checkpoint, wide, dataset.test)
    predictor = Predictor.open(origin.bundle, device=CPU, threads=1)
    for ratio in race(predictor, predictor, samples, rounds=24, least_rounds=24):
        assert ratio.rounds == 24
        assert 0.5 < ratio.value < 2
        assert ratio.interval[0] <= ratio.value <= ratio.interval[1]


# --- weights in fewer bytes -----------------------------------------------------------------------

floats = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.floats(-8, 8, width=32),
)


@given(floats, st.sampled_from([0, 1]))
def test_rounding_moves_a_weight_by_half_a_step_at_most_and_only_once(
    weights: NDArray[np.float32], axis: int
) -> None:
    found = rounded(weights, axis=axis, stored="int8")
    step = np.abs(weights).max(axis=1 - axis, keepdims=True) / 127
    assert (np.abs(found - weights) <= 0.5001 * step + 1e-12).all()
    np.testing.assert_allclose(rounded(found, axis=axis, stored="int8"), found, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("stored", ["int8", "float16"])
def test_packed_weights_give_the_rounded_answers_in_fewer_bytes(stored: Stored) -> None:
    table, dense = (RNG.standard_normal(shape).astype(np.float32) for shape in ((90, 64), (64, 48)))
    graph = lookup_and_dense(table, dense)
    before = len(graph.SerializeToString())
    ids = RNG.integers(90, size=7)
    pack(graph, stored=stored)
    onnx.checker.check_model(graph)
    assert len(graph.SerializeToString()) < before * {"int8": 0.32, "float16": 0.55}[stored]
    small = rounded(table, axis=0, stored=stored)[ids] @ rounded(dense, axis=1, stored=stored)
    session = open_session(graph.SerializeToString(), name="graph", device=CPU, threads=1)
    np.testing.assert_allclose(session.run({"ids": ids})["out"], small, rtol=1e-4, atol=1e-4)


def test_what_would_lose_and_what_is_kept_stay_as_they_are() -> None:
    table, dense = (RNG.standard_normal(shape).astype(np.float32) for shape in ((90, 64), (64, 48)))
    graph = lookup_and_dense(table, rounded(dense, axis=1, stored="int8"))
    pack(graph, stored="int8", most_loss=LOSSLESS)
    assert {one.name for one in graph.graph.initializer} == {"table", "dense/packed", "dense/scale"}
    other = lookup_and_dense(table, dense)
    pack(other, stored="int8", kept=frozenset({"look up"}))
    assert {one.name for one in other.graph.initializer} == {"table", "dense/packed", "dense/scale"}


def test_a_fourier_kernel_is_worked_out_again_and_nothing_else_is() -> None:
    kernel = LogMel(rate_hz=8_000, bands=40).kernel.numpy()
    for weights, found in ((kernel, 1), (kernel + np.float32(1e-3), 0)):
        graph = convolution_of(weights)
        before = len(graph.SerializeToString())
        assert spell_out_waves(graph) == found
        onnx.checker.check_model(graph)
        size = len(graph.SerializeToString())
        assert size < 0.05 * before if found else size == before
        session = open_session(graph.SerializeToString(), name="graph", device=CPU, threads=1)
        sound = RNG.standard_normal((2, 1, 400)).astype(np.float32)
        exact = open_session(convolution_of(weights).SerializeToString(), name="graph", device=CPU, threads=1)
        np.testing.assert_allclose(
            session.run({"sound": sound})["out"], exact.run({"sound": sound})["out"], atol=1e-5
        )


def lookup_and_dense(table: NDArray[np.float32], dense: NDArray[np.float32]) -> onnx.ModelProto:
    return one_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"], name="look up"),
            helper.make_node("MatMul", ["rows", "dense"], ["out"], name="mix"),
        ],
        ("ids", TensorProto.INT64, ["rows"]),
        ["rows", 48],
        {"table": table, "dense": dense},
    )


def convolution_of(weights: NDArray[np.float32]) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["sound", "kernel"], ["out"], name="waves", strides=[80])
    return one_graph(
        [node],
        ("sound", TensorProto.FLOAT, ["rows", 1, "samples"]),
        ["rows", 258, "frames"],
        {"kernel": weights},
    )


def one_graph(
    nodes: list[onnx.NodeProto],
    given: tuple[str, int, list[str | int]],
    shape: list[str | int],
    constants: dict[str, NDArray[np.float32]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
