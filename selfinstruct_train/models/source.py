"""Where the files of a model lie."""

from __future__ import annotations

from pathlib import Path

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.gguf import gguf_file, is_gguf, unpacked

EMBEDDED = "embedded"
EMBEDDED_WEIGHTS = Path(__file__).parent.parent / "microworld" / "weights"


def check_source(config: ModelConfig) -> None:
    """See that the folder or file that the setting stands for is here, and unpack nothing.

    Raises:
        EngineError: it is not.
    """
    if is_gguf(config.name_or_path):
        gguf_file(config.name_or_path)
    else:
        model_source(config)


def model_source(config: ModelConfig) -> str:
    """Folder or Hub name that the setting stands for.

    Raises:
        EngineError: the folder does not exist.
    """
    name = config.name_or_path
    if is_gguf(name):
        return str(unpacked(name))
    if name != EMBEDDED:
        if Path(name).expanduser().is_dir():
            return str(Path(name).expanduser())
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise EngineError(
                f"model.name_or_path: no folder '{name}'; name a folder with config.json, "
                "tokenizer.json and *.safetensors, a model of the Hugging Face Hub, or "
                f"'{EMBEDDED}'"
            )
        return name
    if not (EMBEDDED_WEIGHTS / "model.safetensors").is_file():
        raise EngineError(
            f"model.name_or_path: this installation lacks the embedded model (no file "
            f"{EMBEDDED_WEIGHTS / 'model.safetensors'}); install the package again, or name "
            f"another model"
        )
    return str(EMBEDDED_WEIGHTS)
