"""The tokenizer of the embedded model: a small byte-level BPE made for its world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
"""Ends every document; the model's eos."""
PAD = "<|pad|>"
"""Fills up rows; never a target."""

# Words and marks take the blank before them along; every digit stands alone, so that sums can be
# learned.
_PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE.

    Args:
        texts: what to learn the merges from.
        vocabulary: number of tokens, the 256 bytes and the two special ones included.
        context: longest input of the model in tokens, noted as ``model_max_length``.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def split_words(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[str]:
    """Those of the words that, after a blank, take more than one token."""
    encoded = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    return [word for word, ids in zip(words, encoded, strict=True) if len(ids) > 1]
