"""Replay against forgetting: what the base itself answers to general prompts is trained on too.

A model that is tuned on narrow data loses other skills; its own answers to other questions, mixed
in, hold it where it was (self-generated replay, arXiv 2602.20162).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from selfinstruct_train.config import Config
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.chat_prompting import chat_answer
from selfinstruct_train.generation.filters import check_instance
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.prompting import few_shot_prompt
from selfinstruct_train.packs.language import language_test
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import Instance, Sampling, SeedTask, TrainingRow
from selfinstruct_train.rounds.opened import OpenedRun
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.mix import ranked

BATCH = 128
"""Prompts that are asked, and kept, together."""
_SHARE_OF_CONTEXT = 3
"""A prompt that takes more than one part in so many of the context is not asked: an answer and a
demonstration want room as well."""
_STAGE = "replay"


def replay_rows(
    opened: OpenedRun, config: Config, directory: RoundDirectory, wanted: int
) -> list[TrainingRow]:
    """Ask the base general prompts until there are as many answers as wanted, or no prompt is left.

    Answers that are cut or that a filter drops make no row.

    Args:
        opened: the run.
        config: the settings of the training.
        directory: of the training; what is asked for is kept there.
        wanted: rows.

    Raises:
        EngineError: the engine failed.
        RunError: what is kept there is of another model or other prompts.
    """
    path = directory.completions(_STAGE)
    journal = Journal(directory.store(path, StoredCompletion), opened.engine)
    asked = [f"{task.instruction}\n{task.instances[0].input}" for task in opened.replay_prompts]
    lengths = zip(opened.replay_prompts, opened.engine.count_tokens(asked), strict=True)
    most = opened.engine.context_length // _SHARE_OF_CONTEXT
    fitting = [task for task, length in lengths if length <= most]
    prompts = ranked(fitting, config.seed, lambda task: task.id)
    found: list[TrainingRow] = []
    began, tokens = time.monotonic(), 0
    for start in range(0, len(prompts), BATCH):
        missing = wanted - len(found)
        if missing <= 0:
            break
        few = prompts[start : start + BATCH]
        completions = journal.ask([_request(opened, config, task) for task in few], None)
        tokens += sum(completion.completion_tokens for completion in completions)
        found += _rows(opened, config, few, completions)[:missing]
        seconds = time.monotonic() - began
        done = ProgressUpdate(_STAGE, len(found), wanted, 0, Counter(), tokens, seconds)
        opened.progress(done)
    if len(found) < wanted:
        opened.progress.warn(
            f"{wanted} rows of replay are wanted (training.mix.replay), but {len(prompts)} prompts "
            f"gave {len(found)}; name more in training.replay_prompts"
        )
    return found


def _request(opened: OpenedRun, config: Config, task: SeedTask) -> Request:
    """A question as the base is asked elsewhere: few-shot, or in its own chat template."""
    given, pack, most = task.instances[0].input, opened.pack, config.evaluation.max_tokens
    stop: tuple[str, ...] = ()
    if config.generation.style in ("chat", "magpie"):
        prompt: str = chat_answer((), task.instruction, given, opened.chat).text
    else:
        asked = few_shot_prompt(pack.wording, pack.input_first, task.instruction, given)
        prompt = fit_prompt(opened.engine, asked, most)[0].text
        stop = pack.wording.few_shot_stop
    return Request(f"{_STAGE}-{task.id}", prompt, Sampling(max_tokens=most, stop=stop))


def _rows(
    opened: OpenedRun,
    config: Config,
    prompts: Sequence[SeedTask],
    completions: Sequence[StoredCompletion],
) -> list[TrainingRow]:
    wording, language = opened.pack.wording, language_test(opened.pack.rules.language)
    found = []
    for task, completion in zip(prompts, completions, strict=True):
        instance = Instance(input=task.instances[0].input, output=completion.text.strip())
        repeats = config.generation.filters.max_repeats
        fault = check_instance(task.instruction, instance, repeats, wording, language)
        if completion.finish_reason == "length" or fault is not None:
            continue
        found.append(
            TrainingRow(
                id=f"{_STAGE}-{task.id}",
                source="replay",
                instruction=task.instruction,
                input=instance.input,
                output=instance.output,
                is_classification=task.is_classification,
            )
        )
    return found
