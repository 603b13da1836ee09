"""What every fusion keeps, whatever its weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.fusion.made import (
    LABELS,
    SUBSETS,
    WIDTHS,
    Said,
    all_subsets,
    ask,
    make,
    parts,
    say,
    spec_of,
    training_loss,
)
from training.fusion.contract import COMBINATIONS, OUT_OF_FOLD, Fused, Level, Method, Task

TASKS: tuple[Task, ...] = ("classification", "multilabel")
every_combination = pytest.mark.parametrize(("level", "method"), COMBINATIONS)
every_task = pytest.mark.parametrize("task", TASKS)


def assert_same(one: Fused, other: Fused, *, rows: Tensor | None = None) -> None:
    for a, b in zip(parts(one), parts(other), strict=True):
        torch.testing.assert_close(a, b if rows is None else b[rows], atol=1e-6, rtol=1e-5)


@every_combination
@every_task
def test_the_shapes_are_those_promised(level: Level, method: Method, task: Task) -> None:
    fused = ask(make(level, method, task=task), say(7), all_subsets(7))
    assert fused.logits.shape == (7, LABELS)
    assert fused.embedding.shape == (7, spec_of(level, method).embedding)
    assert fused.modality_logits.shape == (7, len(WIDTHS), LABELS)


@every_combination
@every_task
@settings(max_examples=8, deadline=None)
@given(
    present=st.lists(st.sampled_from(SUBSETS), min_size=1, max_size=9),
    content=st.sampled_from([0.0, 3e38, float("nan"), float("inf"), float("-inf")]),
    seed=st.integers(0, 1000),
)
def test_absent_content_never_matters(
    level: Level, method: Method, task: Task, present: list[tuple[bool, ...]], content: float, seed: int
) -> None:
    fusion, said, here = make(level, method, task=task), say(len(present), seed=seed), torch.tensor(present)
    found = ask(fusion, said.spoiled(here, content), here)
    assert all(values.isfinite().all() for values in parts(found))
    for a, b in zip(parts(found), parts(ask(fusion, said, here)), strict=True):
        assert torch.equal(a, b)


@every_combination
def test_present_content_does_matter(level: Level, method: Method) -> None:
    fusion, said = make(level, method), say(7)
    here = all_subsets(7)
    before = ask(fusion, said, here).logits
    for at in range(3):
        tokens, pooled = list(said.tokens), list(said.pooled)
        tokens[at], pooled[at] = tokens[at] + 1, pooled[at].flip(1)
        moved = (ask(fusion, Said(tuple(tokens), tuple(pooled)), here).logits - before).abs().amax(dim=1)
        assert ((moved > 1e-5) == here[:, at]).all()


@every_combination
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(9)))
def test_rows_answer_in_any_order_and_alone_as_together(
    level: Level, method: Method, order: list[int]
) -> None:
    fusion, said, here = make(level, method), say(9), all_subsets(9)
    together, shuffled = ask(fusion, said, here), torch.tensor(order)
    assert_same(ask(fusion, said.rows(shuffled), here[shuffled]), together, rows=shuffled)
    first = shuffled[:1]
    assert_same(ask(fusion, said.rows(first), here[first]), together, rows=first)


@every_combination
@every_task
def test_every_parameter_is_saved_and_trained_whatever_is_absent(
    level: Level, method: Method, task: Task
) -> None:
    fusion = make(level, method, task=task).train()
    here = all_subsets(56)
    said = say(56).spoiled(here, float("nan"))
    targets = torch.randint(LABELS, (56,))
    if task == "multilabel":
        targets = torch.randint(2, (56, LABELS)).float()
    loss = training_loss(fusion, fusion(said.tokens, said.pooled, here), here, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    named = dict(fusion.named_parameters())
    assert named.keys() <= fusion.state_dict().keys()
    for name, parameter in named.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A part for each modality, or a matrix's rows: none is left out.
        slices = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad.unsqueeze(0)
        assert (slices.abs().amax(dim=1) > 1e-9).all(), name


@every_combination
def test_what_is_saved_answers_the_same_when_loaded(level: Level, method: Method) -> None:
    fusion, other = make(level, method, seed=1), make(level, method, seed=2)
    draw = torch.Generator().manual_seed(0)
    fusion.settle(
        torch.randn(30, 3, LABELS, generator=draw), all_subsets(30), torch.arange(30) % LABELS, seed=0
    )
    said, here = say(7), all_subsets(7)
    assert not torch.allclose(ask(fusion, said, here).logits, ask(other, said, here).logits)
    other.load_state_dict(fusion.state_dict())
    assert_same(ask(fusion, said, here), ask(other, said, here))


@every_combination
@pytest.mark.parametrize("modalities", [1, 2])
def test_fewer_modalities_will_do(level: Level, method: Method, modalities: int) -> None:
    said, here = say(2, modalities=modalities), torch.eye(2, modalities, dtype=torch.bool)
    here[:, -1] = True
    fused = ask(make(level, method, modalities=modalities), said, here)
    assert fused.modality_logits.shape == (2, modalities, LABELS)
    assert fused.logits.isfinite().all()


@every_combination
def test_tokens_are_read_by_those_that_say_so(level: Level, method: Method) -> None:
    fusion, said, here = make(level, method), say(7), all_subsets(7)
    assert fusion.reads_tokens == (method in ("attention", "bottleneck"))
    assert fusion.is_joint == (level != "prediction")
    assert fusion.needs_out_of_fold == (method in OUT_OF_FOLD)
    if not fusion.reads_tokens:
        assert_same(ask(fusion, Said((), said.pooled), here), ask(fusion, said, here))
