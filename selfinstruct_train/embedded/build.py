"""Make the embedded base model: ``python -m selfinstruct_train.embedded.build``.

Writes the tokenizer, pretrains on the text of the microworld and exports to ``selfinstruct_train/embedded/weights``.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch
import yaml
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from selfinstruct_train.embedded import WEIGHTS, lexicon
from selfinstruct_train.embedded.corpus import documents
from selfinstruct_train.embedded.pretrain import Settings, Trainer
from selfinstruct_train.embedded.tokenizer import train_tokenizer
from selfinstruct_train.errors import ConfigError, SelfInstructError
from selfinstruct_train.generation.prompting import Wording

PROMPTS = Path(__file__).parents[2] / "data" / "microworld" / "prompts" / "prompts.yaml"
_TOKENIZER_SEED = -2
_TOKENIZER_CHARACTERS = 4_000_000


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
        lexicon.NAMES, *lexicon.CATEGORIES.values(), lexicon.THINGS, lexicon.BODY, lexicon.NUMBER_WORDS, lexicon.DAYS,
        lexicon.MONTHS, *lexicon.OPPOSITES, *lexicon.SYNONYMS, *lexicon.VERBS.items(), *lexicon.CAPITALS.items(),
        *lexicon.SPANISH.items(), map(lexicon.plural, lexicon.THINGS),
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
        raise ConfigError(f"--until: '{clock}' is no time of day; write it as HH:MM, in UTC") from error
    end = now.replace(hour=time.hour, minute=time.minute, second=0, microsecond=0)
    return ((end if end > now else end + timedelta(days=1)) - now).total_seconds()


def export(trainer: Trainer, folder: Path) -> None:
    """Write model, tokenizer and generation settings where `from_pretrained` finds them, in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    model = trainer.model
    generation = GenerationConfig(
        eos_token_id=trainer.tokenizer.eos_token_id, pad_token_id=trainer.tokenizer.pad_token_id
    )
    weights = {name: weight.detach().bfloat16() for name, weight in model.state_dict().items()}
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, state_dict=weights)
    generation.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    args.out.mkdir(parents=True, exist_ok=True)
    going_on = args.resume or args.export_only
    # A run keeps its own copy of the prompts, so that a later change of them cannot split it in two.
    prompts = args.out / "prompts.yaml"
    if not going_on:
        shutil.copyfile(PROMPTS, prompts)
    wording = Wording.model_validate(yaml.safe_load(prompts.read_text("utf-8")))
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
    parser = argparse.ArgumentParser(prog="python -m selfinstruct_train.embedded.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"), help="directory of the run")
    parser.add_argument("--hours", type=float, help="train for so many hours")
    parser.add_argument("--tokens", type=float, help="train on so many tokens")
    parser.add_argument("--until", metavar="HH:MM", help="train until the UTC clock shows this")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument("--export-only", action="store_true", help="export the run's checkpoint")
    parser.add_argument("--no-export", action="store_true", help="leave the package's weights as they are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: one for each core")
    parser.add_argument("--set", metavar="JSON", help="other values for fields of pretrain.Settings")
    return parser


if __name__ == "__main__":
    try:
        main()
    except SelfInstructError as error:
        sys.exit(f"error: {error}")
