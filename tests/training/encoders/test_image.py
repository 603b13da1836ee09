from __future__ import annotations

import copy

import pytest
import torch

from training.encoders.image import ResidualBlock


@pytest.mark.parametrize("channels", [3, 4, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_narrow_block_is_given_the_gradients_that_exact_arithmetic_gives(
    channels: int, stride: int
) -> None:
    """With channels last, as training lays them out."""
    torch.manual_seed(0)
    block = ResidualBlock(channels, 8, stride=stride).eval()
    exact = copy.deepcopy(block).double()
    images = torch.randn(32, channels, 32, 32)
    exact(images.double()).square().sum().backward()
    block.to(memory_format=torch.channels_last)
    block(images.to(memory_format=torch.channels_last)).square().sum().backward()
    found, expected = block.around[0].weight.grad, exact.around[0].weight.grad
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
