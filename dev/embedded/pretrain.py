"""Pretraining of the embedded model on a CPU: Muon and AdamW, constant rate and decay, resume."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dev.embedded.corpus import documents
from dev.embedded.forward import batch_loss, parts, rotation, token_losses
from dev.embedded.packing import Batch, Packer, StreamPlace
from dev.embedded.probe import draw_questions, probe
from selfinstruct_train.errors import TrainingError
from selfinstruct_train.packs.parts import Wording

log = logging.getLogger(__name__)
_HELD_OUT_SEED = -1
_FIXED = ("hidden", "intermediate", "layers", "heads", "vocabulary", "seed", "batch_tokens")


@dataclass(frozen=True)
class Settings:
    """What a pretraining run depends on."""

    hidden: int = 256
    intermediate: int = 704
    layers: int = 6
    heads: int = 4
    vocabulary: int = 2304
    context: int = 2048
    """Positions of the model; training rows are shorter."""
    seed: int = 0
    tokens: float = float("inf")
    """Budget in tokens; either budget ends the run."""
    seconds: float = float("inf")
    """Budget in seconds of training; a run that is bounded by it cannot be repeated to the bit."""
    batch_tokens: int = 8192
    short: int = 512
    """Row length of the first part of the run."""
    long: int = 1024
    """Row length of the rest."""
    long_from: float = 0.75
    """Share of the run after which rows are long."""
    chunk_tokens: int = 600_000
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    muon_decay: float = 0.05
    warmup: float = 0.02
    decay_from: float = 0.7
    """Share of the run after which the learning rates fall linearly to zero."""
    clip: float = 1.0
    save_every: float = 240.0
    """Seconds between checkpoints."""
    evaluate_every: float = 600.0
    """Seconds between evaluations."""
    probe_questions: int = 100
    compiled: bool = True


class Progress(NamedTuple):
    """How far a run is."""

    step: int
    tokens: int
    """Tokens read, padding left out."""
    seconds: float
    place: StreamPlace


def new_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh float32 Llama whose layers add nothing at first."""
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    rng = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
            elif weight.ndim == 2:
                weight.normal_(0.0, 0.02, generator=rng)
    return model


def rate(fraction: float, settings: Settings) -> float:
    """The learning rate relative to its peak, by the share of the run that is done."""
    rising = fraction / settings.warmup
    falling = (1.0 - fraction) / (1.0 - settings.decay_from)
    return max(0.0, min(1.0, rising, falling))


class Trainer:
    """One run in one directory: ``checkpoint.pt`` and ``log.jsonl``."""

    def __init__(
        self, folder: Path, settings: Settings, tokenizer: PreTrainedTokenizerFast, wording: Wording
    ) -> None:
        self.folder, self.settings, self.tokenizer, self.wording = (
            folder,
            settings,
            tokenizer,
            wording,
        )
        self.model = new_model(settings, tokenizer)
        inner = list(self.model.model.layers.named_parameters())
        self.matrices = [weight for _, weight in inner if weight.ndim == 2]
        known = {id(weight) for weight in self.matrices}
        others = [weight for weight in self.model.parameters() if id(weight) not in known]
        self.optimizers = (
            torch.optim.Muon(
                self.matrices, lr=settings.muon_lr, weight_decay=settings.muon_decay, momentum=0.95
            ),
            torch.optim.AdamW(
                others, lr=settings.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
            ),
        )
        self.peaks = (settings.muon_lr, settings.adam_lr)
        self.progress = Progress(0, 0, 0.0, StreamPlace(0, settings.short, 0))
        self.packer = Packer(
            tokenizer, wording, settings.seed, settings.batch_tokens, settings.chunk_tokens
        )
        self.parts = parts(settings.compiled)
        self.tables = {n: rotation(self.model, n) for n in {settings.short, settings.long}}

    def limit(self, seconds: float) -> None:
        """Give the run another budget of seconds, those already trained included."""
        self.settings = replace(self.settings, seconds=seconds)

    def fraction(self) -> float:
        """Share of the run that is done, by whichever budget is nearer to its end."""
        done = self.progress
        return max(done.tokens / self.settings.tokens, done.seconds / self.settings.seconds)

    def train(self) -> Progress:
        """Train until a budget is used up; a checkpoint is written at the end and if stopped."""
        start = time.monotonic() - self.progress.seconds
        saved = evaluated = start + self.progress.seconds
        window = Window(saved, self.progress.tokens, [])
        try:
            while self.fraction() < 1.0:
                for batch in self.packer.batches(self.progress.place):
                    window.losses.append(self._step(batch, rate(self.fraction(), self.settings)))
                    now = time.monotonic()
                    self._advance(int((batch.weights > 0).sum()), now - start)
                    if self.progress.step % 50 == 0:
                        window = self._note_window(window, now)
                    if now - saved > self.settings.save_every:
                        self.save()
                        saved = time.monotonic()
                    if now - evaluated > self.settings.evaluate_every:
                        self.evaluate()
                        evaluated = time.monotonic()
                    if self.fraction() >= 1.0:
                        break
                else:
                    is_long = self.fraction() >= self.settings.long_from
                    length = self.settings.long if is_long else self.settings.short
                    place = StreamPlace(self.progress.place.chunk + 1, length, 0)
                    self.progress = self.progress._replace(place=place)
        finally:
            self.save()
        self.evaluate()
        return self.progress

    def evaluate(self) -> None:
        """Write the held-out loss of each kind of document and the probe to the log."""
        started = time.monotonic()
        kinds = self._held_out_losses()
        questions = draw_questions(self.wording, self.settings.probe_questions, 0)
        result = probe(self.model, self.tokenizer, questions)
        self._note(
            held_out=kinds, probe=round(result.right, 3), probe_groups=result.groups,
            wrong=result.examples, evaluation_seconds=round(time.monotonic() - started, 1),
        )  # fmt: skip

    def notes(self) -> list[dict[str, Any]]:
        """The rows of the run's log, oldest first."""
        path = self.folder / "log.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines]

    def save(self) -> None:
        """Write the checkpoint in one move: a kill leaves the old one whole."""
        path = self.folder / "checkpoint.pt"
        state = {
            "settings": asdict(self.settings),
            "progress": tuple(self.progress[:3]) + (tuple(self.progress.place),),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def load(self) -> None:
        """Go on from the directory's checkpoint.

        Raises:
            TrainingError: there is no checkpoint, or it is of a model of another shape.
        """
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            raise TrainingError(
                f"{path}: no checkpoint to resume; leave out --resume to begin from the start"
            )
        state = torch.load(path, weights_only=True)
        for key in _FIXED:
            if state["settings"][key] != getattr(self.settings, key):
                raise TrainingError(
                    f"{path}: made with {key}={state['settings'][key]}, not "
                    f"{getattr(self.settings, key)}; resume with the same setting"
                )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, tokens, seconds, place = state["progress"]
        self.progress = Progress(step, tokens, seconds, StreamPlace(*place))

    def _step(self, batch: Batch, relative_rate: float) -> float:
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * relative_rate
        loss = batch_loss(self.model, batch, self.parts, self.tables[batch.inputs.shape[1]])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
        return float(loss.detach())

    def _advance(self, tokens: int, seconds: float) -> None:
        done = self.progress
        place = done.place._replace(used=done.place.used + 1)
        self.progress = Progress(done.step + 1, done.tokens + tokens, seconds, place)

    @torch.inference_mode()
    def _held_out_losses(self) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        packer = self.packer._replace(seed=_HELD_OUT_SEED)
        length = self.settings.short
        for kind, texts in self._held_out_texts().items():
            for batch in packer.rows_of_each(texts, length):
                losses = token_losses(self.model, batch, self.parts, self.tables[length])
                sums[kind] += float(losses.sum())
                counts[kind] += int((batch.weights > 0).sum())
        return {kind: round(sums[kind] / counts[kind], 4) for kind in sorted(sums)}

    def _held_out_texts(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for text in islice(documents(_HELD_OUT_SEED, self.wording, False), 120):
            found[kind_of(text, self.wording)].append(text)
        return found

    def _note_window(self, window: Window, now: float) -> Window:
        speed = (self.progress.tokens - window.tokens) / (now - window.since)
        mean = sum(window.losses) / len(window.losses)
        share = round(rate(self.fraction(), self.settings), 4)
        self._note(loss=round(mean, 4), tokens_per_second=round(speed), relative_rate=share)
        return Window(now, self.progress.tokens, [])

    def _note(self, **values: object) -> None:
        done = self.progress
        row = {
            "step": done.step,
            "tokens": done.tokens,
            "seconds": round(done.seconds, 1),
            **values,
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        log.info("%s", row)


class Window(NamedTuple):
    """What happened since the last line of the log."""

    since: float
    tokens: int
    losses: list[float]


def kind_of(text: str, wording: Wording) -> str:
    """The kind of a pretraining document, told by its shape."""
    marks = {
        f"\n{wording.classification} ": "classification",
        f"\n{wording.example} 1\n": "input_first",
        f"\n{wording.label} ": "output_first",
        "\n2. ": "list",
    }
    return next((kind for mark, kind in marks.items() if mark in text), "plain")
