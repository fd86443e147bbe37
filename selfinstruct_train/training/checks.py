"""Is the trainer about to learn what it should, and did it save what it learned?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from selfinstruct_train.errors import TrainingError
from selfinstruct_train.records import Row
from selfinstruct_train.training.encoded import IGNORED, Example, ExampleIndex

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGIT_TOLERANCE = 1e-3
"""Most that equal logits may differ, as a share of the largest logit."""
_PACKING_TOLERANCE = 5e-2
"""Most that the logits of a packed row may differ, as a share of their norm: 0.7 % in bfloat16 on a
model of 30 layers, 20 % where it sees the row before it."""
_ROWS_COMPARED = 4
_PROMPTS_ASKED = 8
_MOST_ANSWER_TOKENS = 128

Collate = Callable[[list[Any]], Mapping[str, Any]]


class GateReport(Row):
    """What was seen on the real batches before the first step."""

    rows: int
    """Rows that will be trained on, every one of them looked at."""
    too_long: int
    """Rows left out because they are longer than the limit; none is ever cut."""
    tokens: int
    """Tokens of one pass over the data."""
    answer_tokens: int
    """Tokens that the loss is taken on in one pass, end tokens included."""
    longest: int
    """Tokens of the longest row."""
    pad_token: str
    eos_token: str
    joined_differently: int
    """Rows whose prompt tokenizes differently alone than with its answer."""
    unspaced: int
    """Rows whose answer does not begin with a blank; counted only where one should stand."""
    warnings: tuple[str, ...]


class SavedCheck(Row):
    """What was seen of the saved model, loaded again."""

    largest_difference: float
    """Between a logit of the model in memory and of the saved one."""
    largest_logit: float
    prompts: int
    """Training prompts that were asked."""
    stopped: int
    """How many of them the model answered and then ended by itself."""
    warnings: tuple[str, ...]


class _Sequence(NamedTuple):
    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]


def check_batches(
    dataset: Dataset,
    collate: Collate,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    too_long: int,
    spaced: bool,
    batch_size: int,
) -> GateReport:
    """The gate: look at every batch as the model will see it, and refuse to train on what is wrong.

    Args:
        dataset: the trainer's own, after its preparation.
        collate: the trainer's own collator.
        examples: what the batches should hold.
        tokenizer: the model's.
        too_long: rows already left out.
        spaced: whether a blank should stand before an answer; after a chat template, or where the
            language writes none, it should not.
        batch_size: rows put through the collator at once.

    Raises:
        TrainingError: padding is the end token, a label is missing or one too many, a row was cut,
            changed or lost, or most prompts tokenize differently with their answers.
    """
    require_special_tokens(tokenizer)
    eos = tokenizer.eos_token_id
    expected = ExampleIndex(examples)
    seen = 0
    for start in range(0, len(dataset), batch_size):
        stop = min(start + batch_size, len(dataset))
        for sequence in _sequences(collate([dataset[i] for i in range(start, stop)])):
            seen += 1
            place = expected.find(sequence.tokens)
            if place is None:
                raise TrainingError(
                    "a training row was cut or changed on its way to the model: "
                    f"{_excerpt(tokenizer, sequence)}; lower training.max_length below the "
                    "model's context, or report this template and tokenizer"
                )
            if sequence.labels[-1] != eos:
                raise TrainingError(
                    f"row {examples[place].id} does not end in a labelled end token "
                    f"({tokenizer.eos_token!r}), so the model would never learn to stop; the "
                    "tokenizer's pad token must differ from its end token"
                )
            if not expected.is_labelled(place, sequence.tokens, sequence.labels):
                raise TrainingError(
                    f"row {examples[place].id}: the loss is not taken on exactly the answer; "
                    "training.template does not suit this tokenizer: try training.template=plain"
                )
    if seen != len(examples):
        raise TrainingError(
            f"{len(examples)} rows went to the trainer but {seen} are in its batches; set "
            "training.packing=false, or lower training.max_length below the model's context"
        )
    return report_of(expected, too_long, tokenizer, spaced=spaced)


def report_of(
    passed: ExampleIndex, too_long: int, tokenizer: PreTrainedTokenizerBase, *, spaced: bool
) -> GateReport:
    """Figures of what passed the gate.

    Args:
        passed: all of it.
        too_long: rows already left out.
        tokenizer: the model's.
        spaced: whether answers should begin with a blank.

    Raises:
        TrainingError: most prompts tokenize differently with their answers.
    """
    joined_differently, unspaced = passed.joined_differently, passed.unspaced if spaced else 0
    return GateReport(
        rows=len(passed),
        too_long=too_long,
        tokens=passed.tokens,
        answer_tokens=passed.answer_tokens,
        longest=passed.longest,
        pad_token=str(tokenizer.pad_token),
        eos_token=str(tokenizer.eos_token),
        joined_differently=joined_differently,
        unspaced=unspaced,
        warnings=tuple(_boundary_warnings(len(passed), too_long, joined_differently, unspaced)),
    )


def check_packing(model: PreTrainedModel, dataset: Dataset, collate: Collate) -> None:
    """See that rows packed into one sequence do not attend to one another.

    Raises:
        TrainingError: the last row of a packed sequence gets other logits than it gets alone.
    """
    if len(dataset) < 2:
        return
    batch = collate([dataset[0], dataset[1]])
    length = len(dataset[1]["input_ids"])
    device = next(model.parameters()).device
    tokens = batch["input_ids"].to(device)
    with inference(model):
        together = model(
            input_ids=tokens, position_ids=batch["position_ids"].to(device), use_cache=False
        ).logits[0, -length:]
        alone = model(input_ids=tokens[:, -length:], use_cache=False).logits[0]
    # By their norms: in bfloat16 a single logit may be off by 2 %, all of them are not.
    difference = (together.float() - alone.float()).norm() / alone.float().norm()
    if not difference <= _PACKING_TOLERANCE:
        raise TrainingError(
            "training.packing lets the rows of one sequence see each other with this model's "
            "attention; set training.packing=false"
        )


def row_logits(model: torch.nn.Module, examples: Sequence[Example]) -> list[torch.Tensor]:
    """Logits on a few whole rows: for each a float32 (tokens, vocabulary) tensor on the CPU."""
    device = next(model.parameters()).device
    with inference(model):
        return [
            model(
                input_ids=torch.tensor(e.tokens[None], dtype=torch.long, device=device),
                use_cache=False,
            )
            .logits[0]
            .float()
            .cpu()
            for e in _spread(examples, _ROWS_COMPARED)
        ]


def check_saved(
    saved: Any,
    folder: Path,
    in_memory: Sequence[torch.Tensor],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int,
) -> SavedCheck:
    """Compare a saved model, loaded again, with the one that was trained.

    Args:
        saved: the model as the folder has it.
        folder: where it was saved.
        in_memory: `row_logits` of the trained model.
        examples: what it was trained on.
        tokenizer: the model's.
        context_length: most tokens of prompt and answer together.

    Raises:
        TrainingError: the logits differ by more than `LOGIT_TOLERANCE` of the largest one.
    """
    again = row_logits(saved, examples)
    asked = _spread(examples, _PROMPTS_ASKED)
    stopped = _count_stopped(saved, asked, tokenizer, context_length)
    difference = max((a - b).abs().max().item() for a, b in zip(again, in_memory, strict=True))
    largest = max(a.abs().max().item() for a in in_memory)
    if not difference <= LOGIT_TOLERANCE * largest:
        raise TrainingError(
            f"{folder}: the saved model is not the trained one (logits differ by "
            f"{difference:.3g}, the largest is {largest:.3g}); check the disk, and that peft and "
            "transformers load what they save in these versions"
        )
    warnings = (
        ()
        if stopped
        else (
            f"the tuned model ended none of {len(asked)} answers to its own training prompts by "
            "itself; train longer or with a higher training.learning_rate",
        )
    )
    return SavedCheck(
        largest_difference=difference,
        largest_logit=largest,
        prompts=len(asked),
        stopped=stopped,
        warnings=warnings,
    )


def require_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """See that answers can end.

    Raises:
        TrainingError: there is no end token, or padding is the end token.
    """
    if tokenizer.eos_token_id is None:
        raise TrainingError(
            "the model's tokenizer has no end token, so no answer could ever end; add eos_token "
            "to its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise TrainingError(
            f"the pad token and the end token are the same ({tokenizer.eos_token!r}); a model "
            "that is padded with its end token may not learn to stop: give the tokenizer a pad "
            "token of its own"
        )


def _sequences(batch: Mapping[str, Any]) -> Iterator[_Sequence]:
    """The rows of a batch, padding taken off and packed rows taken apart."""
    if "position_ids" in batch:
        tokens, labels = numbers(batch["input_ids"])[0], numbers(batch["labels"])[0]
        starts = [i for i, p in enumerate(batch["position_ids"][0].tolist()) if p == 0]
        for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
            yield _Sequence(tokens[start:stop], labels[start:stop])
        return
    lengths = batch["attention_mask"].sum(-1).tolist()
    for tokens, labels, length in zip(
        numbers(batch["input_ids"]), numbers(batch["labels"]), lengths, strict=True
    ):
        if (labels[length:] != IGNORED).any():
            raise TrainingError(
                "the loss is taken on padding; the installed trl pads in a way that this package "
                "does not know: install the versions of its constraints file"
            )
        yield _Sequence(tokens[:length], labels[:length])


def numbers(tensor: torch.Tensor) -> NDArray[np.int32]:
    """Token ids, labels or a mask on the CPU as numpy has them."""
    return tensor.numpy().astype(np.int32)


def _boundary_warnings(
    rows: int, too_long: int, joined_differently: int, unspaced: int
) -> Iterator[str]:
    if joined_differently * 2 > rows:
        raise TrainingError(
            f"{joined_differently} of {rows} prompts tokenize differently alone than with their "
            "answers, so the model would be asked with tokens that it was not trained on; end "
            "the prompt in a visible character and begin the answer with the blank"
        )
    if joined_differently:
        yield (
            f"{joined_differently} of {rows} prompts tokenize differently alone than with their "
            "answers; end the prompt in a visible character and begin the answer with the blank"
        )
    if unspaced * 2 > rows:
        yield (
            f"{unspaced} of {rows} answers do not begin with a blank: a base model knows words "
            "with the blank before them; put the answer on the prompt's last line, after one "
            "blank"
        )
    if too_long:
        yield (
            f"{too_long} rows are longer than training.max_length or the model's context and are "
            "left out; raise training.max_length if the context allows it"
        )


def _count_stopped(
    model: Any,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int,
) -> int:
    """How many answers to training prompts end in the end token within a fair length."""
    from transformers import GenerationConfig

    device = next(model.parameters()).device
    prompts = [e.tokens[: e.answer_start] for e in examples]
    width = max(map(len, prompts))
    tokens = torch.full((len(prompts), width), tokenizer.pad_token_id)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[width - len(prompt) :] = torch.from_numpy(prompt)
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    longest = max(len(e.tokens) - e.answer_start for e in examples)
    # Every field that a model's own generation settings may have filled is set.
    greedy = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=min(2 * longest + 8, _MOST_ANSWER_TOKENS, context_length - width),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    with inference(model):
        written = model.generate(
            input_ids=tokens.to(device),
            attention_mask=attention.to(device),
            generation_config=greedy,
        )
    return int((written[:, width:] == tokenizer.eos_token_id).any(-1).sum())


@contextmanager
def inference(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout and gradients; the model's mode is put back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many examples, evenly spread over the data."""
    step = max(len(examples) / most, 1.0)
    return [examples[int(i * step)] for i in range(min(most, len(examples)))]


def _excerpt(tokenizer: PreTrainedTokenizerBase, sequence: _Sequence) -> str:
    text = str(tokenizer.decode(sequence.tokens))
    return repr(text if len(text) <= 80 else text[:77] + "...")
