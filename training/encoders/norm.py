"""Batch normalisation whose moments are those of the global batch when several processes train together.

torch's SyncBatchNorm has no path for CPUs. Here every process may have a batch of another size, or none:
all must run the layer, and its backward pass, all the same. On one process, and in evaluation (hence in an
exported graph), these are torch's own layers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class _GlobalMoments(_BatchNorm):
    """The part that both layers share; input [rows, channels, ...]."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's own name
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if self.training and _processes() > 1:
            return self._by_global_moments(input)
        if self.training and input.numel() <= input.shape[1]:
            # No variance can be taken of a single value or of none, so those of training are used.
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)

    def _by_global_moments(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of half floats lose too much
        over = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        here = values.new_tensor([x.numel() // x.shape[1]])
        sums = _sum_over_processes(torch.cat([values.sum(over), here]))
        total, count = sums[:-1], sums[-1:]
        mean = total / count.clamp(min=1)
        # A second exchange, for the squares about the mean: those about zero lose digits.
        centred = values - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(over)) / count.clamp(min=1)
        if bool(count > 1):
            self._follow(mean.detach(), (variance * count / (count - 1)).detach())
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            centred, variance = values - self.running_mean.view(shape), self.running_var
        scale = torch.rsqrt(variance + self.eps) * self.weight
        answer: Tensor = (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)
        return answer

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """The running moments that evaluation uses; variance without bias, as torch keeps it."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class BatchNorm1d(_GlobalMoments, nn.BatchNorm1d):
    """[rows, channels] or [rows, channels, length]."""


class BatchNorm2d(_GlobalMoments, nn.BatchNorm2d):
    """[rows, channels, height, width]."""


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _SumOverProcesses(torch.autograd.Function):
    """The gradient of a sum that every process sees is the sum of what each makes of it."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return total
