"""Laws of the in-process engine, held against ``generate`` of transformers."""

import random
from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, get_peft_model

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.local import transformers as engine_module
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.load import LoadedModel
from selfinstruct_train.records import Sampling

EVERY = ["llama", "qwen2", "qwen2-windows", "qwen3", "mistral", "gemma2", "gemma3_text"]
EVERY += ["gpt2", "gpt_neox", "opt", "bloom"]
# Their scores are capped or biased, which sdpa of transformers cannot do.
NO_SDPA = ["gemma2", "bloom"]
PREFIX = "Here is the test. Ab abc, the best of the rest.\n\n"
WORDS = ["the", "abc", "Ünï", "st.", "\n\n", "x", "日本", "rest of", "?"]


def engine(loaded: LoadedModel, size: int = 4) -> TransformersEngine:
    return TransformersEngine(loaded, EngineConfig(max_batch_size=size))


def prompts(count: int, prefix: str = "") -> list[str]:
    rng = random.Random(1)
    return [prefix + " ".join(rng.choices(WORDS, k=1 + i % 5)) for i in range(count)]


def requests(texts: Sequence[str], **sampling: object) -> list[Request]:
    return [
        Request(f"q{i}", text, Sampling(**{"max_tokens": 4 + 5 * (i % 4), "seed": i} | sampling))
        for i, text in enumerate(texts)
    ]


def answers(*args: object) -> dict[str, Completion]:
    return {c.id: c for c in engine(args[0], *args[2:3]).generate(args[1], *args[3:4])}


def tokens(*args: object) -> list[tuple[int, ...]]:
    found = answers(*args)
    return [found[request.id].token_ids for request in args[1]]


def by_generate(loaded: LoadedModel, request: Request) -> tuple[int, ...]:
    ids = torch.tensor([loaded.tokenizer(request.prompt)["input_ids"]])
    output = loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=request.sampling.max_tokens,
        repetition_penalty=request.sampling.repetition_penalty,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )[0, ids.shape[1] :].tolist()
    eos = loaded.tokenizer.eos_token_id
    return tuple(output[: output.index(eos)] if eos in output else output)


def differences(loaded: LoadedModel, asked: Sequence[Request], *args: object) -> list[str]:
    found = answers(loaded, asked, *args)
    return [r.id for r in asked if found[r.id].token_ids != by_generate(loaded, r)]


@pytest.mark.parametrize(
    ("architecture", "attention"),
    [(a, b) for a in EVERY for b in ("sdpa", "eager") if b == "eager" or a not in NO_SDPA],
)
def test_greedy_text_equals_generate_with_and_without_a_shared_prefix(
    make_loaded, architecture, attention
):
    loaded = make_loaded(architecture, attention)
    assert not differences(loaded, requests(prompts(4)), 2)
    assert not differences(loaded, requests(prompts(4, PREFIX)), 3)


def in_bfloat16(loaded: LoadedModel) -> LoadedModel:
    return loaded._replace(model=loaded.model.bfloat16(), dtype=torch.bfloat16)


@pytest.mark.parametrize("architecture", ["llama", "qwen2-windows", "gemma3_text", "gpt2"])
def test_in_bfloat16_what_is_written_is_as_likely_as_the_likeliest_but_for_rounding(
    make_loaded, architecture
):
    loaded = in_bfloat16(make_loaded(architecture, "eager"))
    assert engine(loaded)._most_at_once()
    asked = requests(prompts(6, PREFIX))
    found = answers(loaded, asked)
    exact = in_bfloat16(make_loaded(architecture, "eager")).model.float()
    gaps = []
    for request in asked:
        prompt, written = loaded.tokenizer(request.prompt)["input_ids"], found[request.id].token_ids
        with torch.no_grad():
            logits = exact(torch.tensor([[*prompt, *written]])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(written)[:, None])[:, 0]
        gaps.append((logits.amax(-1) - chosen) / logits.std(-1))
    assert torch.cat(gaps).max() < 0.25


def test_in_bfloat16_a_model_that_cannot_share_attention_is_still_told(make_loaded):
    assert not engine(in_bfloat16(make_loaded("bloom", "eager")))._most_at_once()


@pytest.mark.parametrize("architecture", [name for name in EVERY if name != "bloom"])
def test_every_usual_architecture_is_answered_together(make_loaded, architecture):
    assert engine(make_loaded(architecture, "eager"))._most_at_once()


def test_a_model_that_cannot_share_attention_is_answered_alone(make_loaded):
    assert not engine(make_loaded("bloom", "eager"))._most_at_once()


def test_a_model_that_hides_its_window_is_answered_alone(make_loaded):
    loaded = make_loaded()
    loaded.model.config.sliding_window = 8
    assert not engine(loaded)._most_at_once()


def test_a_model_left_in_training_mode_writes_the_same(make_loaded):
    loaded = make_loaded("gpt2", resid_pdrop=0.5)
    asked = requests(prompts(4))
    expected = tokens(loaded, asked)
    one = engine(loaded)
    one._most_at_once()
    loaded.model.train()
    assert [c.token_ids for c in sorted(one.generate(asked), key=lambda c: c.id)] == expected


def test_greedy_text_with_a_repetition_penalty_equals_generate(make_loaded):
    asked = requests(prompts(10, PREFIX), repetition_penalty=1.3)
    assert not differences(make_loaded(), asked, 4)


SAMPLINGS = [{"top_p": 0.8}, {"top_k": 5}, {"top_p": 0.9, "top_k": 20}, {"repetition_penalty": 1.2}]


def test_seeds_hold_whatever_the_batch(make_loaded):
    loaded = make_loaded()
    asked = [
        Request(
            f"q{i}",
            text,
            Sampling(max_tokens=3 + i % 7, temperature=1.2, seed=i, **SAMPLINGS[i % 4]),
        )
        for i, text in enumerate(prompts(24, PREFIX))
    ]
    texts = [tokens(loaded, asked, size) for size in (1, 4, 24)]
    assert texts[0] == texts[1] == texts[2]
    one = engine(loaded)
    alone = [next(iter(one.generate([r]))).token_ids for r in asked[:8]]
    assert alone == texts[0][:8]
    assert len(set(texts[0])) > 20
    reseeded = [r.sampling.model_copy(update={"seed": 99 + i}) for i, r in enumerate(asked)]
    other = [r._replace(sampling=s) for r, s in zip(asked, reseeded, strict=True)]
    assert tokens(loaded, other, 24) != texts[0]


def test_the_same_requests_give_the_same_bits_whatever_was_asked_before(make_loaded):
    loaded = make_loaded()
    asked = requests(prompts(12, PREFIX), temperature=1.0)
    fresh = list(engine(loaded).generate(asked))
    used = engine(loaded)
    list(used.generate(requests(prompts(9, PREFIX[:40] + "other"))))
    list(used.generate(requests(prompts(9, PREFIX))))
    assert list(used.generate(asked)) == fresh


def test_adapters_switch_on_and_off(make_loaded, tmp_path):
    loaded = make_loaded()
    asked = requests(prompts(6, PREFIX))
    base = answers(loaded, asked)
    tuned = get_peft_model(loaded.model, LoraConfig(r=2, target_modules="all-linear"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    expected = {r.id: by_generate(loaded, r) for r in asked}
    tuned.unload()
    one = engine(loaded)
    for _ in range(2):
        assert {c.id: c.token_ids for c in one.generate(asked, tmp_path / "adapter")} == expected
        assert {c.id: c for c in one.generate(asked)} == base
    assert expected != {key: c.token_ids for key, c in base.items()}
    scores = [one.score(PREFIX, ["a", "b"], ["c"], path) for path in (None, tmp_path / "adapter")]
    assert scores[0] != scores[1]


def test_a_stop_string_ends_the_text_wherever_tokens_part_it(make_loaded):
    loaded = make_loaded()
    one = engine(loaded, 24)
    text = prompts(1)[0]
    tries = one.generate(requests([text] * 8, max_tokens=60, temperature=1.0))
    free = max(tries, key=lambda completion: len(completion.text))
    seed = int(free.id[1:])
    starts = [i for i in range(1, len(free.text) - 3) if "\ufffd" not in free.text[i : i + 3]]
    stops = {f"q{i}": free.text[i : i + 3] for i in starts}
    asked = [
        Request(
            key, text, Sampling(max_tokens=60, temperature=1.0, stop=("\x00\x00", stop), seed=seed)
        )
        for key, stop in stops.items()
    ]
    assert len(asked) >= 5
    for done in one.generate(asked):
        stop = stops[done.id]
        assert done.text == free.text[: free.text.index(stop)]
        assert done.finish_reason == "stop"
        assert done.token_ids == free.token_ids[: done.completion_tokens]
        assert stop in loaded.tokenizer.decode(list(done.token_ids))
        assert stop not in loaded.tokenizer.decode(list(done.token_ids[:-1]))


def test_a_text_is_the_tokens_read_together_and_no_character_is_torn(make_loaded):
    loaded = make_loaded()
    torn = 0
    for done in answers(loaded, requests(prompts(24), temperature=2.0, max_tokens=7), 24).values():
        whole = loaded.tokenizer.decode(list(done.token_ids))
        assert done.text == whole.rstrip("\ufffd")
        torn += whole != done.text
    assert torn


def test_the_end_token_is_not_part_of_the_completion(make_loaded):
    loaded = make_loaded()
    eos = loaded.tokenizer.eos_token_id
    found = answers(loaded, requests(prompts(40), temperature=3.0, max_tokens=40), 40)
    ended = [c for c in found.values() if c.finish_reason == "eos"]
    assert ended
    assert all(eos not in c.token_ids and len(c.token_ids) < 40 for c in ended)
    assert all(c.completion_tokens == len(c.token_ids) for c in found.values())


@torch.no_grad()
def test_mean_logprob_is_that_of_the_model_and_score_agrees(make_loaded):
    loaded = make_loaded()
    asked = requests(prompts(6, PREFIX), temperature=1.0, top_k=9, repetition_penalty=1.2)
    for request in asked:
        done = answers(loaded, [request])[request.id]
        prompt = loaded.tokenizer(request.prompt)["input_ids"]
        logits = loaded.model(torch.tensor([prompt + list(done.token_ids)])).logits[0]
        table = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        expected = table[range(len(done.token_ids)), list(done.token_ids)].mean()
        assert done.mean_logprob == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("architecture", EVERY)
def test_scores_equal_those_of_a_plain_pass(make_loaded, architecture):
    loaded = make_loaded(architecture, "eager")
    suffixes, continuations = prompts(7), [" Yes", " No", "x", "abc the"]
    scores = engine(loaded).score(PREFIX, suffixes, continuations)
    for suffix, row in zip(suffixes, scores, strict=True):
        for text, score in zip(continuations, row, strict=True):
            whole = loaded.tokenizer(PREFIX + suffix + text)["input_ids"]
            start = len(loaded.tokenizer(PREFIX + suffix)["input_ids"])
            table = loaded.model(torch.tensor([whole])).logits[0].log_softmax(-1)
            expected = sum(float(table[i - 1, whole[i]]) for i in range(start, len(whole)))
            assert score == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def test_a_continuation_that_merges_with_the_prompt_is_scored_from_a_common_place(make_loaded):
    loaded = make_loaded()
    first, second = engine(loaded).score("the a", [""], ["bc", "x"])[0]
    ids = [loaded.tokenizer(text)["input_ids"] for text in ("the abc", "the ax")]
    tables = [loaded.model(torch.tensor([i])).logits[0].log_softmax(-1) for i in ids]
    start = len(loaded.tokenizer("the ")["input_ids"])
    for found, row, table in zip((first, second), ids, tables, strict=True):
        expected = sum(float(table[i - 1, row[i]]) for i in range(start, len(row)))
        assert found == pytest.approx(expected, abs=1e-3)


def test_an_empty_prompt_is_continued_and_no_request_is_no_work(make_loaded):
    loaded = make_loaded()
    done = answers(loaded, requests(["", "a"]))
    assert done["q0"].prompt_tokens == 1
    assert done["q0"].completion_tokens > 0
    assert answers(loaded, []) == {}
    assert engine(loaded).score("a", [], ["b"]) == []


def test_a_prompt_beyond_the_context_is_refused_by_name_and_alone(make_loaded):
    loaded = make_loaded()
    asked = requests(["fine", "x" * 128, "x" * 125, "fine too"], max_tokens=50)
    found: list[Completion] = []
    with pytest.raises(EngineError, match="request q1: its prompt of 128 tokens leaves no room"):
        for completion in engine(loaded).generate(asked):
            found.append(completion)
    assert {c.id for c in found} == {"q0", "q2", "q3"}
    assert next(c for c in found if c.id == "q2").completion_tokens <= 3
    with pytest.raises(EngineError, match="the context has 128"):
        engine(loaded).score("x" * 100, ["x" * 28], [" Yes"])


def test_memory_decides_the_slots_and_what_never_fits_is_refused_alone(make_loaded, monkeypatch):
    loaded = make_loaded()
    asked = [*requests(prompts(6, PREFIX), max_tokens=10), *requests(["ab"], max_tokens=120)]
    asked[-1] = asked[-1]._replace(id="large")
    wanted = {r.id: by_generate(loaded, r) for r in asked}
    one = engine(loaded)
    one._most_at_once()
    small = 100 * one._runner.token_bytes
    free = int(small / 0.6)
    monkeypatch.setattr(engine_module, "free_memory", lambda _: free - one._runner.kept_bytes)
    found: list[Completion] = []
    with pytest.raises(EngineError, match="request large: its 12. tokens need more memory"):
        for completion in one.generate(asked):
            found.append(completion)
    assert {c.id: c.token_ids for c in found} == {k: v for k, v in wanted.items() if k != "large"}


def test_running_out_of_memory_halves_the_slots_and_loses_nothing(make_loaded, monkeypatch):
    loaded = make_loaded()
    asked = requests(prompts(20, PREFIX), temperature=1.0)
    expected = answers(loaded, asked)
    one = engine(loaded, 16)
    one._most_at_once()
    sizes = []
    step = one._runner.step

    def tight(slots, *args):
        sizes.append(slots.count)
        if slots.count > 3:
            raise torch.OutOfMemoryError("full")
        return step(slots, *args)

    monkeypatch.setattr(one._runner, "step", tight)
    found = {c.id: c for c in one.generate(asked)}
    assert {k: c.token_ids for k, c in found.items()} == {
        k: c.token_ids for k, c in expected.items()
    }
    assert sorted(set(sizes), reverse=True) == [16, 8, 4, 2]


@pytest.mark.parametrize(("failures", "most"), [(1, 4), (2, 2), (3, 1), (9, 0)])
def test_memory_short_at_the_first_trial_halves_the_batch_and_is_said(
    failures, most, make_loaded, monkeypatch
):
    loaded = make_loaded()
    asked = requests(prompts(12, PREFIX))
    expected = {k: c.token_ids for k, c in answers(loaded, asked).items()}
    told = []
    one = TransformersEngine(loaded, EngineConfig(max_batch_size=8), told.append)
    works, step = one._runner.works, one._runner.step
    left = [failures]
    counts = []

    def short():
        left[0] -= 1
        if left[0] >= 0:
            raise torch.OutOfMemoryError("full")
        return works()

    def counted(slots, prefix, tokens, *args):
        counts.append(len(tokens))
        return step(slots, prefix, tokens, *args)

    monkeypatch.setattr(one._runner, "works", short)
    monkeypatch.setattr(one._runner, "step", counted)
    assert {c.id: c.token_ids for c in one.generate(asked)} == expected
    # The trial itself takes two rows.
    assert max(counts[2:], default=0) == most
    sizes = [8, 4, 2, 1][: failures + 1]
    assert [line.partition(";")[0] for line in told] == [
        f"out of memory: going on with {b} in place of {a} at once"
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]
    left[0] = 0
    counts.clear()
    assert {c.id: c.token_ids for c in one.generate(asked)} == expected
    assert max(counts) == 8


def test_other_errors_are_not_taken_for_lack_of_memory(make_loaded, monkeypatch):
    one = engine(make_loaded())
    one._most_at_once()

    def broken(*args):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(one._runner, "step", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(one.generate(requests(["a"])))
