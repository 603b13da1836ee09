"""Fusions of what each modality answers alone.

The towers and heads are trained through their own answers only. How much each answer counts is fitted
afterwards, by `settle`, on rows they were not trained on: fitted together with them it leans on the modality
that learns fastest.

p_m is what the head of modality m says, evidence its logarithm, or for several labels a row the log odds of
each.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Final

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from app.bundle.manifest import Task
from training.fusion.contract import Fused, Fusion, FusionSpec, Shape
from training.fusion.joint import mean_of_present
from training.fusion.settling import every_subset, fitted, log_prior, negative_log_likelihood

_NONE: Final = -1e4  # the log weight of an absent answer: e ** -1e4 is 0 in float32


class Pool(Fusion):
    """Answers meet in `pool`; the embedding is the mean of what the towers of the present say."""

    is_joint: ClassVar[bool] = False

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape)
        for name, tower in zip(shape.modalities, self.towers, strict=True):
            if name in shape.answers:  # it says nothing that is learnt from: a projection, as it was drawn
                tower.requires_grad_(requires_grad=False)

    def forward(
        self,
        tokens: tuple[Tensor, ...],  # noqa: ARG002
        pooled: tuple[Tensor, ...],
        present: Tensor,
    ) -> Fused:
        own, said = self.alone(pooled, present)
        return Fused(self.pool(said, present), mean_of_present(own, present), said)

    def pool(self, modality_logits: Tensor, present: Tensor) -> Tensor:
        """Logits [rows, labels] whose softmax, or sigmoid, is the pooled probability.

        `modality_logits` [rows, modalities, labels] may be anything where absent.
        """
        return self.combine(torch.where(present.unsqueeze(2), modality_logits, 0.0), present)

    @abstractmethod
    def combine(self, heard: Tensor, present: Tensor) -> Tensor:
        """`pool`, of answers that are 0 where absent."""


class MeanOfAnswers(Pool):
    """The linear opinion pool, p = mean of p_m over the present: never surer than the surest of them."""

    def combine(self, heard: Tensor, present: Tensor) -> Tensor:
        return linear_pool(heard, heard.new_zeros(heard.shape[1]), present, task=self.shape.task)


class SettledPool(Pool):
    """A pool with numbers that `settle` fits on held-out answers to every subset of every row."""

    settled: Tensor

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape)
        self.register_buffer("settled", self.unsettled())

    @abstractmethod
    def unsettled(self) -> Tensor:
        """What `settled` is before anything is fitted, and what fitting starts from."""

    @abstractmethod
    def combine_by(self, settled: Tensor, heard: Tensor, present: Tensor) -> Tensor:
        """`combine`, with these numbers."""

    def combine(self, heard: Tensor, present: Tensor) -> Tensor:
        return self.combine_by(self.settled, heard, present)

    def settle(self, modality_logits: Tensor, available: Tensor, targets: Tensor, *, seed: int) -> None:
        with torch.inference_mode(mode=False):  # whoever asked for the answers may still be in it
            held_out = every_subset(modality_logits, available, targets, sizes=self.sizes(), seed=seed)

            def loss(settled: Tensor) -> Tensor:
                logits = self.combine_by(settled, held_out.heard, held_out.present)
                return negative_log_likelihood(logits, held_out.targets, task=self.shape.task)

            self.settled.copy_(fitted(loss, self.unsettled(), rows=held_out.rows))

    def sizes(self) -> range:
        """Of the subsets that are fitted on."""
        return range(1, len(self.shape.widths) + 1)


class Weighted(SettledPool):
    """p = sum of w_m p_m, the weights a softmax over the present of one number a modality."""

    def unsettled(self) -> Tensor:
        return torch.zeros(len(self.shape.widths))

    def combine_by(self, settled: Tensor, heard: Tensor, present: Tensor) -> Tensor:
        return linear_pool(heard, settled, present, task=self.shape.task)


class ProductOfAnswers(SettledPool):
    """The product of experts, corrected for the prior that every one of them has counted in.

    log p = sum over the present of a_m log p_m - (sum of a_m - 1) log prior - log Z, which is Bayes' rule
    where modalities are independent given the label and a_m is 1 (Hinton, Training Products of Experts by
    Minimizing Contrastive Divergence, Neural Computation 2002; with the prior: Bordley, A Multiplicative
    Formula for Aggregating Probability Assessments, Management Science 1982). a_m = 1 / T_m, T_m being the
    temperature at which expert m alone is calibrated. `settled` is log a_m. Before `settle` the prior is even
    and a_m is 1. Where classes were balanced in training the experts' own prior is even, and only that of the
    rows remains: log p = sum of a_m log p_m + log prior - log Z.
    """

    log_prior: Tensor

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape)
        self.register_buffer("log_prior", torch.zeros(shape.labels))  # even: a constant, or odds of 1

    def unsettled(self) -> Tensor:
        return torch.zeros(len(self.shape.widths))

    def combine_by(self, settled: Tensor, heard: Tensor, present: Tensor) -> Tensor:
        counted = torch.where(present, settled.exp(), 0.0).unsqueeze(2)
        agreed = (counted * evidence(heard, task=self.shape.task)).sum(dim=1)
        # Experts that learnt with balanced classes have counted in an even prior, which changes no answer.
        times = 0.0 if self.shape.is_balanced else counted.sum(dim=1)
        return agreed - (times - 1) * self.log_prior.to(heard.device)  # fitting is on the CPU

    def settle(self, modality_logits: Tensor, available: Tensor, targets: Tensor, *, seed: int) -> None:
        self.log_prior.copy_(log_prior(targets, labels=self.shape.labels, task=self.shape.task))
        super().settle(modality_logits, available, targets, seed=seed)

    def sizes(self) -> range:
        """Each expert alone: no temperature makes up for what another one says."""
        return range(1, 2)


class LogLinear(SettledPool):
    """The logarithmic opinion pool, with weights of its own for each subset of modalities and each label.

    log p = sum over the present S of a[S, m] log p_m + b[S] - log Z, all of them vectors over the labels
    (Genest and Zidek, Combining Probability Distributions, Statistical Science 1986). Modalities that
    overlap, as a name and the voice that says it, count for less beside each other than alone, and one may
    be trusted on some labels more than on others. Before `settle`, and as what the fit is drawn towards, it
    is the plain product. `settled` [2 ** modalities, modalities + 1, labels], b last; S is the sum of 2 **
    m.
    """

    needs_out_of_fold: ClassVar[bool] = True

    def unsettled(self) -> Tensor:
        count, labels = len(self.shape.widths), self.shape.labels
        once = torch.cat([torch.ones(count, labels), torch.zeros(1, labels)])
        return once.repeat(2**count, 1, 1)

    def combine_by(self, settled: Tensor, heard: Tensor, present: Tensor) -> Tensor:
        places = 2 ** torch.arange(present.shape[1], device=present.device)
        of_subset = settled[(present * places).sum(dim=1)]
        told = torch.where(present.unsqueeze(2), evidence(heard, task=self.shape.task), 0.0)
        return (of_subset[:, :-1] * told).sum(dim=1) + of_subset[:, -1]


class Stacking(SettledPool):
    """A logistic regression on [r * evidence; r], r being which modalities are present.

    Wolpert, Stacked Generalization, Neural Networks 1992: it learns from answers to rows that the experts
    were not trained on, else it trusts whoever remembers best. Before `settle`, and as what the fit is drawn
    towards, it is the plain product of the answers. `settled` [labels, modalities * labels + modalities].
    """

    needs_out_of_fold: ClassVar[bool] = True

    def unsettled(self) -> Tensor:
        count, labels = len(self.shape.widths), self.shape.labels
        return torch.cat([torch.eye(labels).repeat(1, count), torch.zeros(labels, count)], dim=1)

    def combine_by(self, settled: Tensor, heard: Tensor, present: Tensor) -> Tensor:
        told = torch.where(present.unsqueeze(2), evidence(heard, task=self.shape.task), 0.0)
        return torch.cat([told.flatten(1), present], dim=1).to(settled.dtype) @ settled.T


def evidence(logits: Tensor, *, task: Task) -> Tensor:
    """[..., labels] to the same: log probabilities, or for several labels a row log odds."""
    return log_softmax(logits, dim=-1) if task == "classification" else logits


def linear_pool(heard: Tensor, wanted: Tensor, present: Tensor, *, task: Task) -> Tensor:
    """Logits of sum of w_m p_m, w being the softmax of `wanted` [modalities] over the present."""
    log_weights = log_softmax(torch.where(present, wanted, _NONE), dim=1).unsqueeze(2)
    if task == "classification":
        return torch.logsumexp(log_softmax(heard, dim=2) + log_weights, dim=1)
    yes = torch.logsumexp(logsigmoid(heard) + log_weights, dim=1)
    return yes - torch.logsumexp(logsigmoid(-heard) + log_weights, dim=1)
