"""Which model it is: what its files hold, not where they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import hf_hub_download

_SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Files of a model's folder that say how its weights and tokens are read."""
_SAMPLES = 64
_SAMPLE_BYTES = 4096


def model_identity(source: str, revision: str | None = None) -> str:
    """Hash of a model's settings, tokenizer and weights; the commit of a model on the Hub.

    Of weights, the header, the size and a sample spread over the file are read: to read all of a
    large model would take minutes at each start, and replaced weights differ everywhere.

    Args:
        source: the model's folder, or its name on the Hub.
        revision: branch, tag or commit on the Hub.
    """
    folder = Path(source)
    if not folder.is_dir():
        return _hub_commit(source, revision)
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _SETTINGS for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(_sample(file))
    return digest.hexdigest()


def _hub_commit(name: str, revision: str | None) -> str:
    try:
        path = Path(hf_hub_download(name, "config.json", revision=revision))
    except Exception:  # what cannot be had is reported, with what to do, by whoever loads it
        return f"{name}@{revision}"
    return f"{name}@{path.parent.name}"


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        found = [weights.read(min(length, size))]
        for number in range(_SAMPLES):
            weights.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            found.append(weights.read(_SAMPLE_BYTES))
    return b"".join(found)
