"""Laws of drawing a token: the distribution of transformers, from one number per seed and step."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from selfinstruct_train.engines.local import sampling as module
from selfinstruct_train.engines.local.prefixes import group_by_beginning, shared_length
from selfinstruct_train.engines.local.sampling import Chooser, uniform
from selfinstruct_train.records import Sampling

CPU = torch.device("cpu")
ROWS, VOCABULARY = 400, 600
SETTINGS = [
    {"top_p": 0.9},
    {"top_k": 7},
    {"top_k": 20, "top_p": 0.6},
    {"top_k": 300, "top_p": 0.99},
    {"temperature": 3.0, "top_p": 0.97},
    {"repetition_penalty": 1.7},
    {},
]


def by_transformers(scores: torch.Tensor, seen: torch.Tensor, s: Sampling) -> torch.Tensor:
    steps = [
        RepetitionPenaltyLogitsProcessor(s.repetition_penalty),
        TemperatureLogitsWarper(s.temperature),
    ]
    steps += [TopKLogitsWarper(s.top_k)] if s.top_k else []
    steps += [TopPLogitsWarper(s.top_p)] if s.top_p < 1 else []
    return LogitsProcessorList(steps)(seen, scores).softmax(-1)


@pytest.mark.parametrize("settings", SETTINGS)
def test_tokens_follow_the_distribution_of_transformers(settings):
    torch.manual_seed(0)
    logits = torch.randn(1, VOCABULARY) * 2
    seen = torch.randint(0, VOCABULARY, (1, 30))
    samplings = [
        Sampling(**{"max_tokens": 1, "temperature": 0.8, "seed": i} | settings) for i in range(ROWS)
    ]
    expected = by_transformers(logits, seen, samplings[0])[0].double()
    many = logits.expand(ROWS, -1), seen.expand(ROWS, -1)
    choice = Chooser(samplings, CPU).choose(*many, [5] * ROWS)
    reached = expected.cumsum(0)
    for i, token in enumerate(choice.tokens):
        # The token whose share of the line from 0 to 1, in token order, holds the number of this
        # seed and step.
        u = uniform(i, 5)
        assert reached[token] - expected[token] - 1e-5 <= u <= reached[token] + 1e-5
        assert expected[token] > 0
    assert choice.logprobs == pytest.approx(
        logits[0].log_softmax(-1)[choice.tokens].tolist(), abs=1e-5
    )


def test_a_first_look_at_the_likeliest_tokens_changes_no_choice(monkeypatch):
    torch.manual_seed(1)
    logits = torch.randn(ROWS, VOCABULARY) * torch.linspace(0.1, 4, ROWS)[:, None]
    samplings = [Sampling(max_tokens=1, temperature=1.0, top_p=0.9, seed=i) for i in range(ROWS)]
    seen = torch.zeros(ROWS, 1, dtype=torch.long)
    chooser = Chooser(samplings, CPU)
    full = chooser.choose(logits, seen, [0] * ROWS).tokens
    for look in (1, 30, VOCABULARY):
        monkeypatch.setattr(module, "_FIRST_LOOK", look)
        assert chooser.choose(logits, seen, [0] * ROWS).tokens == full


def test_rows_of_one_batch_keep_their_own_settings():
    torch.manual_seed(2)
    logits = torch.randn(len(SETTINGS) + 1, VOCABULARY)
    samplings = [Sampling(**{"max_tokens": 1, "temperature": 0.9, "seed": 3} | s) for s in SETTINGS]
    samplings.append(Sampling(max_tokens=1))
    seen = torch.randint(0, VOCABULARY, (len(samplings), 9))
    together = Chooser(samplings, CPU).choose(logits, seen, [4] * len(samplings)).tokens
    apart = [
        Chooser([s], CPU).choose(logits[i : i + 1], seen[i : i + 1], [4]).tokens[0]
        for i, s in enumerate(samplings)
    ]
    assert together == apart
    assert together[-1] == int(logits[-1].argmax())


def test_the_numbers_of_seeds_and_steps_are_spread_evenly_and_differ():
    numbers = [uniform(seed, step) for seed in range(100) for step in range(100)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= u < 1 for u in numbers)
    tenths = [sum(int(u * 10) == i for u in numbers) for i in range(10)]
    assert min(tenths) > 850
    assert max(tenths) < 1150
    assert uniform(2**63, 0) != uniform(0, 0)


def test_a_shared_beginning_leaves_each_prompt_its_last_token():
    common = list(range(50))
    assert shared_length([[*common, 7], [*common, 8, 9]]) == 50
    assert shared_length([common, [*common, 8]]) == 49
    assert shared_length([common]) == 0
    assert shared_length([common[:20], common[:20]]) == 0


def test_strays_do_not_cost_the_others_their_shared_beginning():
    alike = [[*range(100), 200 + i] for i in range(6)]
    stray = [*range(40), 300]
    assert group_by_beginning([*alike[:3], stray, *alike[3:]]) == [[0, 1, 2, 4, 5, 6], [3]]
    assert group_by_beginning([[i, *range(50)] for i in range(9)]) == [list(range(9))]
    assert group_by_beginning([[1]]) == [[0]]
