"""Make the embedded base model: ``python -m dev.embedded.build``.

Writes the tokenizer, pretrains on the text of the microworld and exports the model to
``selfinstruct_train/microworld/weights``. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from dev.embedded.corpus import documents
from dev.embedded.pretrain import Settings, Trainer
from dev.embedded.tokenizer import train_tokenizer
from selfinstruct_train.errors import ConfigError, SelfInstructError
from selfinstruct_train.microworld import WEIGHTS, lexicon
from selfinstruct_train.packs.pack import read_pack_file
from selfinstruct_train.packs.parts import Wording

PROMPTS = Path(__file__).parents[2] / "data" / "microworld" / "prompts" / "pack.yaml"
_TOKENIZER_SEED = -2
_TOKENIZER_CHARACTERS = 4_000_000
_CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The embedded base model of selfinstruct-train

A base language model small enough to ship with the package and to go through the whole
Self-Instruct loop on a CPU. It knows one little world (words, lists, small numbers, short stories)
and no other.

- Llama architecture, {size:.2f}M parameters: {layers} layers, width {hidden}, {heads} heads, tied
  embeddings, {vocabulary} tokens of byte-level BPE, bfloat16.
- Pretrained from scratch on {tokens:.1f}M tokens ({steps:,} steps, {minutes:.0f} minutes on two
  CPU cores). The weight of answer tokens in the loss was raised. Rows had {short} tokens, later
  {long}; positions up to {context} can be addressed, but those above {long} were never trained.
- Corpus: synthetic text of the package's own microworld, written by
  `dev/embedded/corpus.py` while training ran (seed {seed}): sentences, lists of
  instructions, few-shot documents. Problems of the seed, dev and test splits and the reserved
  wordings are left out. No other data was used.
- Not tuned to follow instructions: that is what the loop is for.

{results}

Limits: it fails outside its world, knows few facts, errs in arithmetic, and is of no use but to
show and test the training loop. Some sentences of its world are made up at random and are not true.

Made by `python -m dev.embedded.build`; a run that is bounded by time cannot be
repeated to the bit. Licence: Apache-2.0.
"""


def build_tokenizer(wording: Wording, settings: Settings) -> PreTrainedTokenizerFast:
    """The tokenizer of the microworld, trained on its text and its lexicon."""
    texts, size = [], 0
    stream = documents(_TOKENIZER_SEED, wording, False)
    while size < _TOKENIZER_CHARACTERS:
        texts.append(next(stream))
        size += len(texts[-1])
    # Without a push, the rarest words of the lexicon would fall apart into letters.
    texts.extend(" ".join(["", *lexicon_words()]) for _ in range(len(texts) // 10))
    return train_tokenizer(texts, settings.vocabulary, settings.context)


def lexicon_words() -> tuple[str, ...]:
    """Every single word of the lexicon, once."""
    groups = (
        lexicon.NAMES, *lexicon.CATEGORIES.values(), lexicon.THINGS, lexicon.BODY,
        lexicon.NUMBER_WORDS, lexicon.DAYS, lexicon.MONTHS, *lexicon.OPPOSITES, *lexicon.SYNONYMS,
        *lexicon.VERBS.items(), *lexicon.CAPITALS.items(), *lexicon.SPANISH.items(),
        map(lexicon.plural, lexicon.THINGS),
    )  # fmt: skip
    return tuple(dict.fromkeys(word for group in groups for word in group))


def seconds_until(clock: str, now: datetime) -> float:
    """Seconds from ``now`` to the next time that the UTC clock shows ``HH:MM``.

    Raises:
        ConfigError: ``clock`` is not a time of day.
    """
    try:
        time = datetime.strptime(clock, "%H:%M")
    except ValueError as error:
        raise ConfigError(
            f"--until: '{clock}' is no time of day; write it as HH:MM, in UTC"
        ) from error
    end = now.replace(hour=time.hour, minute=time.minute, second=0, microsecond=0)
    return ((end if end > now else end + timedelta(days=1)) - now).total_seconds()


def export(trainer: Trainer, folder: Path) -> None:
    """Write model (bfloat16), tokenizer, generation settings and card for `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    generation = GenerationConfig(
        eos_token_id=trainer.tokenizer.eos_token_id, pad_token_id=trainer.tokenizer.pad_token_id
    )
    # A copy, since the checkpoint's own weights stay in float32.
    copy.deepcopy(trainer.model).to(torch.bfloat16).save_pretrained(folder)
    # safetensors writes for the owner alone; a package's file is for everyone.
    (folder / "model.safetensors").chmod(0o644)
    generation.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card(trainer), encoding="utf-8")


def card(trainer: Trainer) -> str:
    """The model card, with the figures of the run."""
    config, done, settings = trainer.model.config, trainer.progress, trainer.settings
    size = sum(weight.numel() for weight in trainer.model.parameters())
    found = [row for row in trainer.notes() if "probe" in row]
    results = "No evaluation was run."
    if found:
        last = found[-1]
        losses = "\n".join(f"| {kind} | {loss:.3f} |" for kind, loss in last["held_out"].items())
        results = (
            "Loss on documents that were not trained on, in nats a token, after "
            f"{last['tokens']:,} tokens:\n\n| documents | loss |\n| --- | --- |\n{losses}\n\n"
            f"Few-shot probe: of {settings.probe_questions} questions whose problems never occur "
            f"in pretraining, {last['probe']:.0%} were answered right (four demonstrations)."
        )
    return _CARD.format(
        size=size / 1e6, layers=config.num_hidden_layers, hidden=config.hidden_size,
        heads=config.num_attention_heads, vocabulary=config.vocab_size,
        context=config.max_position_embeddings, tokens=done.tokens / 1e6, steps=done.step,
        minutes=done.seconds / 60, short=settings.short, long=settings.long, seed=settings.seed,
        results=results,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    args.out.mkdir(parents=True, exist_ok=True)
    going_on = args.resume or args.export_only
    # A run keeps its own copy of the prompts: a later change of them cannot split it in two.
    prompts = args.out / "pack.yaml"
    if not going_on:
        shutil.copyfile(PROMPTS, prompts)
    wording = read_pack_file(prompts).wording
    settings = Settings(
        seed=args.seed,
        tokens=args.tokens or float("inf"),
        seconds=args.hours * 3600 if args.hours else float("inf"),
        **(json.loads(args.set) if args.set else {}),
    )
    if going_on:
        tokenizer = AutoTokenizer.from_pretrained(args.out / "tokenizer")
    else:
        tokenizer = build_tokenizer(wording, settings)
        tokenizer.save_pretrained(args.out / "tokenizer")
    trainer = Trainer(args.out, settings, tokenizer, wording)
    if going_on:
        trainer.load()
    if args.until:
        left = seconds_until(args.until, datetime.now(UTC))
        trainer.limit(trainer.progress.seconds + left)
    if not args.export_only:
        trainer.train()
    if not args.no_export:
        export(trainer, WEIGHTS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.embedded.build", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/embedded"), help="directory of the run"
    )
    parser.add_argument("--hours", type=float, help="train for so many hours")
    parser.add_argument("--tokens", type=float, help="train on so many tokens")
    parser.add_argument("--until", metavar="HH:MM", help="train until the UTC clock shows this")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument("--export-only", action="store_true", help="export the run's checkpoint")
    parser.add_argument(
        "--no-export", action="store_true", help="leave the package's weights as they are"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: one for each core")
    parser.add_argument(
        "--set", metavar="JSON", help="other values for fields of pretrain.Settings"
    )
    return parser


if __name__ == "__main__":
    try:
        main()
    except SelfInstructError as error:
        sys.exit(f"error: {error}")
