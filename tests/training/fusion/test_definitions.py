"""Every way to mix against its formula, written out row by row and number by number."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.training.fusion.made import SUBSETS, WIDTH, Said, all_subsets, ask, make, say
from training.fusion.attention import Attention, Block, Bottleneck, places
from training.fusion.contract import Level, Method
from training.fusion.joint import OfVectors
from training.fusion.pooled import Concat, Film, Gated, Multiply, Sum
from training.fusion.tensors import LowRank, TensorProduct

Row = NDArray[np.float64]
LEVELS: tuple[Level, ...] = ("feature", "model")
every_level = pytest.mark.parametrize("level", LEVELS)


def array(values: object) -> Row:
    assert isinstance(values, Tensor)
    return values.detach().double().numpy()


def linear(layer: nn.Module, x: Row) -> Row:
    return array(layer.weight) @ x + array(layer.bias)


def sigmoid(x: Row) -> Row:
    return 1 / (1 + np.exp(-x))


def concat(fusion: OfVectors, z: Row, here: list[int]) -> Row:
    assert isinstance(fusion, Concat)
    return np.concatenate([z[m] if m in here else array(fusion.missing)[m] for m in range(3)])


def multiply(fusion: OfVectors, z: Row, here: list[int]) -> Row:
    assert isinstance(fusion, Multiply)
    return np.prod([1 + np.tanh(linear(fusion.factors[m], z[m])) for m in here], axis=0)


def summed(fusion: OfVectors, z: Row, here: list[int]) -> Row:
    assert isinstance(fusion, Sum)
    total = np.sum([z[m] for m in here], axis=0)
    return (total - total.mean()) / np.sqrt(total.var() + fusion.norm.eps)


def mean(_: OfVectors, z: Row, here: list[int]) -> Row:
    return np.mean([z[m] for m in here], axis=0)


def gated(fusion: OfVectors, z: Row, here: list[int]) -> Row:
    assert isinstance(fusion, Gated)
    told = [z[m] if m in here else array(fusion.missing)[m] for m in range(3)]
    wanted = linear(fusion.gate, np.concatenate(told)).reshape(3, WIDTH)
    total = sum(np.exp(wanted[m]) for m in here)
    return np.sum(
        [np.exp(wanted[m]) / total * np.tanh(linear(fusion.values[m], told[m])) for m in here], axis=0
    )


def low_rank(fusion: OfVectors, z: Row, here: list[int]) -> Row:
    """By the whole weight tensor that the factors are a decomposition of."""
    assert isinstance(fusion, LowRank)
    factors, ranks = array(fusion.factors), array(fusion.rank_weights)
    letters = "ijk"
    inputs = ",".join(f"r{letters[m]}o" for m in here)
    kept = "".join(letters[m] for m in here)
    weights = np.einsum(f"r,{inputs}->{kept}o", ranks, *(factors[m] for m in here))
    products = reduce(np.multiply.outer, [np.concatenate([[1.0], z[m]]) for m in here])
    return np.tensordot(products, weights, axes=len(here)) + array(fusion.bias)


def tensor(fusion: OfVectors, z: Row, here: list[int]) -> Row:
    assert isinstance(fusion, TensorProduct)
    nothing = np.zeros(fusion.spec.tensor_width)
    narrow = [linear(fusion.narrow[m], z[m]) if m in here else nothing for m in range(3)]
    return reduce(np.multiply.outer, [np.concatenate([[1.0], x]) for x in narrow]).ravel()


def film(fusion: OfVectors, z: Row, here: list[int]) -> Row:
    assert isinstance(fusion, Film)
    if here == [1]:
        return z[1]
    condition = z[1] if 1 in here else array(fusion.missing)[0]
    total = np.zeros(WIDTH)
    for layer, m in zip(fusion.modulate, (0, 2), strict=True):
        if m in here:
            scale, shift = np.split(linear(layer, condition), 2)
            total += (1 + scale) * z[m] + shift
    return total


TABLE: list[tuple[Method, Callable[[OfVectors, Row, list[int]], Row]]] = [
    ("concat", concat),
    ("multiply", multiply),
    ("sum", summed),
    ("mean", mean),
    ("gated", gated),
    ("low_rank", low_rank),
    ("tensor", tensor),
    ("film", film),
]


@every_level
@pytest.mark.parametrize(("method", "formula"), TABLE)
def test_a_mixture_is_its_formula(
    level: Level, method: Method, formula: Callable[[OfVectors, Row, list[int]], Row]
) -> None:
    fusion, said, present = make(level, method), say(7), all_subsets(7)
    assert isinstance(fusion, OfVectors)
    with torch.inference_mode():
        own, _ = fusion.alone(said.pooled, present)
        mixed = array(fusion.mix(own, present))
    for row, subset in enumerate(SUBSETS):
        expected = formula(fusion, array(own[row]), [m for m in range(3) if subset[m]])
        np.testing.assert_allclose(mixed[row], expected, atol=2e-6, rtol=1e-5, err_msg=str(subset))


@every_level
def test_a_tower_is_a_normed_projection_and_at_model_level_a_network_on_it(level: Level) -> None:
    fusion, said, present = make(level, "concat"), say(7), all_subsets(7)
    own, alone = fusion.alone(said.pooled, present)
    for row, subset in enumerate(SUBSETS):
        for m in (m for m in range(3) if subset[m]):
            tower = fusion.towers[m]
            projected = linear(tower.project, array(said.pooled[m][row]))
            z = (projected - projected.mean()) / np.sqrt(projected.var() + tower.norm.eps)
            expected = z if level == "feature" else array(tower.think(torch.from_numpy(z).float()))
            np.testing.assert_allclose(array(own[row, m]), expected, atol=1e-5)
            np.testing.assert_allclose(array(alone[row, m]), linear(fusion.heads[m], expected), atol=1e-5)


def test_a_block_is_the_transformer_layer_of_torch() -> None:
    torch.manual_seed(0)
    block, x = Block(8, heads=2, dropout=0.0), torch.randn(3, 5, 8)
    peer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
    attention = peer.self_attn
    nn.init.zeros_(attention.in_proj_bias)
    with torch.no_grad():
        for layer in (peer.norm1, peer.norm2):
            layer.weight.uniform_(0.5, 1.5)
        attention.in_proj_weight.copy_(block.project.weight)
    pairs = [
        (block.norm_attend, peer.norm1),
        (block.attended[0], attention.out_proj),
        (block.feed[0], peer.norm2),
        (block.feed[1], peer.linear1),
        (block.feed[3], peer.linear2),
    ]
    for own, other in pairs:
        own.load_state_dict(other.state_dict())
    visible = torch.tensor([[True] * 5, [True, True, False, True, False], [True, False, False, False, False]])
    torch.testing.assert_close(block(x, visible), peer(x, src_key_padding_mask=~visible))
    torch.testing.assert_close(block(x), peer(x))


@every_level
def test_attention_to_a_subset_is_attention_where_there_is_nothing_else(level: Level) -> None:
    fusion, said, present = make(level, "attention"), say(7), all_subsets(7)
    assert isinstance(fusion, Attention)
    mixed = fusion.mix(fusion.sequences(said.tokens, present), present)
    for row, subset in enumerate(SUBSETS):
        x = torch.cat([fusion.cls, *_tokens(fusion, said, row, subset, types=fusion.types)], dim=1)
        for block in fusion.blocks:
            x = block(x)
        torch.testing.assert_close(mixed[row], fusion.norm(x[0, 0]), atol=1e-5, rtol=1e-5)


@every_level
def test_only_the_present_write_into_the_bottleneck(level: Level) -> None:
    fusion, said, present = make(level, "bottleneck"), say(7), all_subsets(7)
    assert isinstance(fusion, Bottleneck)
    mixed = fusion.mix(fusion.sequences(said.tokens, present), present)
    for row, subset in enumerate(SUBSETS):
        here = [m for m in range(3) if subset[m]]
        each = {
            m: torch.cat([fusion.cls[m : m + 1], values], dim=1)
            for m, values in zip(here, _tokens(fusion, said, row, subset, types=None), strict=True)
        }
        shared = fusion.shared
        for layer in range(fusion.spec.blocks):
            written = []
            for m in here:
                x = fusion.blocks[3 * layer + m](torch.cat([each[m], shared], dim=1))
                each[m], own = x[:, : each[m].shape[1]], x[:, each[m].shape[1] :]
                written.append(own)
            shared = sum(written, torch.zeros(())) / len(here)
        expected = torch.stack([fusion.norm(each[m][0, 0]) for m in here]).mean(dim=0)
        torch.testing.assert_close(mixed[row], expected, atol=1e-5, rtol=1e-5)


def _tokens(
    fusion: Attention | Bottleneck,
    said: Said,
    row: int,
    subset: tuple[bool, ...],
    *,
    types: Tensor | None,
) -> list[Tensor]:
    """Of one row: [1, K, width] of each present modality."""
    found = []
    for m in (m for m in range(3) if subset[m]):
        values = fusion.towers[m](said.tokens[m][row : row + 1])
        values = values + places(values.shape[1], WIDTH, device=values.device)
        found.append(values if types is None else values + types[m])
    return found


def test_places_are_sines_and_cosines() -> None:
    found = places(3, 4, device=torch.device("cpu"))
    expected = [[np.sin(p), np.cos(p), np.sin(p / 100), np.cos(p / 100)] for p in range(3)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("method", ["attention", "bottleneck"])
def test_the_place_of_a_token_matters(method: Method) -> None:
    fusion, said, present = make("feature", method), say(7), all_subsets(7)
    moved = Said(tuple(tokens.flip(1) for tokens in said.tokens), said.pooled)
    change = ask(fusion, moved, present).logits - ask(fusion, said, present).logits
    assert (change.abs().amax(dim=1) > 1e-5).all()
