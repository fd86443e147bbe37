"""Requests beyond steps 1 to 3: own texts, answers written again, labels, replay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from selfinstruct_train.config import Config
from selfinstruct_train.planning.expected import Expected
from selfinstruct_train.planning.further_sizes import FurtherSizes
from selfinstruct_train.planning.sizes import TextSizes
from selfinstruct_train.planning.workload import (
    Asked,
    Kind,
    accepted_by_round,
    add_up,
    of_texts,
)
from selfinstruct_train.rounds.replay import BATCH


def further_work(
    config: Config,
    expected: Expected,
    sizes: TextSizes,
    per_list: int,
    further: FurtherSizes,
    replayed: Sequence[float],
) -> tuple[Asked, ...]:
    """Requests beyond steps 1 to 3 over all rounds, of those that the config asks for.

    Args:
        config: the settings, their style settled.
        expected: what the model yields.
        sizes: measured lengths.
        per_list: see `room`.
        further: measured lengths of what is asked beyond these steps.
        replayed: rows of replay that each training wants.
    """
    generation, rounds = config.generation, config.rounds
    texts = of_texts(config, expected, further.passages)
    accepted = accepted_by_round(config, expected, per_list, texts)
    slots, found = generation.engine.max_batch_size, []
    if (known := further.passages) is not None:
        step = generation.passages
        requests = float(sum(one.passages for one in texts) * len(step.tasks))
        kinds: list[Kind] = [(requests, known.prompt, known.written)]
        together = min(slots, step.requests_per_batch)
        found.append(add_up("passages", kinds, rounds, together, step.max_tokens))
    if further.arbiter is not None:
        third = generation.instances
        each = min(expected.kept_instances, third.max_per_instruction)
        judged = sum(accepted) * each
        wrong = judged * expected.held_wrong
        kinds = [
            (judged + wrong + further.arbiter.always * rounds, further.arbiter.prompt, 0.0),
            (wrong, sizes.answer, min(sizes.output, third.max_tokens)),
        ]
        together = min(slots, third.requests_per_batch)
        found.append(add_up("fixing", kinds, rounds, together, third.max_tokens))
    if further.labels:
        instructions = sum(accepted) + sum(one.kept for one in texts)
        kinds = [(instructions + one.always * rounds, one.prompt, 0.0) for one in further.labels]
        together = min(slots, generation.classification.requests_per_batch)
        found.append(add_up("labels", kinds, rounds, together, 0))
    if (replay := further.replay) is not None:
        most = config.evaluation.max_tokens
        # They are asked in whole batches until there are as many answers as are wanted.
        batches = [math.ceil(rows / expected.kept_of_replay / BATCH) for rows in replayed]
        requests = float(sum(min(replay.number, count * BATCH) for count in batches))
        kinds = [(requests, replay.prompt, min(sizes.output, most))]
        found.append(add_up("replay", kinds, len(replayed), min(slots, BATCH), most))
    return tuple(found)


def assumptions(config: Config, expected: Expected) -> Iterator[str]:
    """What a plan takes for granted because nothing was measured.

    Args:
        config: the settings.
        expected: says which of its figures are of no run.
    """
    generation, mix = config.generation, config.training.mix
    if config.generates and generation.texts is not None:
        if "kept_of_texts" in expected.assumed:
            yield (
                f"{expected.kept_of_texts:.0%} of what is written for passages is kept "
                "(SmolLM2-135M, docs/log.md)"
            )
        yield "instructions for passages are as long as those of the pack"
    if config.generates and generation.instances.fix and "held_wrong" in expected.assumed:
        yield (
            f"the arbiter holds {expected.held_wrong:.0%} of answers wrong, and "
            f"{expected.right_again:.0%} of these right when they are written again"
        )
    if config.generates and generation.augment.share:
        yield "results of operations are kept as often as items of lists, and as long"
    if mix is not None and mix.replay:
        yield (
            f"{expected.kept_of_replay:.0%} of the answers to prompts of replay are kept, and they "
            "are as long as those of the seeds"
        )
