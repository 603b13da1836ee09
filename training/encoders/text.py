"""Text towers over the order of tokens, from scratch: int32 [rows, tokens], padded at the end, to Encoded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.encoders.contract import Encoded, Encoder
from training.encoders.readout import MeanReadout, PeakReadout
from training.encoders.specs import ConvText, TransformerText


class ConvTextEncoder(Encoder):
    """After every layer that mixes tokens the padding is set to zero again.

    That is what a convolution sees beyond the end of a row that is alone.
    """

    def __init__(self, spec: ConvText, *, vocabulary: int, pad_id: int) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        self.pad_id = pad_id
        self.embed = nn.Embedding(vocabulary, spec.channels)
        self.layers = nn.ModuleList(
            [
                nn.Conv1d(spec.channels, spec.channels, kernel_size=size, padding=size // 2)
                for size in (3, 5, 3)
            ]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(spec.channels) for _ in self.layers])
        self.readout = PeakReadout(spec.channels, spec.width, tokens=spec.tokens)

    def forward(self, text: Tensor) -> Encoded:
        valid = text != self.pad_id
        padding = ~valid.unsqueeze(2)
        x = look_up(self.embed.weight, text).masked_fill(padding, 0.0)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            mixed = layer(x.transpose(1, 2)).transpose(1, 2)
            x = (x + torch.relu(norm(mixed))).masked_fill(padding, 0.0)
        said: Encoded = self.readout(x, valid)
        return said


class TransformerTextEncoder(Encoder):
    """Attention over all tokens of a row; `most_tokens` is the longest row that has positions."""

    def __init__(self, spec: TransformerText, *, vocabulary: int, pad_id: int, most_tokens: int) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        self.pad_id = pad_id
        self.embed = nn.Embedding(vocabulary, spec.channels)
        self.positions = nn.Embedding(most_tokens, spec.channels)
        for table in (self.embed, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(spec.dropout)
        self.blocks = nn.ModuleList(
            [_Block(spec.channels, heads=spec.heads, dropout=spec.dropout) for _ in range(spec.layers)]
        )
        self.readout = MeanReadout(spec.channels, spec.width, tokens=spec.tokens)

    def forward(self, text: Tensor) -> Encoded:
        valid = text != self.pad_id
        at = torch.arange(text.shape[1], device=text.device)
        # Attention to nothing is not a number: a row without tokens looks at its first place.
        keys = (valid | (at == 0)).unsqueeze(1).unsqueeze(1)
        x = look_up(self.embed.weight, text) + self.positions.weight.index_select(0, at)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, keys)
        said: Encoded = self.readout(x, valid)
        return said


class _Block(nn.Module):
    """Attention, then two dense layers, each normalised first and added to what was there."""

    def __init__(self, channels: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention = nn.LayerNorm(channels)
        self.ask = nn.Linear(channels, 3 * channels)
        self.mix = nn.Linear(channels, channels)
        self.dense = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """x [rows, tokens, channels]; `keys`, bool [rows, 1, 1, tokens], is what may be looked at."""
        asked = self.ask(self.before_attention(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = asked.permute(2, 0, 3, 1, 4).unbind(0)
        heard = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=keys, dropout_p=self.dropout if self.training else 0.0
        )
        mixed = self.mix(heard.transpose(1, 2).flatten(2))
        x = x + nn.functional.dropout(mixed, self.dropout, training=self.training)
        changed: Tensor = x + self.dense(x)
        return changed


def look_up(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of `table` [entries, channels] for integers of any shape: [..., channels].

    Not nn.Embedding's own call: the exporter would name its result `embedding`, as an output is named.
    """
    return table.index_select(0, ids.flatten()).view(*ids.shape, table.shape[1])
