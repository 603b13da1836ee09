from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny_xor import tiny_xor, tiny_xor_by_likeness
from training.batch import Said, Stock
from training.data.dataset import Dataset
from training.encoders.contract import Encoded
from training.encoders.given import GivenEncoder, as_given
from training.encoders.specs import Given
from training.encodings import encode
from training.frozen import Features, features_of, on_features, train_fusion
from training.fusion.contract import COMBINATIONS, Level, Method
from training.model import Model
from training.progress import silent
from training.recipe import Recipe
from training.run import evaluation_rows


@pytest.fixture(scope="module")
def small() -> Recipe:
    return tiny_xor()


@pytest.fixture(scope="module")
def rows(small: Recipe) -> Dataset:
    return small.load(None, None)  # type: ignore[arg-type]  # made from a seed, not read


@pytest.fixture(scope="module")
def features(small: Recipe, rows: Dataset) -> Features:
    return features_of(small, rows, seed=0, stage=silent)


def test_what_was_said_is_taken_apart_as_it_was() -> None:
    said = Encoded(tokens=torch.randn(3, 4, 5), pooled=torch.randn(3, 5))
    again = GivenEncoder(Given(width=5, tokens=4))(as_given(said))
    assert torch.equal(again.tokens, said.tokens)
    assert torch.equal(again.pooled, said.pooled)


def test_every_item_of_every_split_is_said_with_its_tokens(
    small: Recipe, rows: Dataset, features: Features
) -> None:
    for split, said in features.splits.items():
        counts = getattr(rows, split).items.counts
        for name, spec in small.encoders.items():
            assert said[name].shape == (counts[name], (1 + spec.tokens) * spec.width)


def test_features_are_read_again_as_they_were_kept(features: Features, tmp_path: Path) -> None:
    features.save(tmp_path / "new" / "features.safetensors")
    again = Features.load(tmp_path / "new" / "features.safetensors", ("image", "text", "audio"))
    for split, said in features.splits.items():
        assert all(torch.equal(again.splits[split][name], values) for name, values in said.items())
    assert again.unseen is features.unseen is False


def test_kernel_machines_do_not_say_what_they_know_by_heart() -> None:
    """Of training items, as a fusion learns from: not what they answer once they are served."""
    made = tiny_xor_by_likeness()
    dataset = made.load(None, None)  # type: ignore[arg-type]  # made from a seed, not read
    by_heart = features_of(made, replace(dataset, test=dataset.train), seed=0, stage=silent)
    assert by_heart.unseen
    for name, values in by_heart.splits["train"].items():
        assert not torch.allclose(values, by_heart.splits["test"][name]), name
    answers = train_fusion(
        made.with_fusion("prediction", "log_linear"), by_heart, dataset, seed=0, stage=silent
    )
    assert np.isfinite(answers.logits(evaluation_rows(dataset.test), "image+text+audio")).all()


@pytest.mark.parametrize(
    "fusion", [("feature", "low_rank"), ("model", "attention"), ("prediction", "stacking")]
)
def test_a_fusion_learns_from_features(
    small: Recipe, rows: Dataset, features: Features, fusion: tuple[str, str]
) -> None:
    chosen = small.with_fusion(*fusion)  # type: ignore[arg-type]
    encodings = train_fusion(chosen, features, rows, seed=0, stage=silent)
    answered = encodings.answers(evaluation_rows(rows.test), "image+text+audio")
    assert answered.probabilities.shape == (32, 4)
    assert not list(encodings.model.encoders.parameters())
    again = train_fusion(chosen, features, rows, seed=0, stage=silent)
    assert torch.equal(*(one.model.temperatures for one in (encodings, again)))


def test_a_fusion_answers_to_features_as_to_the_encoders_that_said_them(small: Recipe, rows: Dataset) -> None:
    chosen = small.with_fusion("model", "attention")
    whole = Model(chosen, vocabulary=300).eval()
    split = rows.test
    assert split.items.images is not None
    pixels = Stock(split.items, chosen.inputs, None).gather("image", evaluation_rows(split).items[:, 0])
    with torch.inference_mode():
        said = {"image": as_given(whole.encoders["image"](*pixels))}
    frozen = Model(on_features(chosen), vocabulary=1).eval()
    frozen.fusion.load_state_dict(whole.fusion.state_dict())
    read = encode(frozen, Said(said), {"image": 32, "text": 0, "audio": 0}).features["image"]
    with torch.inference_mode():
        torch.testing.assert_close(read, whole.features("image", *pixels))


@pytest.mark.parametrize(("level", "method"), COMBINATIONS)
def test_no_rows_are_answered_by_no_logits(small: Recipe, level: Level, method: Method) -> None:
    chosen = on_features(small.with_fusion(level, method))
    model = Model(chosen, vocabulary=1).eval()
    features = tuple(torch.zeros(0, model.feature_width(name)) for name in model.names)
    with torch.inference_mode():
        answers = model.answer(features, torch.zeros(0, 3, dtype=torch.bool))
    assert answers.logits.shape == answers.probabilities.shape == (0, len(chosen.labels))
