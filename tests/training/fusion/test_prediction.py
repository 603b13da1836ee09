"""Answers that meet: by hand, against Bayes, and what settling them is worth."""

from __future__ import annotations

from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.training.fusion.made import LABELS, SUBSETS, all_subsets, ask, make, say, spec_of
from training.fusion.build import build_fusion
from training.fusion.contract import COMBINATIONS, Level, Method, Task
from training.fusion.prediction import LogLinear, Pool, ProductOfAnswers, SettledPool, Stacking, Weighted
from training.fusion.settling import every_subset, log_prior, negative_log_likelihood

TASKS: tuple[Task, ...] = get_args(Task)
FITTED: tuple[Method, ...] = ("weighted", "multiply", "log_linear", "stacking")
POOLS: tuple[Method, ...] = ("mean", *FITTED)
every_task = pytest.mark.parametrize("task", TASKS)


def pool_of(
    method: Method, *, task: Task = "classification", labels: int = LABELS, is_balanced: bool = False
) -> Pool:
    fusion = build_fusion(
        spec_of("prediction", method), widths=(5, 7, 6), labels=labels, task=task, is_balanced=is_balanced
    )
    assert isinstance(fusion, Pool)
    return fusion


def logit(p: Tensor) -> Tensor:
    return p.log() - (-p).log1p()


SAID = torch.tensor([[[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [float("nan")] * 3]])  # of an image and a text
HERE = torch.tensor([[True, True, False]])


def test_the_mean_of_two_answers() -> None:
    found = pool_of("mean", labels=3).pool(SAID.log(), HERE)
    torch.testing.assert_close(found.softmax(dim=1), torch.tensor([[0.45, 0.2, 0.35]]))
    found = pool_of("mean", task="multilabel", labels=3).pool(logit(SAID), HERE)
    torch.testing.assert_close(found.sigmoid(), torch.tensor([[0.45, 0.2, 0.35]]))


@every_task
def test_weights_are_shared_among_the_present(task: Task) -> None:
    pool = pool_of("weighted", task=task, labels=3)
    assert isinstance(pool, Weighted)
    pool.settled.copy_(torch.tensor([3.0, 1.0, 6.0]).log())
    if task == "classification":
        found = pool.pool(SAID.log(), HERE).softmax(dim=1)
    else:
        found = pool.pool(logit(SAID), HERE).sigmoid()
    torch.testing.assert_close(found, torch.tensor([[0.575, 0.2, 0.225]]))  # 3/4 and 1/4


def test_a_product_counts_the_prior_once() -> None:
    pool = pool_of("multiply", labels=3)
    assert isinstance(pool, ProductOfAnswers)
    pool.log_prior.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    weights = torch.tensor([0.7 * 0.2 / 0.5, 0.2 * 0.2 / 0.3, 0.1 * 0.6 / 0.2])
    found = pool.pool(SAID.log(), HERE).softmax(dim=1)
    torch.testing.assert_close(found[0], weights / weights.sum())
    pool.settled.copy_(torch.tensor([0.5, 2.0, 9.0]).log())  # exponents 1/2 and 2, less 3/2 of the prior
    weights = torch.tensor(
        [0.7**0.5 * 0.2**2 / 0.5**1.5, 0.2**0.5 * 0.2**2 / 0.3**1.5, 0.1**0.5 * 0.6**2 / 0.2**1.5]
    )
    found = pool.pool(SAID.log(), HERE).softmax(dim=1)
    torch.testing.assert_close(found[0], weights / weights.sum())


def test_a_product_of_odds_counts_the_prior_odds_once() -> None:
    pool = pool_of("multiply", task="multilabel", labels=3)
    assert isinstance(pool, ProductOfAnswers)
    pool.log_prior.copy_(logit(torch.tensor([0.5, 0.2, 0.9])))
    odds = torch.tensor([7 / 3 * 1 / 4 / 1, 1 / 4 * 1 / 4 / (1 / 4), 1 / 9 * 3 / 2 / 9])
    torch.testing.assert_close(pool.pool(logit(SAID), HERE).exp()[0], odds)


def test_stacking_is_logistic_in_the_log_answers_and_in_what_is_present() -> None:
    pool = pool_of("stacking", labels=3)
    assert isinstance(pool, Stacking)
    torch.manual_seed(0)
    pool.settled.copy_(torch.randn(3, 12))
    told = torch.cat([SAID[0, :2].log().flatten(), torch.zeros(3), torch.tensor([1.0, 1.0, 0.0])])
    torch.testing.assert_close(pool.pool(SAID.log(), HERE)[0], pool.settled @ told)


def test_a_log_linear_pool_weighs_by_subset_and_label() -> None:
    pool = pool_of("log_linear", labels=3)
    assert isinstance(pool, LogLinear)
    torch.manual_seed(0)
    pool.settled.copy_(torch.randn(8, 4, 3))
    image, text, _, offset = pool.settled[0b011]
    wanted = image * SAID[0, 0].log() + text * SAID[0, 1].log() + offset
    torch.testing.assert_close(pool.pool(SAID.log(), HERE)[0], wanted)


@pytest.mark.parametrize("method", ["multiply", "log_linear", "stacking"])
def test_unsettled_they_are_the_plain_product(method: Method) -> None:
    found = pool_of(method, labels=3).pool(SAID.log(), HERE).softmax(dim=1)
    weights = torch.tensor([[0.14, 0.04, 0.06]])
    torch.testing.assert_close(found, weights / weights.sum())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), labels=st.integers(2, 5), is_balanced=st.booleans())
def test_a_product_of_independent_experts_is_the_posterior(
    seed: int, labels: int, *, is_balanced: bool
) -> None:
    """Independent given the label: prior [labels], likelihoods [3, labels, 4 values].

    Experts that learnt with balanced classes hold an even prior.
    """
    rng = np.random.default_rng(seed)
    prior, likelihood = rng.dirichlet(np.ones(labels)), rng.dirichlet(np.ones(4), size=(3, labels))
    values = np.array(list(product(range(4), repeat=3)))
    seen = np.stack([likelihood[m][:, values[:, m]].T for m in range(3)], axis=1)  # [rows, 3, labels]
    own = np.ones(labels) if is_balanced else prior
    experts = own * seen / (own * seen).sum(axis=2, keepdims=True)
    pool = pool_of("multiply", labels=labels, is_balanced=is_balanced)
    assert isinstance(pool, ProductOfAnswers)
    pool.double().log_prior.copy_(torch.from_numpy(np.log(prior)))
    for subset in SUBSETS:
        present = torch.tensor([subset] * len(values))
        exact = prior * np.where(np.array(subset)[:, None], seen, 1.0).prod(axis=1)
        found = pool.pool(torch.from_numpy(np.log(experts)), present).softmax(dim=1)
        np.testing.assert_allclose(found, exact / exact.sum(axis=1, keepdims=True), atol=1e-9)


def held_out(rows: int, *, task: Task, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Answers of three experts, some absent: one too sure by a factor of 3, one well, one that only guesses.

    Labels are not equally frequent. With a unit normal shift at the true label an expert's exact log odds are
    what it sees, plus the prior's.
    """
    draw = torch.Generator().manual_seed(seed)
    shares = torch.tensor([0.55, 0.25, 0.15, 0.05])
    if task == "classification":
        targets = torch.multinomial(shares, rows, replacement=True, generator=draw)
        true, prior = torch.nn.functional.one_hot(targets, LABELS).float(), shares.log()
    else:
        targets = true = (torch.rand(rows, LABELS, generator=draw) < shares).float()
        prior = logit(shares)
    said = []
    for shift in (2.0, 1.5, 0.0):
        seen = torch.randn(rows, LABELS, generator=draw) + shift * true
        middle = shift**2 / 2 if task == "multilabel" else 0.0
        said.append(shift * seen - middle + prior)
    said[0] = 3 * said[0]
    said[2] = said[2] + 2 * torch.randn(rows, LABELS, generator=draw)
    logits, available = torch.stack(said, dim=1), torch.rand(rows, 3, generator=draw) < 0.8
    return torch.where(available.unsqueeze(2), logits, float("nan")), available, targets


def loss_on_every_subset(pool: Pool, answers: tuple[Tensor, Tensor, Tensor], task: Task) -> float:
    cases = every_subset(*answers, sizes=range(1, 4), seed=0)
    return negative_log_likelihood(pool.pool(cases.heard, cases.present), cases.targets, task=task).item()


@every_task
@pytest.mark.parametrize("method", FITTED)
def test_settling_makes_held_out_answers_likelier(method: Method, task: Task) -> None:
    pool = pool_of(method, task=task)
    other = held_out(2000, task=task, seed=1)
    before = loss_on_every_subset(pool, other, task)
    pool.settle(*held_out(2000, task=task, seed=0), seed=0)
    assert loss_on_every_subset(pool, other, task) < before - 0.02
    assert all(values.isfinite().all() for values in pool.state_dict().values())


@every_task
def test_settling_finds_how_much_too_sure_an_expert_is(task: Task) -> None:
    pool = pool_of("multiply", task=task)
    assert isinstance(pool, ProductOfAnswers)
    logits, available, targets = held_out(4000, task=task, seed=0)
    pool.settle(logits, available, targets, seed=0)
    counted = pool.settled.exp()
    # Too sure of the prior as well, which its own answer is corrected for: not exactly a third.
    assert 0.25 < counted[0] < 0.45
    assert 0.85 < counted[1] < 1.15
    assert counted[2] < 0.15


def test_a_lone_expert_is_calibrated_by_its_exponent() -> None:
    """With even classes the exponent is one over the temperature: what makes its own answers likeliest."""
    logits, available, _ = held_out(3000, task="classification", seed=0)
    targets = torch.arange(3000) % LABELS
    logits = logits + 4 * torch.nn.functional.one_hot(targets, LABELS).unsqueeze(1)
    pool = pool_of("multiply")
    assert isinstance(pool, ProductOfAnswers)
    pool.settle(logits, available, targets, seed=0)
    own, wanted = logits[available[:, 0], 0], targets[available[:, 0]]
    scales = torch.linspace(0.05, 2, 400)
    losses = torch.stack([cross_entropy(scale * own, wanted) for scale in scales])
    assert pool.settled[0].exp().item() == pytest.approx(scales[losses.argmin()].item(), abs=0.02)


@pytest.mark.parametrize("method", FITTED)
def test_experts_that_are_always_right_do_not_become_infinitely_sure(method: Method) -> None:
    targets = torch.arange(200) % LABELS
    logits = 20 * torch.nn.functional.one_hot(targets, LABELS).float().unsqueeze(1).expand(-1, 3, -1)
    pool = pool_of(method)
    assert isinstance(pool, SettledPool)
    pool.settle(logits, torch.ones(200, 3, dtype=torch.bool), targets, seed=0)
    assert (pool.settled - pool.unsettled()).abs().max() < 3


@pytest.mark.parametrize("method", FITTED)
def test_settling_again_is_no_different(method: Method) -> None:
    one, other = pool_of(method), pool_of(method)
    assert isinstance(one, SettledPool)
    assert isinstance(other, SettledPool)
    one.settle(*held_out(300, task="classification", seed=5), seed=0)
    for pool in (one, other):
        pool.settle(*held_out(300, task="classification", seed=6), seed=0)
    assert torch.equal(one.settled, other.settled)


@pytest.mark.parametrize("method", FITTED)
def test_answers_asked_for_without_gradients_can_be_settled_on(method: Method) -> None:
    one, other = pool_of(method), pool_of(method)
    answers = held_out(300, task="classification", seed=5)
    one.settle(*answers, seed=0)
    with torch.inference_mode():
        other.settle(*(values.clone() for values in answers), seed=0)
    assert torch.equal(one.get_buffer("settled"), other.get_buffer("settled"))


@pytest.mark.parametrize(("level", "method"), [pair for pair in COMBINATIONS if pair[1] not in FITTED])
def test_what_is_learned_by_gradient_descent_does_not_settle(level: Level, method: Method) -> None:
    fusion = make(level, method)
    before = {name: values.clone() for name, values in fusion.state_dict().items()}
    fusion.settle(*held_out(20, task="classification", seed=0), seed=0)
    assert all(torch.equal(values, before[name]) for name, values in fusion.state_dict().items())


@pytest.mark.parametrize("method", POOLS)
def test_the_answer_pools_the_answers_and_the_embedding_is_the_mean_projection(method: Method) -> None:
    fusion, said, here = make("prediction", method), say(7), all_subsets(7)
    assert isinstance(fusion, Pool)
    fused = ask(fusion, said, here)
    torch.testing.assert_close(fused.logits, fusion.pool(fused.modality_logits, here))
    own, _ = fusion.alone(said.pooled, here)
    for row, subset in enumerate(SUBSETS):
        torch.testing.assert_close(fused.embedding[row], own[row, torch.tensor(subset)].mean(dim=0))


def test_every_row_is_held_out_once_for_every_subset_of_what_it_has() -> None:
    available = torch.tensor([[True, True, True], [False, True, True], [False, False, False]])
    said = torch.arange(3.0).view(3, 1, 1).expand(3, 3, 2)
    cases = every_subset(said, available, torch.tensor([0, 1, 0]), sizes=range(1, 4), seed=0)
    assert cases.targets.tolist().count(0) == 7
    assert cases.targets.tolist().count(1) == 3
    of_second = cases.present[cases.targets == 1].tolist()
    assert sorted(of_second) == [[False, False, True], [False, True, False], [False, True, True]]
    assert (cases.heard[cases.targets == 1].amax(dim=(1, 2)) == 1).all()
    singles = every_subset(said, available, torch.tensor([0, 1, 0]), sizes=range(1, 2), seed=0)
    assert (singles.present.sum(dim=1) == 1).all()
    assert len(singles.targets) == 5


def test_of_too_many_rows_some_are_drawn_by_the_seed() -> None:
    available, targets = torch.ones(100, 3, dtype=torch.bool), torch.arange(100)
    said = torch.zeros(100, 3, 2)
    one, same, other = (
        every_subset(said, available, targets, sizes=range(1, 4), seed=seed, most=10 * 7 * 6)
        for seed in (1, 1, 2)
    )
    assert one.rows == 10
    assert len(one.targets) == 70
    assert torch.equal(one.targets, same.targets)
    assert not torch.equal(one.targets, other.targets)


def test_a_class_that_was_never_seen_is_not_impossible() -> None:
    found = log_prior(torch.tensor([0, 0, 2]), labels=4, task="classification").exp()
    torch.testing.assert_close(found, torch.tensor([3, 1, 2, 1]).double() / 7)
    found = log_prior(torch.tensor([[1, 0], [1, 0], [0, 0]]), labels=2, task="multilabel").sigmoid()
    torch.testing.assert_close(found, torch.tensor([3, 1]).double() / 5)
