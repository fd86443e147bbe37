"""What tuning cost: the loss of base and tuned model on text that neither was tuned on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.config import Config, EvaluationConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import read_json, write_atomically
from selfinstruct_train.sources.reader import read_json_line, read_lines
from selfinstruct_train.statistics import bootstrap_interval, comparison_rng

if TYPE_CHECKING:
    from selfinstruct_train.models.load import LoadedModel

FORGETTING_FILE = "forgetting.json"
_WINDOW = 512
"""Tokens that the model reads at once, fewer where its context is shorter."""
_TOKENS_PER_PASS = 2048
Losses = NDArray[np.float64]


class Forgetting(Row):
    """eval/forgetting.json: loss on held-out text in nats per token, lower is better."""

    source: str
    """Path of the text as the config gives it."""
    sha256: str
    """Of the text that was read, 64 hex digits."""
    tokens: int
    """Tokens scored."""
    windows: int
    base: float
    tuned: float
    delta: float
    """Tuned minus base; above 0 the tuned model predicts the text worse."""
    ci_low: float | None
    """None where there is one window alone, which leaves no spread to resample."""
    ci_high: float | None
    confidence: float

    @property
    def sentence(self) -> str:
        """What was found, claiming no more than the interval allows."""
        figures = f"{self.tuned:.3f} against {self.base:.3f} nats per token"
        if self.ci_low is None or self.ci_high is None:
            return f"On held-out text: {figures}; too little text to say how sure that is."
        said = "it cannot be told whether tuning forgot anything"
        if self.ci_low > 0:
            said = "tuning made the model worse at plain text"
        elif self.ci_high < 0:
            said = "tuning made the model better at plain text"
        return (
            f"On held-out text {said}: {figures} ({self.delta:+.3f}, {100 * self.confidence:g} % "
            f"interval {self.ci_low:+.3f} to {self.ci_high:+.3f})."
        )


class HeldOut(NamedTuple):
    """Held-out text."""

    source: str
    documents: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest of the documents."""
        return hashlib.sha256("\x00".join(self.documents).encode()).hexdigest()


def read_held_out(path: str) -> HeldOut:
    """Read held-out text: a ``.jsonl`` file of rows with ``text``, else one plain document.

    Raises:
        DataError: the file cannot be read, a line holds no text, or the file is blank.
    """
    file = Path(path)
    if file.name.removesuffix(".gz").endswith(".jsonl"):
        documents = tuple(_text(file, number, line) for number, line in read_lines(file))
    else:
        # Blank lines tell nothing that a model could be blamed for.
        documents = ("\n".join(line for _, line in read_lines(file)),)
    documents = tuple(document for document in documents if document.strip())
    if not documents:
        raise DataError(f"{path}: holds no text; name a file with text that was not trained on")
    return HeldOut(path, documents)


def measure_forgetting(
    config: Config, loaded: LoadedModel, run: RunDirectory, number: int
) -> Forgetting | None:
    """Measure the base and a round's tuned model on the held-out text of the config.

    Args:
        config: the run's settings.
        loaded: the model; every process must make this call.
        run: the run directory; the round must be trained.
        number: the round, counted from 0.

    Returns:
        The figures, as written to ``eval/forgetting.json``; None where the config names no text.

    Raises:
        DataError: the text is at fault or too short.
        EngineError: the adapter cannot be put in force.
    """
    evaluation = config.evaluation
    if evaluation.held_out_text is None:
        return None
    held_out = read_held_out(evaluation.held_out_text)
    directory = run.round(number).training(config.training.name)
    path = directory.evaluation(FORGETTING_FILE)
    known = run.world.on_main(lambda: read_forgetting(path) if path.exists() else None)
    windows = cut_windows(loaded, held_out, evaluation.held_out_tokens)
    tokens = sum(len(window) - 1 for window in windows)
    if known is not None and (known.sha256, known.tokens) == (held_out.sha256, tokens):
        return known
    share = run.world.share(windows)
    base, tuned = (
        np.array(run.world.gather(functools.partial(window_losses, loaded, share, adapter)))
        for adapter in (None, directory.tuned)
    )
    counts = np.array([len(window) - 1 for window in windows], dtype=np.float64)
    low, high = _interval(tuned - base, counts, evaluation, config.seed)
    result = Forgetting(
        source=held_out.source,
        sha256=held_out.sha256,
        tokens=tokens,
        windows=len(windows),
        base=float(base.sum() / counts.sum()),
        tuned=float(tuned.sum() / counts.sum()),
        delta=float((tuned - base).sum() / counts.sum()),
        ci_low=low,
        ci_high=high,
        confidence=evaluation.confidence,
    )
    text = result.model_dump_json(indent=1) + "\n"
    run.world.on_main(functools.partial(write_atomically, path, text))
    return result


def read_forgetting(path: Path) -> Forgetting:
    """Read a forgetting.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_json(path, Forgetting, "delete it and evaluate again")


def cut_windows(loaded: LoadedModel, held_out: HeldOut, most: int) -> list[list[int]]:
    """Cut the text into windows of equal length, the last one shorter.

    The documents are joined by the end token. The first token of a window is read, not scored.

    Args:
        loaded: the model, whose tokenizer and context count.
        held_out: the text.
        most: most tokens that are read.

    Raises:
        DataError: the text is shorter than two tokens.
    """
    # A report reads the figures without a model.
    from selfinstruct_train.models.tokenizer import tokenize

    tokens: list[int] = []
    for document in held_out.documents:
        tokens += tokenize(loaded.tokenizer, [document], start=False)[0]
        if loaded.tokenizer.eos_token_id is not None:
            tokens.append(loaded.tokenizer.eos_token_id)
        if len(tokens) >= most:
            break
    tokens = tokens[:most]
    size = min(_WINDOW, loaded.context_length)
    windows = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise DataError(f"{held_out.source}: too short: nothing is left to score")
    return windows


def window_losses(
    loaded: LoadedModel, windows: Sequence[Sequence[int]], adapter: Path | None
) -> list[float]:
    """Negative log-probability of each window, in nats, summed over its tokens but the first.

    Raises:
        EngineError: the adapter cannot be put in force.
    """
    # A report reads the figures without a model.
    import torch

    loaded.adapters.activate(adapter)
    # A model that has just been tuned may still drop out.
    loaded.model.eval()
    losses: list[float] = []
    for batch in _batches(windows):
        ids = torch.tensor(batch, device=loaded.device)
        with torch.no_grad():
            logits = loaded.model(ids, use_cache=False).logits[:, :-1].float()
        logprobs = torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None])
        losses += (-logprobs.double().sum((1, 2))).tolist()
    return losses


def _batches(windows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Windows of one length, as many as one pass takes: no padding, so no mask to get wrong."""
    batch: list[Sequence[int]] = []
    for window in windows:
        longer = (len(batch) + 1) * len(window) > _TOKENS_PER_PASS
        if batch and (longer or len(batch[0]) != len(window)):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _interval(
    differences: Losses, counts: Losses, evaluation: EvaluationConfig, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap over windows of the difference per token."""
    if len(differences) == 1:
        return None, None
    interval = bootstrap_interval(
        differences / counts,
        comparison_rng(seed, "forgetting"),
        evaluation.bootstrap_samples,
        evaluation.confidence,
        weights=counts,
    )
    return interval.low, interval.high


def _text(path: Path, number: int, line: str) -> str:
    row = read_json_line(path, number, line)
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{path}, line {number}: has no 'text'; a row is {{\"text\": ...}}")
    return text
