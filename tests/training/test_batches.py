"""Laws of the micro-batches: the seed alone says what a step has, and less of it is padding."""

from __future__ import annotations

import random
from itertools import chain, combinations, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingRow, TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.batches import StepBatches, least_padding
from selfinstruct_train.training.launcher import Batching
from selfinstruct_train.training.sft import train

drawn = random.Random(1)
LENGTHS = [drawn.choice([5, 9, 20, 60]) for _ in range(75)]
"""Of four steps of sixteen rows, and one of eleven."""


def epoch(
    micro: int, processes: int = 1, done: int = 0, lengths: list[int] = LENGTHS
) -> list[list[int]]:
    batching = Batching(micro, 16 // (micro * processes))
    batches = StepBatches(lengths, batching, processes, 3, lambda: done)
    found = list(batches)
    assert len(found) == len(batches)
    return found


def steps(micro: int, processes: int) -> list[set[int]]:
    found = epoch(micro, processes)
    each = 16 // micro
    return [set(chain.from_iterable(found[i : i + each])) for i in range(0, len(found), each)]


def padding(batches: list[list[int]]) -> float:
    computed = sum(len(rows) * max(LENGTHS[row] for row in rows) for rows in batches)
    return 1 - sum(LENGTHS) / computed


@pytest.mark.parametrize(("micro", "processes"), [(16, 1), (4, 1), (1, 1), (4, 2), (2, 4), (1, 16)])
def test_every_step_has_the_rows_of_a_permutation_and_an_epoch_has_each_once(
    micro: int, processes: int
) -> None:
    order = torch.randperm(75, generator=torch.Generator().manual_seed(3)).tolist()
    assert steps(micro, processes) == [set(order[i : i + 16]) for i in range(0, 75, 16)]
    found = epoch(micro, processes)
    assert sorted(chain.from_iterable(found)) == list(range(75))
    # Each process has as many micro-batches; empty are those alone for which no row is left.
    assert len(found) % processes == 0
    last = [bool(rows) for rows in found[4 * 16 // micro :]]
    assert last == [True] * min(len(last), 11) + [False] * (len(last) - 11)


def test_another_epoch_has_another_order_and_a_resumed_one_the_same() -> None:
    assert epoch(4, done=0) == epoch(4, done=4) != epoch(4, done=5) == epoch(4, done=9)


def test_rows_of_like_length_go_together_so_less_is_padding() -> None:
    order = torch.randperm(75, generator=torch.Generator().manual_seed(3)).tolist()
    as_drawn = [order[i : i + 4] for i in range(0, 75, 4)]
    assert padding(epoch(4)) < 0.5 * padding(as_drawn)
    # One micro-batch is the step: nothing to choose, and its order stays as drawn.
    assert epoch(16) == [order[i : i + 16] for i in range(0, 75, 16)]


def cuts(rows: int, count: int) -> list[tuple[int, ...]]:
    """All ways to cut so many rows into micro-batches that are not empty."""
    return [(*ends, rows) for ends in combinations(range(1, rows), min(count, rows) - 1)]


def tokens(lengths: list[int], ends: tuple[int, ...]) -> list[int]:
    return [(stop - start) * lengths[start] for start, stop in pairwise((0, *ends)) if stop > start]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=9), st.integers(1, 6))
def test_no_way_to_cut_a_step_pads_less_within_the_memory_of_equal_pieces(
    lengths: list[int], count: int
) -> None:
    lengths.sort(reverse=True)
    most = -(-len(lengths) // count) * lengths[0]
    ends = least_padding(lengths, count)
    assert len(ends) == count and max(tokens(lengths, ends)) <= most
    allowed = [t for t in (tokens(lengths, c) for c in cuts(len(lengths), count)) if max(t) <= most]
    assert sum(tokens(lengths, ends)) == min(map(sum, allowed))


def test_a_large_step_is_cut_in_halves_within_the_same_memory() -> None:
    lengths = sorted((drawn.randint(10, 400) for _ in range(1000)), reverse=True)
    ends = least_padding(lengths, 128)
    equal = [min(1000, 8 * (i + 1)) for i in range(128)]
    assert len(ends) == 128 and ends[-1] == 1000 and list(ends) == sorted(ends)
    assert max(tokens(lengths, ends)) <= 8 * lengths[0]
    assert sum(tokens(lengths, ends)) < sum(tokens(lengths, tuple(equal)))


def uneven(small: ModuleType) -> list[TrainingRow]:
    return [
        row.model_copy(update={"input": "x" * (7 * i % 40), "output": "y" * (1 + 5 * i % 13)})
        for i, row in enumerate(small.rows(14))
    ]


def tune(small: ModuleType, path: Path, micro: int, **options: Any) -> Path:
    changed = {"lora_dropout": 0.0, "max_steps": None, "epochs": 2.0, "save_steps": 1}
    config = small.settings(batch_size=8, micro_batch_size=micro, **changed)
    result = train(
        small.loaded_model(), uneven(small), config, RoundDirectory(path),
        answers=load_answers("en"), seed=1, world=ALONE, **options,
    )  # fmt: skip
    return Path(result.tuned) / "adapter_model.safetensors"


def test_steps_in_small_pieces_teach_what_whole_ones_do_and_are_gone_on_with(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfinstruct_train.training import arguments

    monkeypatch.setattr(arguments, "has_fast_bf16", lambda device: False)
    whole = load_file(tune(small, tmp_path / "whole", 8))
    pieces = tune(small, tmp_path / "pieces", 2)
    for name, weight in load_file(pieces).items():
        assert (weight - whole[name]).norm() < 1e-3 * whole[name].norm(), name

    def stop(row: TrainingStep, total: int) -> None:
        assert total == 4
        if row.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small, tmp_path / "stopped", 2, on_step=stop)
    assert tune(small, tmp_path / "stopped", 2).read_bytes() == pieces.read_bytes()
