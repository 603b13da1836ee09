"""Train a bundle's tokenizer: a token is a character of the training texts, or one byte of any other.

Compatible characters and case are folded together (a full-width 7 is 7, SEPT is sept). Merges stay inside
a character, so a slip of the finger changes one token or two and not the whole word. For words of many
languages letters may be folded further, to their sounds.
"""

from __future__ import annotations

from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training.sounds import letters_by_sound

PAD: Final = "[PAD]"  # id 0


def train_tokenizer(texts: tuple[str, ...], *, most_tokens: int, is_by_sound: bool = False) -> bytes:
    """Hugging Face `tokenizers` JSON. The same texts give the same bytes.

    `is_by_sound` reads letters of every script without accents and as training/sounds.py writes them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _by_sound() if is_by_sound else _by_letter()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[\\s\\S]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=most_tokens,
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    return tokenizer.to_str().encode()


def ascii_ids() -> dict[str, int]:
    """The token of each printable ASCII character, the same in every tokenizer that is trained here."""
    bytes_in_order = sorted(pre_tokenizers.ByteLevel.alphabet())
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    return {
        character: 1 + bytes_in_order.index(encode(character)[0][0])
        for character in map(chr, range(0x20, 0x7F))
    }


def _by_letter() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def _by_sound() -> normalizers.Normalizer:
    """An accent goes only where something is before it, so that no text becomes empty."""
    rules = [
        normalizers.Replace(Regex(f"[{letters}]"), sound) for sound, letters in letters_by_sound().items()
    ]
    accents = normalizers.Replace(Regex("(?<=[\\s\\S])\\p{Mn}+"), "")
    return normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), accents, *rules])
