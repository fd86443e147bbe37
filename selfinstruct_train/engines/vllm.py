"""vLLM's offline engine, on GPUs: a thin layer that speaks the Engine protocol."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.distributed import join_world
from selfinstruct_train.engines.base import Completion, Request, followed_by
from selfinstruct_train.engines.local.prefixes import agreement
from selfinstruct_train.errors import ConfigError, EngineError
from selfinstruct_train.models.adapters import vllm_ranks
from selfinstruct_train.records import Sampling


class VllmSampling(NamedTuple):
    """Sampling in vLLM's words: the arguments of its SamplingParams."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    stop: list[str]
    seed: int
    logprobs: int | None = 0
    """0 asks for the chosen token's alone."""
    allowed_token_ids: list[int] | None = None
    """The only tokens that may be drawn; log-probabilities are those of before this rule."""


def vllm_sampling(sampling: Sampling, room: int) -> VllmSampling:
    """Translate the settings of a request.

    Args:
        sampling: what the request asks for.
        room: tokens that the context has left beside the prompt.
    """
    return VllmSampling(
        max_tokens=min(sampling.max_tokens, room),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or -1,
        repetition_penalty=sampling.repetition_penalty,
        stop=list(sampling.stop),
        seed=sampling.seed,
    )


class VllmEngine:
    """Starts vLLM when it is first asked, and again after `close`."""

    independent_requests = False

    def __init__(
        self,
        config: EngineConfig,
        model_id: str,
        context_length: int,
        encode: Callable[[Sequence[str]], list[list[int]]],
        *,
        source: str,
        revision: str | None,
        dtype: str,
        lora_rank: int,
    ) -> None:
        """Note the settings; no memory is taken yet.

        Args:
            config: memory share, batch size, tensor parallel size.
            model_id: name of the base model, for provenance.
            context_length: most tokens of prompt and completion together.
            encode: the model's tokenizer; texts -> token ids as prompts.
            source: hub name or folder of the weights.
            revision: hub revision.
            dtype: precision by its torch name.
            lora_rank: highest rank of an adapter.
        """
        self._config = config
        self.model_id = model_id
        self.context_length = context_length
        self._encode = encode
        self._source = source
        self._revision = revision
        self._dtype = dtype
        self._lora_rank = vllm_ranks(lora_rank)
        self._adapters: dict[tuple[Path, int], int] = {}
        self._llm: Any = None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a prompt, special tokens included."""
        return [len(tokens) for tokens in self._encode(texts)] if texts else []

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield one completion per request, after all are finished.

        Raises:
            ConfigError: there are several processes.
            EngineError: a prompt leaves no room in the context, or vLLM cannot start.
        """
        if not requests:
            return
        prompts = self._encode([request.prompt for request in requests])
        settings = []
        for request, prompt in zip(requests, prompts, strict=True):
            if (room := self.context_length - len(prompt)) < 1:
                raise EngineError(
                    f"request {request.id}: its prompt of {len(prompt)} tokens leaves no room in "
                    f"the context of {self.context_length} tokens; shorten it"
                )
            settings.append(vllm_sampling(request.sampling, room))
        outputs = self._ask(prompts, settings, adapter)
        for request, prompt, output in zip(requests, prompts, outputs, strict=True):
            yield _completion(request, len(prompt), output.outputs[0])

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """Log-probability of each continuation after ``prefix + suffix``.

        Raises:
            EngineError: a prompt does not fit the context, or vLLM cannot start.
        """
        prompts: list[list[int]] = []
        settings: list[VllmSampling] = []
        lengths: list[int] = []
        one = vllm_sampling(Sampling(max_tokens=1), 1)
        for suffix in suffixes:
            prompt = prefix + suffix if prefix else suffix
            given, *longer = self._encode(
                [prompt, *(followed_by(prompt, text) for text in continuations)]
            )
            # Where a token straddles the end of the prompt, it is scored too, for all
            # continuations.
            shared = min((agreement(given, whole) for whole in longer), default=0)
            for whole, text in zip(longer, continuations, strict=True):
                if not 0 < shared < len(whole) <= self.context_length:
                    raise EngineError(
                        f"a prompt and its continuation {text!r} take {len(whole)} tokens, the "
                        f"first {shared} of them before the continuation; the context has "
                        f"{self.context_length}: shorten the prompt, or use another continuation"
                    )
                # Each token is written after those before it. Asking for the log-probabilities of
                # a prompt would keep vLLM from its prefix cache.
                prompts += [whole[:place] for place in range(shared, len(whole))]
                settings += [one._replace(allowed_token_ids=[token]) for token in whole[shared:]]
                lengths.append(len(whole) - shared)
        outputs = self._ask(prompts, settings, adapter) if prompts else []
        found = [_logprobs(output.outputs[0])[0] for output in outputs]
        ends = list(accumulate(lengths, initial=0))
        sums = [math.fsum(found[a:b]) for a, b in pairwise(ends)]
        width = len(continuations)
        return [sums[i * width : (i + 1) * width] for i in range(len(suffixes))]

    def close(self) -> None:
        """Stop vLLM and give its memory back; training needs it."""
        if self._llm is None:
            return
        import torch

        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()
        torch.cuda.empty_cache()

    def _ask(
        self,
        prompts: Sequence[list[int]],
        settings: Sequence[VllmSampling],
        adapter: Path | None,
    ) -> list[Any]:
        if self._llm is None:
            self._llm = self._start()
        outputs: list[Any] = self._llm.generate(
            [{"prompt_token_ids": tokens} for tokens in prompts],
            [SamplingParams(**setting._asdict()) for setting in settings],
            use_tqdm=False,
            lora_request=None if adapter is None else self._lora(adapter),
        )
        return outputs

    def _start(self) -> Any:
        if join_world().size > 1:
            raise ConfigError(
                "generation.engine.kind: 'vllm' spreads over GPUs by itself, see "
                "generation.engine.tensor_parallel_size; run 'selfinstruct generate' without "
                "'accelerate launch', or set kind to server"
            )
        try:
            return LLM(
                model=self._source,
                revision=self._revision,
                dtype=self._dtype,
                trust_remote_code=False,
                load_format="safetensors",
                tensor_parallel_size=self._config.tensor_parallel_size,
                gpu_memory_utilization=self._config.memory_fraction,
                max_num_seqs=self._config.max_batch_size,
                max_model_len=self.context_length,
                enable_prefix_caching=True,
                enable_lora=True,
                max_lora_rank=self._lora_rank,
            )
        except Exception as error:  # missing GPUs, memory and unknown models come as many classes
            detail = " ".join(str(error).split())[:300]
            raise EngineError(
                f"generation.engine: vLLM cannot start with {self._source} ({detail}); lower "
                "generation.engine.memory_fraction, or set generation.engine.kind to transformers"
            ) from error

    def _lora(self, adapter: Path) -> Any:
        # An adapter that was trained again under the same name is another adapter.
        weights = adapter / "adapter_model.safetensors"
        if not weights.is_file():
            raise EngineError(
                f"{adapter}: holds no adapter (no file {weights.name}), and vLLM takes nothing "
                "else beside the base; train one, or set generation.engine.kind to transformers"
            )
        key = (adapter.resolve(), weights.stat().st_mtime_ns)
        number = self._adapters.setdefault(key, len(self._adapters) + 1)
        return LoRARequest(f"adapter-{number}", number, str(adapter.resolve()))


def _completion(request: Request, prompt_tokens: int, output: Any) -> Completion:
    ids = tuple(output.token_ids)
    reason: Literal["stop", "eos", "length"] = "length"
    if output.finish_reason == "stop":
        # The stop reason is the string that matched, or for an end token its id or nothing.
        reason = "stop" if isinstance(output.stop_reason, str) else "eos"
    chosen = _logprobs(output)
    return Completion(
        id=request.id,
        text=output.text,
        token_ids=ids[:-1] if reason == "eos" else ids,
        finish_reason=reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=len(ids) - (reason == "eos"),
        mean_logprob=math.fsum(chosen) / len(chosen) if chosen else None,
    )


def _logprobs(output: Any) -> list[float]:
    """Log-probability of each token that was written."""
    places = zip(output.token_ids, output.logprobs or (), strict=False)
    return [place[token].logprob for token, place in places]
